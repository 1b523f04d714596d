import type { ClientRun, RunListQuery, RunListState } from 'durably-client'
import { useEffect, useMemo } from 'react'
import { clientOf, type ServerOptions } from './server.js'
import { useObservable } from './use-observable.js'

export type UseRunsOptions = ServerOptions & RunListQuery

export interface UseRunsResult<TRun extends ClientRun> extends RunListState<TRun> {
  nextPage: () => void
  prevPage: () => void
  goToPage: (page: number) => void
  refresh: () => Promise<void>
}

/** Lists runs page by page, newest first; the first page follows what happens. */
export function useRuns<TRun extends ClientRun = ClientRun>(
  options: UseRunsOptions,
): UseRunsResult<TRun> {
  const client = clientOf(options)
  const { jobName, status, labels, pageSize, realtime } = options
  // Filters are usually written in place: equal ones must not start a new list with every render.
  const filter = JSON.stringify({ jobName, status, labels })
  const list = useMemo(
    () => client.observeRuns<TRun>(JSON.parse(filter) as RunListQuery),
    [client, filter],
  )
  useEffect(() => list.setPageSize(pageSize), [list, pageSize])
  useEffect(() => list.setRealtime(realtime), [list, realtime])
  const { nextPage, prevPage, goToPage, refresh } = list
  return { ...useObservable(list), nextPage, prevPage, goToPage, refresh }
}
