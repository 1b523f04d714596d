import {
  jobProxy,
  type ConnectionOptions,
  type DurablyClient,
  type InputOf,
  type JobMap,
  type JobName,
  type JobProperty,
  type NamesOption,
  type OutputOf,
  type RunListQuery,
  type RunOf,
  type UntypedJobs,
} from 'durably-client'
import { hooksOf, type JobHooks } from './job-hooks.js'
import { clientFor } from './server.js'
import { useRunActions, type UseRunActionsResult } from './use-run-actions.js'
import { useRuns, type UseRunsResult } from './use-runs.js'

export type CreateDurablyOptions<Jobs> = (
  | (ConnectionOptions & { client?: never })
  | { client: DurablyClient; api?: never }
) &
  NamesOption<Jobs>

type RunsQuery<TName extends string> = Omit<RunListQuery, 'jobName'> & {
  jobName?: TName | readonly TName[]
}

/** Hooks for jobs of all kinds. */
export interface SharedHooks<Jobs> {
  useRuns<TName extends JobName<Jobs> = JobName<Jobs>>(
    options?: RunsQuery<TName>,
  ): UseRunsResult<RunOf<Jobs, TName>>
  useRunActions(): UseRunActionsResult<RunOf<Jobs>>
}

export type Durably<Jobs> = SharedHooks<Jobs> & {
  readonly [K in Exclude<JobProperty<Jobs>, keyof SharedHooks<Jobs>>]: JobHooks<
    InputOf<Jobs[K]>,
    OutputOf<Jobs[K]>
  >
}

/** The hooks of a server: one property per job, and those that work across jobs. */
export function createDurably<Jobs extends JobMap<Jobs> = UntypedJobs>(
  options: CreateDurablyOptions<NoInfer<Jobs>>,
): Durably<Jobs> {
  const client = clientFor(options)
  const shared: SharedHooks<UntypedJobs> = {
    useRuns: (query) => useRuns({ ...query, client }),
    useRunActions: () => useRunActions({ client }),
  }
  const hooks = jobProxy(options.names ?? {}, (jobName) => hooksOf(client, jobName), { ...shared })
  return hooks as Durably<Jobs>
}
