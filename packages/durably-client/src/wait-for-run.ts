import { asError, RunCancelledError, RunFailedError, RunLostError } from './errors.js'
import type { RunState } from './reducer.js'
import type { LogEntry, Progress } from './runs.js'
import type { Observable } from './store.js'

export interface WaitOptions {
  /** Milliseconds after which waiting (not the run) is given up. */
  timeout?: number | undefined
  signal?: AbortSignal | undefined
  onProgress?: ((progress: Progress) => void) | undefined
  onLog?: ((log: LogEntry) => void) | undefined
}

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
  callbacks: Pick<WaitOptions, 'onProgress' | 'onLog'>,
): Promise<TOutput> {
  return new Promise((resolve, reject) => {
    const settle = (finish: () => void) => {
      unsubscribe()
      signal?.removeEventListener('abort', abort)
      finish()
    }
    const abort = () => settle(() => reject(signal?.reason as Error))
    const report = reporter(callbacks)
    // Some observables, as a Svelte store, call who subscribes before they return what unsubscribes.
    let isSubscribed = false
    const look = () => {
      if (!isSubscribed) return
      const state = run.getSnapshot()
      const ending = report(state) ?? endingOf(runId, state)
      if (ending === 'completed') settle(() => resolve(state.output as TOutput))
      else if (ending) settle(() => reject(ending))
    }
    const unsubscribe = run.subscribe(look)
    isSubscribed = true
    if (signal?.aborted) return abort()
    signal?.addEventListener('abort', abort)
    // It may have ended before anybody asked.
    look()
  })
}

function endingOf(runId: string, { status, error, isLost }: RunState): 'completed' | Error | null {
  if (status === 'completed') return 'completed'
  if (status === 'failed') return new RunFailedError(runId, error ?? 'Run failed')
  if (status === 'cancelled') return new RunCancelledError(runId, 'Run was cancelled')
  if (isLost) return new RunLostError(runId, error ?? 'Run was lost')
  return null
}

/** Tells the callbacks what is new in a state, and returns what one of them throws. */
function reporter({ onProgress, onLog }: Pick<WaitOptions, 'onProgress' | 'onLog'>): (state: RunState) => Error | null {
  let progress: Progress | null = null
  let logs: readonly LogEntry[] = []
  const report = (state: RunState) => {
    if (state.progress && state.progress !== progress) onProgress?.(state.progress)
    progress = state.progress
    if (!onLog || state.logs === logs) return
    const news = linesSince(logs, state.logs)
    logs = state.logs
    for (const log of news) onLog(log)
  }
  return (state) => {
    try {
      report(state)
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
