import type { ClientRun, RunListQuery, RunListState } from 'durably-client'
import { useMemo } from 'react'
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
  // Filters are usually written in place: equal ones must not start a new list with every render.
  const query = JSON.stringify(queryOf(options))
  const list = useMemo(
    () => client.observeRuns<TRun>(JSON.parse(query) as RunListQuery),
    [client, query],
  )
  const { nextPage, prevPage, goToPage, refresh } = list
  return { ...useObservable(list), nextPage, prevPage, goToPage, refresh }
}

function queryOf({ jobName, status, labels, pageSize, realtime }: UseRunsOptions): unknown {
  return { jobName, status, labels, pageSize, realtime }
}
