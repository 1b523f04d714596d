import {
  statusFlags,
  type JobObserver,
  type JobObserverOptions,
  type LogEntry,
  type Progress,
  type RunStatus,
  type StatusFlags,
} from 'durably-client'
import { useEffect, useMemo, useState } from 'react'
import { clientOf, type ServerOptions } from './server.js'
import { useObservable } from './use-observable.js'

export interface FollowOptions extends Omit<JobObserverOptions, 'initialRunId'> {
  /** Follow this run from the start, instead of looking for an active one. Null or empty: none. */
  initialRunId?: string | null
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
  const { jobName, initialRunId, maxLogs, followLatest = true } = options
  // For the moment of mounting: what is followed by then does not depend on it.
  const [autoResume] = useState(options.autoResume ?? true)
  const job = useMemo(
    () =>
      client.observeJob<TInput, TOutput>(jobName, {
        autoResume,
        ...(initialRunId && { initialRunId }),
      }),
    [client, jobName, initialRunId, autoResume],
  )
  useEffect(() => job.setFollowLatest(followLatest), [job, followLatest])
  useEffect(() => job.setMaxLogs(maxLogs), [job, maxLogs])
  const { runId: currentRunId, ...run } = useObservable(job)
  const { trigger, triggerAndWait, reset } = job
  return { ...run, ...statusFlags(run.status), currentRunId, trigger, triggerAndWait, reset }
}
