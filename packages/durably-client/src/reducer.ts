import type { DurablyEvent } from './events.js'
import { appendLog, mergeLogs } from './logs.js'
import { isTerminal, stageOf, type ClientRun, type LogEntry, type Progress, type RunStatus } from './runs.js'

/** What both a followed run and a row of a list tell about a run, and events change. */
export interface RunFacts {
  readonly status: RunStatus | null
  readonly progress: Progress | null
  readonly output: unknown
  readonly error: string | null
}

export interface RunState<TOutput = unknown> extends RunFacts {
  readonly runId: string | null
  readonly output: TOutput | null
  /** There is no such run any more, or none that may be seen; `error` says which. */
  readonly isLost: boolean
  readonly logs: readonly LogEntry[]
}

export type RunAction =
  | { type: 'event'; event: DurablyEvent }
  /** `isLatest`: nothing was told of the run while the snapshot was on its way. */
  | { type: 'snapshot'; run: ClientRun; isLatest?: boolean }
  | { type: 'history'; logs: readonly LogEntry[] }
  | { type: 'lost'; error: string }
  | { type: 'clear-logs' }

export function initialRunState(runId: string | null, status: RunStatus | null = null): RunState<never> {
  return { runId, status, progress: null, output: null, error: null, logs: [], isLost: false }
}

export function reduceRun(state: RunState, action: RunAction, maxLogs = Infinity): RunState {
  switch (action.type) {
    case 'event':
      return withEvent(state, action.event, maxLogs)
    case 'snapshot':
      return applySnapshot(state, action.run, action.isLatest ?? false)
    case 'history':
      return withLogs(state, mergeLogs(action.logs, state.logs), maxLogs)
    case 'lost':
      return isTerminal(state.status) ? state : lost(state, action.error)
    case 'clear-logs':
      return { ...state, logs: [] }
  }
}

export function reduceRuns(runs: readonly ClientRun[], event: DurablyEvent): readonly ClientRun[] {
  if (event.type === 'run:delete') return runs.filter((run) => run.id !== event.runId)
  return runs.map((run) => (run.id === event.runId ? applyToRow(run, event) : run))
}

function withEvent(state: RunState, event: DurablyEvent, maxLogs: number): RunState {
  if (event.type === 'log:write') return withLogs(state, appendLog(state.logs, event), maxLogs)
  if (event.type === 'run:delete' && !isTerminal(state.status)) return lost(state, 'Run was deleted')
  return applyEvent(state, event)
}

function lost(state: RunState, error: string): RunState {
  return { ...state, status: null, error, isLost: true }
}

function applyToRow(run: ClientRun, event: DurablyEvent): ClientRun {
  const next = applyEvent(run, event)
  if (next === run || next.status === run.status) return next
  return { ...next, isTerminal: isTerminal(next.status), isActive: !isTerminal(next.status) }
}

/** The one place where an event turns into state. An ended run stays as it ended. */
function applyEvent<TFacts extends RunFacts>(run: TFacts, event: DurablyEvent): TFacts {
  if (isTerminal(run.status)) return run
  switch (event.type) {
    case 'run:trigger':
      return run.status === null ? { ...run, status: 'pending' } : run
    case 'run:leased':
      return run.status === 'leased' ? run : { ...run, status: 'leased' }
    case 'run:progress':
      return { ...run, status: 'leased', progress: event.progress }
    case 'run:complete':
      return { ...run, status: 'completed', output: event.output ?? run.output, error: null }
    case 'run:fail':
      return { ...run, status: 'failed', error: event.error ?? run.error }
    case 'run:cancel':
      return { ...run, status: 'cancelled' }
    default:
      return run
  }
}

// A snapshot was taken while events went on arriving: it may be older than what they told. If none did, a run that was
// leased may have been given back.
function applySnapshot(state: RunState, run: ClientRun, isLatest: boolean): RunState {
  const stepsBack = stageOf(run.status) < stageOf(state.status)
  if (stepsBack && (!isLatest || isTerminal(state.status))) return state
  const isNews = isTerminal(run.status) || stageOf(run.status) > stageOf(state.status)
  const progress = (isNews ? run.progress : state.progress) ?? run.progress ?? state.progress
  return {
    ...state,
    status: run.status,
    progress: isSameProgress(progress, state.progress) ? state.progress : progress,
    output: run.output,
    error: run.error,
    isLost: false,
  }
}

// Who is told of progress is told of each once.
function isSameProgress(a: Progress | null, b: Progress | null): boolean {
  return a?.current === b?.current && a?.total === b?.total && a?.message === b?.message
}

function withLogs(state: RunState, logs: readonly LogEntry[], maxLogs: number): RunState {
  if (logs === state.logs) return state
  return { ...state, logs: logs.length > maxLogs ? logs.slice(logs.length - maxLogs) : logs }
}
