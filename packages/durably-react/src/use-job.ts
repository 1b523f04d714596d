import {
  statusFlags,
  type JobObserver,
  type JobObserverOptions,
  type LogEntry,
  type Progress,
  type RunStatus,
  type StatusFlags,
} from 'durably-client'
import { useEffect, useMemo, useRef } from 'react'
import { clientOf, type ServerOptions } from './server.js'
import { useObservable } from './use-observable.js'

export interface FollowOptions extends Omit<JobObserverOptions, 'initialRunId'> {
  /** Follow this run from the start, instead of looking for an active one. Null or empty: none. */
  initialRunId?: string | null | undefined
}

export type UseJobOptions = ServerOptions & FollowOptions & { jobName: string }

export interface UseJobResult<TInput, TOutput> extends StatusFlags {
  /** Resolves when the server has accepted the run. */
  trigger: JobObserver<TInput, TOutput>['trigger']
  /** Resolves with the output when the run has completed; rejects when it ends otherwise. */
  triggerAndWait: JobObserver<TInput, TOutput>['triggerAndWait']
  reset: () => void
  currentRunId: string | null
  status: RunStatus | null
  progress: Progress | null
  logs: readonly LogEntry[]
  output: TOutput | null
  error: string | null
}

/** Triggers a job, and follows the run. */
export function useJob<TInput = unknown, TOutput = unknown>(
  options: UseJobOptions,
): UseJobResult<TInput, TOutput> {
  const client = clientOf(options)
  const { jobName, initialRunId, autoResume, maxLogs, followLatest = true } = options
  const job = useMemo(
    () => client.observeJob<TInput, TOutput>(jobName, { autoResume, initialRunId: initialRunId || undefined }),
    // Where to begin: what is followed later does not depend on it.
    // eslint-disable-next-line react-hooks/exhaustive-deps
    [client, jobName],
  )
  const followed = useRef({ job, initialRunId })
  useEffect(() => {
    // A page that is shown again does everything anew, and what was triggered meanwhile is followed still.
    if (followed.current.job === job && followed.current.initialRunId === initialRunId) return
    followed.current = { job, initialRunId }
    // It may be taken to another run, or be told the id of the one that it follows.
    if (initialRunId) job.follow(initialRunId)
  }, [job, initialRunId])
  useEffect(() => job.setFollowLatest(followLatest), [job, followLatest])
  useEffect(() => job.setMaxLogs(maxLogs), [job, maxLogs])
  const { runId: currentRunId, status, progress, logs, output, error } = useObservable(job)
  const { trigger, triggerAndWait, reset } = job
  const run = { status, progress, logs, output, error, ...statusFlags(status) }
  return { ...run, currentRunId, trigger, triggerAndWait, reset }
}
