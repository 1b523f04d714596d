import {
  statusFlags,
  watchRun,
  type LogEntry,
  type Progress,
  type RunCallbacks,
  type RunStatus,
  type StatusFlags,
} from 'durably-client'
import { useEffect, useRef } from 'react'
import type { ServerOptions } from './server.js'
import { useObservable } from './use-observable.js'
import { useRunObserver } from './use-run-observer.js'

export type UseJobRunOptions<TOutput = unknown> = ServerOptions &
  RunCallbacks<TOutput> & {
    /** The run to follow; null, undefined or an empty text follow none. */
    runId: string | null | undefined
    /** Keep only the latest logs. Default: all of them. */
    maxLogs?: number | undefined
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
  const run = useRunObserver<TOutput>(options)
  const { status: known, progress, logs, output, error, isLost } = useObservable(run)
  // A run that one has the id of waits its turn, as far as one knows.
  const status = known ?? (run.runId !== null && !isLost ? 'pending' : null)

  const callbacks = useRef<RunCallbacks<TOutput>>(options)
  useEffect(() => {
    callbacks.current = options
  })
  useEffect(() => watchRun(run, () => callbacks.current), [run])

  return { status, progress, logs, output, error, ...statusFlags(status) }
}
