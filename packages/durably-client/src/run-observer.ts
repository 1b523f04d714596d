import type { DurablyApi } from './api.js'
import { Backoff } from './backoff.js'
import { asError, isPermanent, refusalText } from './errors.js'
import { endsRun, type DurablyEvent } from './events.js'
import { logLimit } from './logs.js'
import { initialRunState, reduceRun, type RunAction, type RunState } from './reducer.js'
import { isTerminal, type ClientRun, type RunStatus } from './runs.js'
import { Store } from './store.js'
import type { EventStreams } from './streams.js'

// After so many failures nobody waits for stored lines any more; they are asked for all the same.
const LOG_TRIES = 3

export interface RunObserverOptions {
  /** Keep only the latest logs. Default: all of them. */
  maxLogs?: number | undefined
  /** What is known about the run before the server has said anything. */
  status?: RunStatus | undefined
}

/** Follows one run: the state it is in, then every event, across reconnects. */
export class RunObserver<TOutput = unknown> extends Store<RunState<TOutput>> {
  readonly runId: string | null
  readonly #api: DurablyApi
  readonly #streams: EventStreams
  readonly #backoff = new Backoff()
  readonly #logsBackoff = new Backoff()
  #maxLogs: number
  #wantsHistory = true
  // Aborted when the run is no longer followed: it was deleted or given up, or nobody listens. Answers that were asked
  // for before are then too late; that of a deleted run would bring it back.
  #following = new AbortController()
  #leaveStream: (() => void) | null = null
  // What keeps an active run from being followed, for as long as it does.
  #streamRefusal: string | null = null
  #loadFailure: string | null = null
  #eventsTold = 0
  // What was asked for in vain last: the run may have more to show than its events told, or its logs.
  #lacksRun = true
  #lacksLogs = true
  // Lines may be stored that the state has not, since the run is followed or since it has ended.
  #lacksStoredLines = false
  #asksLastLines = false
  readonly #lineReaders = new Set<() => void>()

  constructor(
    api: DurablyApi,
    streams: EventStreams,
    runId: string | null,
    options: RunObserverOptions = {},
  ) {
    super(initialRunState(runId, options.status))
    this.runId = runId
    this.#api = api
    this.#streams = streams
    this.#maxLogs = logLimit(options.maxLogs)
  }

  /** Keeps the latest logs from now on; a higher limit reads again what the former one left out. */
  setMaxLogs(wanted?: number): void {
    const maxLogs = logLimit(wanted)
    const { runId, logs } = this.getSnapshot()
    const isCut = logs.length === this.#maxLogs && maxLogs > this.#maxLogs
    this.#maxLogs = maxLogs
    if (isCut && runId !== null && this.#wantsHistory) void this.#loadLogs(runId)
    else if (logs.length > maxLogs) this.#apply({ type: 'history', logs: [] })
  }

  readonly clearLogs = (): void => {
    this.#wantsHistory = false
    this.#apply({ type: 'clear-logs' })
  }

  /** Whether the state has the lines that were stored, of an ended run to the last, or they cannot be had. If not,
   * `onAnswer` is called once, when it is time to ask again. */
  hasStoredLines(onAnswer: () => void): boolean {
    const { runId } = this
    if (runId === null || !this.#lacksStoredLines || !this.#wantsHistory || this.#maxLogs === 0) return true
    this.#lineReaders.add(onAnswer)
    if (isTerminal(this.getSnapshot().status) && !this.#asksLastLines) {
      this.#asksLastLines = true
      void this.#loadLogs(runId)
    }
    return false
  }

  protected start(): void {
    this.#lacksStoredLines = true
    const { runId } = this
    if (runId === null) return
    if (isTerminal(this.getSnapshot().status)) return this.#complete(runId)
    this.#leaveStream = this.#streams.ofRun(runId).subscribe({
      onEvent: (event) => this.#receive(event),
      onOpen: () => {
        this.#streamRefusal = null
        this.#tellTrouble()
        void this.#catchUp(runId)
      },
      onDrop: (error, wasRefused) => {
        if (wasRefused) this.#streamRefusal = refusalText(error)
        this.#tellTrouble()
        void this.#outliveDrop(runId, error)
      },
    })
  }

  protected stop(): void {
    this.#following.abort()
    this.#following = new AbortController()
    this.#logsBackoff.reset()
    this.#leave()
    this.#asksLastLines = false
    this.#lacksStoredLines = false
    this.#tellLineReaders()
  }

