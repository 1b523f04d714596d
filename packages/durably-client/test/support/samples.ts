import type { ClientRun, DurablyEvent, LogEntry } from 'durably-client'

const STARTED = '2026-01-02T03:04:05.678Z'

export function aRun(change: Partial<ClientRun> = {}): ClientRun {
  const status = change.status ?? 'pending'
  const isActive = status === 'pending' || status === 'leased'
  return {
    id: 'run-1',
    jobName: 'import-csv',
    input: { filename: 'a.csv' },
    status,
    currentStepIndex: 0,
    completedStepCount: 0,
    progress: null,
    output: null,
    error: null,
    labels: {},
    startedAt: null,
    completedAt: null,
    createdAt: STARTED,
    isTerminal: !isActive,
    isActive,
    ...change,
  }
}

type EventChange<T extends DurablyEvent['type']> = Partial<Extract<DurablyEvent, { type: T }>>

export function anEvent<T extends DurablyEvent['type']>(
  type: T,
  change: EventChange<T> = {},
): DurablyEvent {
  return { type, runId: 'run-1', jobName: 'import-csv', labels: {}, ...change } as unknown as DurablyEvent
}

export function aLogEvent(message: string, sequence = 1): DurablyEvent {
  return anEvent('log:write', { stepName: null, level: 'info', message, timestamp: STARTED, sequence })
}

export function aLog(message: string): LogEntry {
  return {
    id: `stored-${message}`,
    runId: 'run-1',
    stepName: null,
    level: 'info',
    message,
    data: null,
    timestamp: STARTED,
  }
}

export function storedLog(message: string): Record<string, unknown> {
  const { timestamp, ...log } = aLog(message)
  return { ...log, createdAt: timestamp }
}
