import type { LogEntry } from 'durably-client'
import type { ServerOptions } from './server.js'
import { useObservable } from './use-observable.js'
import { useRunObserver } from './use-run-observer.js'

export type UseJobLogsOptions = ServerOptions & {
  /** The run whose logs to show; null, undefined or an empty text show none. */
  runId: string | null | undefined
  /** Keep only the latest logs. Default: all of them. */
  maxLogs?: number | undefined
}

export interface UseJobLogsResult {
  logs: readonly LogEntry[]
  clearLogs: () => void
}

/** Shows what a run has logged, and logs. */
export function useJobLogs(options: UseJobLogsOptions): UseJobLogsResult {
  const run = useRunObserver(options)
  return { logs: useObservable(run).logs, clearLogs: run.clearLogs }
}
