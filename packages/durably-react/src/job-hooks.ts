import type { DurablyClient, InputOf, JobTypes, OutputOf, RunCallbacks } from 'durably-client'
import { clientOf, type ServerOptions } from './server.js'
import { useJob, type FollowOptions, type UseJobResult } from './use-job.js'
import { useJobLogs, type UseJobLogsResult } from './use-job-logs.js'
import { useJobRun, type UseJobRunResult } from './use-job-run.js'

interface LogLimit {
  /** Keep only the latest logs. Default: all of them. */
  maxLogs?: number | undefined
}

/** The hooks of one job, which know its input and output. */
export interface JobHooks<TInput, TOutput> {
  readonly useJob: (options?: FollowOptions) => UseJobResult<TInput, TOutput>
  readonly useRun: (
    runId: string | null | undefined,
    options?: RunCallbacks<TOutput> & LogLimit,
  ) => UseJobRunResult<TOutput>
  readonly useLogs: (runId: string | null | undefined, options?: LogLimit) => UseJobLogsResult
}

export type JobHooksOptions = ServerOptions & { jobName: string }

export function createJobHooks<Job extends JobTypes = JobTypes>(
  options: JobHooksOptions,
): JobHooks<InputOf<Job>, OutputOf<Job>> {
  return hooksOf(clientOf(options), options.jobName)
}

export function hooksOf<TInput, TOutput>(
  client: DurablyClient,
  jobName: string,
): JobHooks<TInput, TOutput> {
  return {
    useJob: (options) => useJob({ ...options, client, jobName }),
    useRun: (runId, options) => useJobRun({ ...options, client, runId }),
    useLogs: (runId, options) => useJobLogs({ ...options, client, runId }),
  }
}
