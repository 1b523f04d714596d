import type { Labels, LogLevel, Progress } from './runs.js'

interface EventOf<TType extends string> {
  type: TType
  runId: string
  jobName: string
  labels: Labels
  /** Only the stream of a single run says when, and in which order. Replayed events have sequence 0. */
  timestamp?: string
  sequence?: number
}

interface StepEventOf<TType extends string> extends EventOf<TType> {
  stepName: string
  stepIndex: number
}

/** The stream of all runs leaves out inputs, outputs and most errors: those fields are optional here. */
export type RunEvent =
  | (EventOf<'run:trigger'> & { input?: unknown })
  | (EventOf<'run:coalesced'> & { skippedInput: unknown; skippedLabels: Labels })
  | (EventOf<'run:leased'> & { input?: unknown; leaseOwner?: string; leaseExpiresAt?: string })
  | (EventOf<'run:progress'> & { progress: Progress })
  | (EventOf<'run:complete'> & { output?: unknown; duration?: number })
  | (EventOf<'run:fail'> & { error?: string; failedStepName?: string })
  | EventOf<'run:cancel'>
  | EventOf<'run:delete'>

export type StepEvent =
  | StepEventOf<'step:start'>
  | (StepEventOf<'step:complete'> & { output?: unknown; duration?: number })
  | (StepEventOf<'step:fail'> & { error: string })
  | StepEventOf<'step:cancel'>

export interface LogEvent extends EventOf<'log:write'> {
  stepName: string | null
  level: LogLevel
  message: string
  data?: unknown
}

export type DurablyEvent = RunEvent | StepEvent | LogEvent

/** Events after which a run says nothing more. */
export function endsRun(event: DurablyEvent): boolean {
  return (
    event.type === 'run:complete' ||
    event.type === 'run:fail' ||
    event.type === 'run:cancel' ||
    event.type === 'run:delete'
  )
}

export function parseEvent(data: string): DurablyEvent | null {
  try {
    const event: unknown = JSON.parse(data)
    return isEvent(event) ? event : null
  } catch {
    // One damaged message must not cost the stream.
    return null
  }
}

function isEvent(value: unknown): value is DurablyEvent {
  return typeof value === 'object' && value !== null && 'type' in value && 'runId' in value
}