  #leave(): void {
    this.#backoff.reset()
    this.#leaveStream?.()
    this.#leaveStream = null
    this.#streamRefusal = null
    this.#loadFailure = null
  }

  #receive(event: DurablyEvent): void {
    if (event.runId !== this.runId) return
    this.#eventsTold++
    const wasFollowed = this.getSnapshot().status !== null
    this.#apply({ type: 'event', event })
    if (event.type === 'run:delete') this.stop()
    // An answer that is still to come has the progress of a run that ended meanwhile.
    else if (endsRun(event)) this.#leaveEnded(event.runId, wasFollowed)
  }

  // The server has nothing more to tell; staying would reconnect and replay the end again and again, or be refused.
  #leaveEnded(runId: string, wasFollowed: boolean): void {
    this.#leave()
    // The latest lines may not have been stored when they were asked for.
    if (wasFollowed && !this.#asksLastLines) this.#lacksLogs = true
    this.#complete(runId)
  }

  // No stream tells what a run that has ended lacks.
  #complete(runId: string): void {
    if (this.#lacksRun) void this.#loadRun(runId)
    if (this.#lacksLogs && this.#wantsHistory) void this.#loadLogs(runId)
  }

  // The stream says nothing about a pending run, nor what was logged before it was opened.
  async #catchUp(runId: string): Promise<void> {
    const history = this.#wantsHistory ? this.#loadLogs(runId) : null
    await Promise.all([this.#loadRun(runId), history])
  }

  // An EventSource does not tell why it was refused; asking for the run does. Who is refused for good, though the
  // run may be asked for, hears nothing more of it.
  async #outliveDrop(runId: string, error: Error): Promise<void> {
    const { signal } = this.#following
    const wasFollowed = this.getSnapshot().status !== null
    await this.#catchUp(runId)
    if (signal.aborted) return
    if (isTerminal(this.getSnapshot().status)) this.#leaveEnded(runId, wasFollowed)
    else if (isPermanent(error)) this.#giveUp(error.message)
  }

  async #loadRun(runId: string): Promise<void> {
    const eventsTold = this.#eventsTold
    this.#lacksRun = false
    const outcome = await this.#ask(
      (signal) => this.#api.getRun(runId, signal),
      () => (this.#lacksRun = true),
    )
    if (outcome === undefined) return
    if (outcome === null) this.#giveUp('Run not found')
    else if (!(outcome instanceof Error)) this.#seen(outcome, eventsTold === this.#eventsTold)
    else if (isPermanent(outcome)) this.#giveUp(outcome.message)
    else this.#loadAgain(runId, outcome)
  }

  #seen(run: ClientRun, isLatest: boolean): void {
    this.#backoff.reset()
    this.#loadFailure = null
    this.#apply({ type: 'snapshot', run, isLatest })
  }

  // Of a run that waits its turn the stream may say nothing for long.
  #loadAgain(runId: string, error: Error): void {
    this.#lacksRun = true
    if (this.#leaveStream) {
      this.#loadFailure = error.message
      this.#tellTrouble()
    } else if (!isTerminal(this.getSnapshot().status)) return
    this.#backoff.retry(() => void this.#loadRun(runId))
  }

  async #loadLogs(runId: string): Promise<void> {
    if (this.#maxLogs === 0) return this.#tellLineReaders()
    const wasEnded = isTerminal(this.getSnapshot().status)
    this.#lacksLogs = false
    const logs = await this.#ask(
      (signal) => this.#api.getLogs(runId, signal),
      () => (this.#lacksLogs = true),
    )
    if (logs === undefined || !this.#wantsHistory) return
    if (!(logs instanceof Error)) {
      this.#logsBackoff.reset()
      if (logs.length > 0) this.#apply({ type: 'history', logs })
      return this.#hasRead(wasEnded)
    }
    this.#lacksLogs = true
    if (isPermanent(logs)) return this.#hasRead(wasEnded)
    this.#logsBackoff.retry(() => void this.#loadLogs(runId))
    if (this.#logsBackoff.failures >= LOG_TRIES) this.#hasRead(wasEnded)
  }

  // What was asked for before the run ended may lack its last lines.
  #hasRead(wasEnded: boolean): void {
    if (wasEnded || !isTerminal(this.getSnapshot().status)) this.#lacksStoredLines = false
    this.#tellLineReaders()
  }

  #tellLineReaders(): void {
    const readers = [...this.#lineReaders]
    this.#lineReaders.clear()
    for (const onAnswer of readers) onAnswer()
  }

  // The answer, if it comes while the run is followed. If not, it is lacking at once: whoever listens again in the
  // same moment would else take it for being on its way.
  async #ask<T>(question: (signal: AbortSignal) => Promise<T>, lack: () => void): Promise<T | Error | undefined> {
    const { signal } = this.#following
    signal.addEventListener('abort', lack)
    const answer = await question(signal).catch(asError)
    if (signal.aborted) return undefined
    signal.removeEventListener('abort', lack)
    return answer
  }

  #giveUp(error: string): void {
    this.stop()
    this.#apply({ type: 'lost', error })
  }

  #apply(action: RunAction): void {
    const before = this.getSnapshot()
    const state = reduceRun(before, action, this.#maxLogs) as RunState<TOutput>
    if (isTerminal(state.status) && !isTerminal(before.status)) this.#lacksStoredLines = true
    this.setState(this.#withTrouble(state))
  }

  #tellTrouble(): void {
    this.setState(this.#withTrouble(this.getSnapshot()))
  }

  // A run that has not ended has no error of its own.
  #withTrouble<TState extends RunState>(state: TState): TState {
    if (state.isLost || isTerminal(state.status)) return state
    const error = this.#streamRefusal ?? this.#loadFailure
    return state.error === error ? state : { ...state, error }
  }
}
