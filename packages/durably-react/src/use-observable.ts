import type { Observable } from 'durably-client'
import { useSyncExternalStore } from 'react'

export function useObservable<TState>({ subscribe, getSnapshot }: Observable<TState>): TState {
  return useSyncExternalStore(subscribe, getSnapshot, getSnapshot)
}
