import {
  statusFlags,
  watchRun,
  type LogEntry,
  type Progress,
  type RunCallbacks,
  type RunStatus,
  type StatusFlags,
} from 'durably-client'
import { useEffect, useMemo, useRef } from 'react'
import { clientOf, type ServerOptions } from './server.js'
import { useObservable } from './use-observable.js'

export type UseJobRunOptions<TOutput = unknown> = ServerOptions &
  RunCallbacks<TOutput> & {
    /** The run to follow; null follows none. */
    runId: string | null
    /** Keep only the latest logs. Default: all of them. */
    maxLogs?: number
  }

export interface UseJobRunResult<TOutput> extends StatusFlags {
  status: RunStatus | null
  progress: Progress | null
  logs: readonly LogEntry[]
  output: TOutput | null
  error: string | null
}

/** Follows a run that exists already. */
export function useJobRun<TOutput = unknown>(
  options: UseJobRunOptions<TOutput>,
): UseJobRunResult<TOutput> {
  const client = clientOf(options)
  const { runId, maxLogs } = options
  const run = useMemo(
    () => client.observeRun<TOutput>(runId, maxLogs === undefined ? {} : { maxLogs }),
    [client, runId, maxLogs],
  )
  const { status, progress, logs, output, error } = useObservable(run)

  const callbacks = useRef<RunCallbacks<TOutput>>(options)
  useEffect(() => {
    callbacks.current = options
  })
  useEffect(() => watchRun(run, () => callbacks.current), [run])

  return { status, progress, logs, output, error, ...statusFlags(status) }
}
