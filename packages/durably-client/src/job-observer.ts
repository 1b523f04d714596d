import type { DurablyApi, TriggerOptions, TriggerResult } from './api.js'
import { Backoff } from './backoff.js'
import { asError, isPermanent } from './errors.js'
import { endsRun, type DurablyEvent } from './events.js'
import { logLimit } from './logs.js'
import { PendingTriggers } from './pending-triggers.js'
import { initialRunState, type RunState } from './reducer.js'
import { RunObserver } from './run-observer.js'
import { isTerminal, type ClientRun, type RunStatus } from './runs.js'
import { Store } from './store.js'
import type { EventStreams } from './streams.js'
import { deadlineOf, waitUntil, type WaitOptions } from './wait-for-run.js'

export interface JobObserverOptions {
  /** Follow this run from the start, instead of looking for an active one. */
  initialRunId?: string | undefined
  /** Pick up a run of this job that is already pending or leased. Default: true. */
  autoResume?: boolean | undefined
  /** Switch to a newer run of this job, whoever triggered it. Default: true. */
  followLatest?: boolean | undefined
  /** Keep only the latest logs. Default: all of them. */
  maxLogs?: number | undefined
}

export interface TriggerAndWaitResult<TOutput> extends TriggerResult {
  output: TOutput
}

