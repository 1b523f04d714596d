export type {
  ClientRun,
  DurablyEvent,
  JobTypes,
  Labels,
  LogEntry,
  Progress,
  RunOf,
  RunStatus,
  StepRecord,
  TriggerOptions,
  TriggerResult,
} from 'durably-client'
export { createDurably, type CreateDurablyOptions, type Durably } from './create-durably.js'
export { createJobHooks, type JobHooks, type JobHooksOptions } from './job-hooks.js'
export type { ServerOptions } from './server.js'
export { useJob, type UseJobOptions, type UseJobResult } from './use-job.js'
export { useJobLogs, type UseJobLogsOptions, type UseJobLogsResult } from './use-job-logs.js'
export { useJobRun, type UseJobRunOptions, type UseJobRunResult } from './use-job-run.js'
export { useRunActions, type UseRunActionsResult } from './use-run-actions.js'
export { useRuns, type UseRunsOptions, type UseRunsResult } from './use-runs.js'
