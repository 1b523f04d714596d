import { asError, RunCancelledError, RunFailedError, RunLostError } from './errors.js'
import type { RunState } from './reducer.js'
import { RunObserver } from './run-observer.js'
import type { LogEntry, Progress } from './runs.js'
import type { Observable } from './store.js'

export interface WaitOptions {
  /** Milliseconds after which waiting (not the run) is given up. */
  timeout?: number | undefined
  signal?: AbortSignal | undefined
  onProgress?: ((progress: Progress) => void) | undefined
  /** Hears each line once, also those that were stored before. Waiting ends when it has heard them. */
  onLog?: ((log: LogEntry) => void) | undefined
}

type Callbacks = Pick<WaitOptions, 'onProgress' | 'onLog'>

type Ending<TOutput> = { output: TOutput } | { error: Error }

/** Resolves with the output of a run; rejects when it ends in any other way. */
export async function waitForRun<TOutput>(
  runId: string,
  run: Observable<RunState<TOutput>>,
  options: WaitOptions = {},
): Promise<TOutput> {
  return waitUntil(deadlineOf(options), runId, run, options)
}

/** The same with a deadline that may have begun before there was a run. */
export function waitUntil<TOutput>(
  signal: AbortSignal | undefined,
  runId: string,
  run: Observable<RunState<TOutput>>,
  callbacks: Callbacks,
): Promise<TOutput> {
  const tell = teller(runId, run, callbacks)
  return new Promise((resolve, reject) => {
    const settle = (ending: Ending<TOutput> | null) => {
      if (!ending) return
      isSubscribed = false
      unsubscribe()
      signal?.removeEventListener('abort', abort)
      if ('output' in ending) resolve(ending.output)
      else reject(ending.error)
    }
    // What was to wait for stored lines is told without them, and so is the end of the run.
    const abort = () => settle(tell() ?? { error: signal?.reason as Error })
    // Some observables, as a Svelte store, call who subscribes before they return what unsubscribes.
    let isSubscribed = false
    const look = () => {
      if (isSubscribed) settle(tell(look))
    }
    const unsubscribe = run.subscribe(look)
    isSubscribed = true
    if (signal?.aborted) return settle({ error: signal.reason as Error })
    signal?.addEventListener('abort', abort)
    // It may have ended before anybody asked.
    look()
  })
}

/** Tells the callbacks what is new, and returns how the run ended. What waits for stored lines, `look` tells later;
 * without it, nothing waits any longer. */
function teller<TOutput>(runId: string, run: Observable<RunState<TOutput>>, callbacks: Callbacks) {
  const report = reporter(callbacks)
  let awaitsLines = false
  return (look?: () => void): Ending<TOutput> | null => {
    if (!look && !awaitsLines) return null
    awaitsLines = look !== undefined && callbacks.onLog !== undefined && !hasStoredLines(run, look)
    const state = run.getSnapshot()
    const error = report(state, !awaitsLines)
    if (error) return { error }
    return awaitsLines ? null : endingOf(runId, state)
  }
}

// The lines written before come later than those that are heard meanwhile, and the last ones later than the end.
function hasStoredLines(run: Observable<RunState>, onAnswer: () => void): boolean {
  return !(run instanceof RunObserver) || run.getSnapshot().isLost || run.hasStoredLines(onAnswer)
}

function endingOf<TOutput>(runId: string, state: RunState<TOutput>): Ending<TOutput> | null {
  const { status, output, error, isLost } = state
  if (status === 'completed') return { output: output as TOutput }
  if (status === 'failed') return { error: new RunFailedError(runId, error ?? 'Run failed') }
  if (status === 'cancelled') return { error: new RunCancelledError(runId, 'Run was cancelled') }
  if (isLost) return { error: new RunLostError(runId, error ?? 'Run was lost') }
  return null
}

/** Tells the callbacks what is new in a state, lines only if it has those of before, and returns what one throws. */
function reporter({ onProgress, onLog }: Callbacks) {
  let progress: Progress | null = null
  let logs: readonly LogEntry[] = []
  const report = (state: RunState, hasLines: boolean) => {
    const known = progress
    // First, for a callback may give up, and what is left is told then.
    progress = state.progress
    if (progress && progress !== known) onProgress?.(progress)
    if (!onLog || !hasLines || state.logs === logs) return
    const news = linesSince(logs, state.logs)
    logs = state.logs
    for (const log of news) onLog(log)
  }
  return (state: RunState, hasLines: boolean): Error | null => {
    try {
      report(state, hasLines)
      return null
    } catch (error) {
      return asError(error)
    }
  }
}

// Neither the object nor its id tells that a line is new: one that was read from the store is replaced when it
// arrives as an event. How often the same line is there does. Logs mostly grow: what stays in its place is not compared.
function linesSince(before: readonly LogEntry[], logs: readonly LogEntry[]): readonly LogEntry[] {
  const changed = logs.findIndex((log, i) => log !== before[i])
  if (changed < 0) return []
  const known = new Map<string, number>()
  for (const line of before.slice(changed).map(lineOf)) known.set(line, (known.get(line) ?? 0) + 1)
  return logs.slice(changed).filter((log) => {
    const line = lineOf(log)
    const count = known.get(line) ?? 0
    known.set(line, count - 1)
    return count <= 0
  })
}

function lineOf({ timestamp, level, stepName, message, data }: LogEntry): string {
  return JSON.stringify([timestamp, level, stepName, message, data])
}

// Timers count in 31 bits, and take what is longer for nothing.
const LONGEST_TIMEOUT_MS = 2 ** 31 - 1

/** Aborts when the time is up that begins now, or on request. */
export function deadlineOf({ timeout, signal }: WaitOptions): AbortSignal | undefined {
  if (timeout === undefined || timeout > LONGEST_TIMEOUT_MS) return signal
  const deadline = AbortSignal.timeout(Math.ceil(timeout))
  return signal ? AbortSignal.any([signal, deadline]) : deadline
}
