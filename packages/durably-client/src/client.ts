import { DurablyApi, type TriggerOptions, type TriggerResult } from './api.js'
import { httpTransport, type HttpTransportOptions } from './http-transport.js'
import { JobObserver, type JobObserverOptions, type TriggerAndWaitResult } from './job-observer.js'
import {
  jobProxy,
  type InputOf,
  type JobMap,
  type JobName,
  type JobProperty,
  type NamesOption,
  type OutputOf,
  type UntypedJobs,
} from './jobs.js'
import type { RunFilter } from './queries.js'
import { RunListObserver, type RunListQuery } from './run-list-observer.js'
import { RunObserver, type RunObserverOptions } from './run-observer.js'
import type { ClientRun } from './runs.js'
import { EventStreams } from './streams.js'
import type { Transport } from './transport.js'
import { deadlineOf, waitUntil, type WaitOptions } from './wait-for-run.js'

/** One server, its endpoints and its event streams. Opens nothing until something is observed. */
export class DurablyClient extends DurablyApi {
  readonly #streams: EventStreams

  constructor(transport: Transport) {
    super(transport)
    this.#streams = new EventStreams(transport)
  }

  observeRun<TOutput = unknown>(
    runId: string | null,
    options?: RunObserverOptions,
  ): RunObserver<TOutput> {
    return new RunObserver(this, this.#streams, runId, options)
  }

  observeRuns<TRun extends ClientRun = ClientRun>(query?: RunListQuery): RunListObserver<TRun> {
    return new RunListObserver(this, this.#streams, query)
  }

  observeJob<TInput = unknown, TOutput = unknown>(
    jobName: string,
    options?: JobObserverOptions,
  ): JobObserver<TInput, TOutput> {
    return new JobObserver(this, this.#streams, jobName, options)
  }

  async waitForRun<TOutput = unknown>(runId: string, options: WaitOptions = {}): Promise<TOutput> {
    return this.#waitUntil(deadlineOf(options), runId, options)
  }

  async triggerAndWait<TOutput = unknown>(
    jobName: string,
    input: unknown,
    options: TriggerOptions & WaitOptions = {},
  ): Promise<TriggerAndWaitResult<TOutput>> {
    const deadline = deadlineOf(options)
    deadline?.throwIfAborted()
    const result = await this.trigger(jobName, input, options, deadline)
    return { ...result, output: await this.#waitUntil<TOutput>(deadline, result.runId, options) }
  }

  #waitUntil<TOutput>(
    deadline: AbortSignal | undefined,
    runId: string,
    options: WaitOptions,
  ): Promise<TOutput> {
    // Logs that nobody asked for are neither loaded nor kept.
    const run = this.observeRun<TOutput>(runId, options.onLog ? {} : { maxLogs: 0 })
    return waitUntil(deadline, runId, run, options)
  }
}

/** What can be done with one job. */
export interface JobClient<TInput, TOutput, TName extends string = string> {
  readonly name: TName
  readonly trigger: (input: TInput, options?: TriggerOptions) => Promise<TriggerResult>
  readonly triggerAndWait: (
    input: TInput,
    options?: TriggerOptions & WaitOptions,
  ) => Promise<TriggerAndWaitResult<TOutput>>
  readonly getRuns: (filter?: Omit<RunFilter, 'jobName'>) => Promise<ClientRun<TInput, TOutput, TName>[]>
  readonly observe: (options?: JobObserverOptions) => JobObserver<TInput, TOutput>
  readonly observeRun: (runId: string, options?: RunObserverOptions) => RunObserver<TOutput>
}

export interface TypedDurablyClient<Jobs> extends DurablyClient {
  readonly jobs: {
    readonly [K in JobProperty<Jobs>]: JobClient<InputOf<Jobs[K]>, OutputOf<Jobs[K]>, JobName<Jobs, K>>
  }
}

export type ConnectionOptions = (HttpTransportOptions & { transport?: never }) | { transport: Transport; api?: never }

export type DurablyClientOptions<Jobs> = ConnectionOptions & NamesOption<Jobs>

export function createDurablyClient<Jobs extends JobMap<Jobs> = UntypedJobs>(
  options: DurablyClientOptions<NoInfer<Jobs>>,
): TypedDurablyClient<Jobs> {
  const client = new DurablyClient(transportOf(options))
  const jobs = jobProxy(options.names ?? {}, (jobName) => jobClient(client, jobName))
  return Object.assign(client, { jobs }) as unknown as TypedDurablyClient<Jobs>
}

function transportOf(options: ConnectionOptions): Transport {
  return options.transport ?? httpTransport(options)
}

function jobClient(client: DurablyClient, name: string): JobClient<unknown, unknown> {
  return {
    name,
    trigger: (input, options) => client.trigger(name, input, options),
    triggerAndWait: (input, options) => client.triggerAndWait(name, input, options),
    getRuns: (filter) => client.getRuns({ ...filter, jobName: name }),
    observe: (options) => client.observeJob(name, options),
    observeRun: (runId, options) => client.observeRun(runId, options),
  }
}