/** Triggers a job and follows one of its runs at a time. */
export class JobObserver<TInput = unknown, TOutput = unknown> extends Store<RunState<TOutput>> {
  readonly #api: DurablyApi
  readonly #streams: EventStreams
  readonly #jobName: string
  readonly #autoResume: boolean
  #maxLogs: number
  readonly #backoff = new Backoff()
  #followLatest: boolean
  #run: RunObserver<TOutput>
  readonly #pending: PendingTriggers<RunObserver<TOutput>>
  readonly #forgotten = new Set<string>()
  #leaveRun: (() => void) | null = null
  #attaching: ReturnType<typeof setTimeout> | undefined
  #leaveJob: (() => void) | null = null
  // Counts the decisions which run to follow: whatever was asked for before the latest one comes too late.
  #choice = 0
  // Whether another run may have begun while the one that is followed was taken for active.
  #looksAtEnd = false

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
    this.#autoResume = (options.autoResume ?? true) && options.initialRunId === undefined
    this.#maxLogs = logLimit(options.maxLogs)
    this.#followLatest = options.followLatest ?? true
    this.#run = this.#observe(options.initialRunId ?? null)
    this.#pending = new PendingTriggers(this.#run)
  }

  setFollowLatest(followLatest: boolean): void {
    if (this.#followLatest === followLatest) return
    this.#followLatest = followLatest
    if (this.isObserved) this.#followJob()
  }

  /** See `RunObserver.setMaxLogs`. */
  setMaxLogs(maxLogs?: number): void {
    this.#maxLogs = logLimit(maxLogs)
    this.#run.setMaxLogs(maxLogs)
  }

  readonly trigger = (input: TInput, options?: TriggerOptions): Promise<TriggerResult> =>
    this.#trigger(input, options)

  readonly triggerAndWait = async (
    input: TInput,
    options: TriggerOptions & WaitOptions = {},
  ): Promise<TriggerAndWaitResult<TOutput>> => {
    const deadline = deadlineOf(options)
    deadline?.throwIfAborted()
    const result = await this.#trigger(input, options, deadline)
    return { ...result, output: await waitUntil(deadline, result.runId, this.#toWaitFor(result.runId, options), options) }
  }

  /** Follow this run from now on. Nothing changes when it is followed already. */
  readonly follow = (runId: string): void => {
    if (this.#run.runId === runId) return
    this.#forgotten.delete(runId)
    this.#follow(runId)
  }

  /** Forget the run that is followed; another one that is triggered, or begins, is picked up as before. */
  readonly reset = (): void => {
    // The run of a trigger that is not yet answered is forgotten with its answer.
    this.#pending.forget()
    const { runId, status } = this.getSnapshot()
    if (runId !== null && !isTerminal(status)) this.#forgotten.add(runId)
    this.#follow(null)
  }

  protected start(): void {
    this.#attach()
    this.#followJob()
    void this.#resume()
  }

  protected stop(): void {
    this.#backoff.reset()
    this.#detach()
    this.#leaveJob?.()
    this.#leaveJob = null
  }

  async #trigger(input: TInput, options?: TriggerOptions, signal?: AbortSignal): Promise<TriggerResult> {
    const waiting = this.#wait()
    try {
      const result = await this.#api.trigger(this.#jobName, input, options, signal)
      this.#accepted(waiting, result.runId)
      return result
    } catch (error) {
      this.#refused(waiting)
      throw error
    }
  }

  #wait(): RunObserver<TOutput> {
    const waiting = this.#observe(null, 'pending')
    this.#pending.begin(waiting, this.#run)
    this.#switchTo(waiting)
    return waiting
  }

  #accepted(waiting: RunObserver<TOutput>, runId: string): void {
    if (!this.#pending.settle(waiting)) return this.#forget(runId)
    this.#forgotten.delete(runId)
    if (this.#run === waiting || this.#pending.mayBeOlder(this.#run, runId)) this.#follow(runId, 'pending')
    else if (this.#pending.includes(this.#run)) this.#pending.goBackTo(this.#observe(runId, 'pending'))
  }

  #refused(waiting: RunObserver<TOutput>): void {
    if (this.#pending.settle(waiting) && this.#run === waiting) this.#switchTo(this.#pending.fallback)
  }

  #forget(runId: string): void {
    this.#forgotten.add(runId)
    if (this.#run.runId === runId) this.#follow(null)
  }

  #followJob(): void {
    this.#leaveJob?.()
    this.#leaveJob = null
    if (!this.#followLatest) return
    const stream = this.#streams.ofRuns({ jobName: this.#jobName })
    this.#leaveJob = stream.subscribe({
      onEvent: (event) => this.#receive(event),
      // A trigger while the stream was not open was told to nobody. Nor was the end of the run that is followed.
      onOpen: () => {
        this.#looksAtEnd = !this.#isIdle()
        void this.#resume()
      },
    })
  }

  #receive(event: DurablyEvent): void {
    if (endsRun(event)) this.#forgotten.delete(event.runId)
    if (event.runId === this.#run.runId || this.#forgotten.has(event.runId)) return
    // A coalesced trigger is one as well: its run is the pending one that it joined.
    if (event.type === 'run:trigger' || event.type === 'run:coalesced') this.#followTold(event.runId, 'pending')
    // Its trigger was missed; while another run is active, a run that waited is the older one.
    else if (event.type === 'run:leased' && this.#isIdle()) this.#followTold(event.runId, 'leased')
  }

  #followTold(runId: string, status: RunStatus): void {
    this.#pending.tell(runId)
    this.#switchTo(this.#observe(runId, status), { attachesSoon: true })
  }

  // A run of which nothing is known yet may be active.
  #isIdle(): boolean {
    const { runId, status, isLost } = this.getSnapshot()
    return status === null ? runId === null || isLost : isTerminal(status)
  }

  async #resume(): Promise<void> {
    if (!this.#autoResume || !this.#isIdle()) return
    if (this.getSnapshot().runId !== null && !this.#followLatest) return
    const choice = this.#choice
    const forgotten = new Set(this.#forgotten)
    const found = await this.#activeRuns().catch(asError)
    if (choice !== this.#choice) return
    if (found instanceof Error) {
      if (this.isObserved && !isPermanent(found)) this.#backoff.retry(() => void this.#resume())
      return
    }
    this.#backoff.reset()
    const active = found.filter(({ id }) => !forgotten.has(id) && !this.#forgotten.has(id))
    const run = active.find(({ status }) => status === 'leased') ?? active[0]
    if (run) this.#follow(run.id, run.status)
  }

  // One that is leased may stand behind any number that wait. Those that wait are not asked for alone: one of them that
  // is leased meanwhile would be missed by both.
  async #activeRuns(): Promise<ClientRun[]> {
    const query = { jobName: this.#jobName, limit: 1 + this.#forgotten.size }
    const found = await Promise.all([
      this.#api.getRuns({ ...query, status: 'leased' }),
      this.#api.getRuns({ ...query, status: ['leased', 'pending'] }),
    ])
    return found.flat()
  }

  // Another run may be followed by now, or before this one ends: wait for the run, not for the state. And who listens
  // to the logs hears all of them, not only those that are kept to be shown.
  #toWaitFor(runId: string, { onLog }: WaitOptions): RunObserver<TOutput> {
    if (this.#run.runId === runId && (!onLog || this.#maxLogs === Infinity)) return this.#run
    return new RunObserver(this.#api, this.#streams, runId, onLog ? {} : { maxLogs: 0 })
  }

  #follow(runId: string | null, status?: RunStatus): void {
    this.#switchTo(this.#observe(runId, status))
  }

  #switchTo(run: RunObserver<TOutput>, { attachesSoon = false } = {}): void {
    this.#choice++
    this.#looksAtEnd = false
    this.#detach()
    this.#run = run
    // One that is gone back to may have the limit of former times.
    run.setMaxLogs(this.#maxLogs)
    if (this.isObserved && !attachesSoon) return this.#attach()
    this.setState(run.getSnapshot())
    // Of many runs that are told of at once, only the last is worth a connection.
    if (this.isObserved) this.#attaching = setTimeout(() => this.#attach(), 0)
  }

  #detach(): void {
    clearTimeout(this.#attaching)
    this.#leaveRun?.()
    this.#leaveRun = null
  }

  #attach(): void {
    this.#leaveRun = this.#run.subscribe(() => {
      this.setState(this.#run.getSnapshot())
      if (!this.#looksAtEnd || !this.#isIdle()) return
      this.#looksAtEnd = false
      void this.#resume()
    })
    this.setState(this.#run.getSnapshot())
  }

  #observe(runId: string | null, status?: RunStatus): RunObserver<TOutput> {
    return new RunObserver(this.#api, this.#streams, runId, { maxLogs: this.#maxLogs, status })
  }
}
