import type { DurablyApi, TriggerOptions, TriggerResult } from './api.js'
import type { DurablyEvent } from './events.js'
import { initialRunState, type RunState } from './reducer.js'
import { RunObserver } from './run-observer.js'
import { isTerminal, type RunStatus } from './runs.js'
import { Store } from './store.js'
import type { EventStreams } from './streams.js'
import { waitForRun, type WaitOptions } from './wait-for-run.js'

export interface JobObserverOptions {
  /** Follow this run from the start, instead of looking for an active one. */
  initialRunId?: string
  /** Pick up a run of this job that is already pending or leased. Default: true. */
  autoResume?: boolean
  /** Switch to a newer run of this job, whoever triggered it. Default: true. */
  followLatest?: boolean
  maxLogs?: number
}

export interface TriggerAndWaitResult<TOutput> extends TriggerResult {
  output: TOutput
}

// Enough to find a leased run behind the pending ones that were triggered after it.
const RESUME_CANDIDATES = 20

/** Triggers a job and follows one of its runs at a time. */
export class JobObserver<TInput = unknown, TOutput = unknown> extends Store<RunState<TOutput>> {
  readonly #api: DurablyApi
  readonly #streams: EventStreams
  readonly #jobName: string
  readonly #maxLogs: number | undefined
  readonly #autoResume: boolean
  #followLatest: boolean
  #run: RunObserver<TOutput>
  #before: RunObserver<TOutput>
  #waiting: RunObserver<TOutput> | null = null
  #leaveRun: (() => void) | null = null
  #leaveJob: (() => void) | null = null
  // Counts the decisions which run to follow: whatever was asked for before the latest one comes too late.
  #choice = 0

  constructor(
    api: DurablyApi,
    streams: EventStreams,
    jobName: string,
    options: JobObserverOptions = {},
  ) {
    super(initialRunState(options.initialRunId ?? null))
    this.#api = api
    this.#streams = streams
    this.#jobName = jobName
    this.#maxLogs = options.maxLogs
    this.#autoResume = (options.autoResume ?? true) && options.initialRunId === undefined
    this.#followLatest = options.followLatest ?? true
    this.#run = this.#observe(options.initialRunId ?? null)
    this.#before = this.#run
  }

  setFollowLatest(followLatest: boolean): void {
    if (this.#followLatest === followLatest) return
    this.#followLatest = followLatest
    if (this.isObserved) this.#followJob()
  }

  readonly trigger = async (input: TInput, options?: TriggerOptions): Promise<TriggerResult> => {
    // Of two calls at once the second goes back to what was there before both, not to the first one's waiting.
    if (this.#run !== this.#waiting) this.#before = this.#run
    const choice = this.#follow(null, 'pending')
    this.#waiting = this.#run
    try {
      const result = await this.#api.trigger(this.#jobName, input, options)
      if (choice === this.#choice) this.#follow(result.runId, 'pending')
      else if (this.#run === this.#waiting) this.#before = this.#observe(result.runId)
      return result
    } catch (error) {
      if (choice === this.#choice) this.#switchTo(this.#before)
      throw error
    }
  }

  readonly triggerAndWait = async (
    input: TInput,
    options: TriggerOptions & WaitOptions = {},
  ): Promise<TriggerAndWaitResult<TOutput>> => {
    const result = await this.trigger(input, options)
    // Another run may be followed by now, or before this one ends: wait for the run, not for the state.
    const run = this.#run.runId === result.runId ? this.#run : this.#observe(result.runId)
    return { ...result, output: await waitForRun(result.runId, run, options) }
  }

  /** Forget the run that is followed; a newer one is picked up as before. */
  readonly reset = (): void => {
    this.#follow(null)
  }

  protected start(): void {
    this.#attach()
    this.#followJob()
    void this.#resume()
  }

  protected stop(): void {
    this.#leaveRun?.()
    this.#leaveRun = null
    this.#leaveJob?.()
    this.#leaveJob = null
  }

  #followJob(): void {
    this.#leaveJob?.()
    this.#leaveJob = null
    if (!this.#followLatest) return
    const stream = this.#streams.ofRuns({ jobName: this.#jobName })
    this.#leaveJob = stream.subscribe({
      onEvent: (event) => this.#receive(event),
      // A trigger while the stream was not open was told to nobody.
      onOpen: () => void this.#resume(),
    })
  }

  #receive(event: DurablyEvent): void {
    if (event.runId === this.getSnapshot().runId) return
    // A coalesced trigger is one as well: its run is the pending one that it joined.
    if (event.type === 'run:trigger' || event.type === 'run:coalesced') this.#follow(event.runId, 'pending')
    // Its trigger was missed; while another run is active, a run that waited is the older one.
    else if (event.type === 'run:leased' && this.#isIdle()) this.#follow(event.runId, 'leased')
  }

  #isIdle(): boolean {
    const { status } = this.getSnapshot()
    return status === null || isTerminal(status)
  }

  async #resume(): Promise<void> {
    if (!this.#autoResume || !this.#isIdle()) return
    if (this.getSnapshot().runId !== null && !this.#followLatest) return
    const choice = this.#choice
    const active = await this.#api
      .getRuns({ jobName: this.#jobName, status: ['leased', 'pending'], limit: RESUME_CANDIDATES })
      .catch(() => [])
    const run = active.find(({ status }) => status === 'leased') ?? active[0]
    if (run && choice === this.#choice) this.#follow(run.id, run.status)
  }

  #follow(runId: string | null, status?: RunStatus): number {
    this.#switchTo(this.#observe(runId, status))
    return this.#choice
  }

  #switchTo(run: RunObserver<TOutput>): void {
    this.#choice++
    this.#leaveRun?.()
    this.#leaveRun = null
    this.#run = run
    if (this.isObserved) this.#attach()
    else this.setState(run.getSnapshot())
  }

  #attach(): void {
    this.#leaveRun = this.#run.subscribe(() => this.setState(this.#run.getSnapshot()))
    this.setState(this.#run.getSnapshot())
  }

  #observe(runId: string | null, status?: RunStatus): RunObserver<TOutput> {
    return new RunObserver(this.#api, this.#streams, runId, {
      ...(status && { status }),
      ...(this.#maxLogs !== undefined && { maxLogs: this.#maxLogs }),
    })
  }
}
