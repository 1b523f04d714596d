export type RunStatus = 'pending' | 'leased' | 'completed' | 'failed' | 'cancelled'

export type Labels = Record<string, string>

export interface Progress {
  current: number
  total?: number
  message?: string
}

/** A run as the server shows it to its clients. */
export interface ClientRun<TInput = unknown, TOutput = unknown, TName extends string = string> {
  id: string
  jobName: TName
  input: TInput
  status: RunStatus
  currentStepIndex: number
  completedStepCount: number
  progress: Progress | null
  output: TOutput | null
  error: string | null
  labels: Labels
  startedAt: string | null
  completedAt: string | null
  createdAt: string
  isTerminal: boolean
  isActive: boolean
}

export interface StepRecord {
  id: string
  runId: string
  name: string
  index: number
  status: 'completed' | 'failed' | 'cancelled'
  output: unknown
  error: string | null
  startedAt: string
  completedAt: string | null
}

export type LogLevel = 'info' | 'warn' | 'error'

export interface LogEntry {
  id: string
  runId: string
  stepName: string | null
  level: LogLevel
  message: string
  data: unknown
  timestamp: string
}

export interface JobInfo {
  name: string
  /** JSON Schema of the input and output, or null where the job accepts anything. */
  inputSchema: Record<string, unknown> | null
  outputSchema: Record<string, unknown> | null
}

export interface StatusFlags {
  isPending: boolean
  isLeased: boolean
  isCompleted: boolean
  isFailed: boolean
  isCancelled: boolean
  isTerminal: boolean
  isActive: boolean
}

// How far a run has come: what is learnt late may complete the picture, but never turn it back.
const STAGE: Record<RunStatus, number> = {
  pending: 1,
  leased: 2,
  completed: 3,
  failed: 3,
  cancelled: 3,
}

export function stageOf(status: RunStatus | null): number {
  return status === null ? 0 : STAGE[status]
}

export function isTerminal(status: RunStatus | null): boolean {
  return stageOf(status) === 3
}

export function statusFlags(status: RunStatus | null): StatusFlags {
  return {
    isPending: status === 'pending',
    isLeased: status === 'leased',
    isCompleted: status === 'completed',
    isFailed: status === 'failed',
    isCancelled: status === 'cancelled',
    isTerminal: isTerminal(status),
    isActive: status === 'pending' || status === 'leased',
  }
}
