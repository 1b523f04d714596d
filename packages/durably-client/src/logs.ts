import type { LogEvent } from './events.js'
import type { LogEntry } from './runs.js'

// A line can reach us twice: as an event (again after a reconnect), and stored. Events carry no log id, so a
// stored line and an event are the same line if time and content are; two events are, if their ids are.

/** The limit that `maxLogs` asks for. */
export function logLimit(maxLogs = Infinity): number {
  if (maxLogs === Infinity || (Number.isInteger(maxLogs) && maxLogs >= 0)) return maxLogs
  throw new RangeError(`maxLogs must be a whole number, 0 or more: ${maxLogs}`)
}

/** Adds a line that was seen live, unless it is there already. */
export function appendLog(logs: readonly LogEntry[], event: LogEvent): readonly LogEntry[] {
  const live = toLogEntry(event)
  const start = startOfRecent(logs, live.timestamp)
  const recent = logs.slice(start)
  if (recent.some(({ id }) => id === live.id)) return logs
  const stored = recent.findIndex((log) => isSameLine(log, live) && !wasSeenLive(log))
  return stored < 0 ? [...logs, live] : logs.with(start + stored, live)
}

const CERTAINLY_OLDER = 100

// Looking through all of a long log for each new line takes seconds for ten thousand of them. Lines stand in the order of
// their times, but for where another machine took over, whose clock is another one.
function startOfRecent(logs: readonly LogEntry[], timestamp: string): number {
  let older = 0
  const start = logs.findLastIndex((log) => {
    older = log.timestamp < timestamp ? older + 1 : 0
    return older === CERTAINLY_OLDER
  })
  return Math.max(0, start)
}

/** Puts stored lines in front of those seen live since, each once. */
export function mergeLogs(stored: readonly LogEntry[], shown: readonly LogEntry[]): readonly LogEntry[] {
  const rest = [...shown]
  const history = stored.map((log) => {
    const same = rest.findIndex((other) => isSameLine(log, other))
    return same < 0 ? log : (rest.splice(same, 1)[0] ?? log)
  })
  return [...history, ...rest]
}

function toLogEntry(event: LogEvent): LogEntry {
  const { runId, stepName, level, message, data = null, timestamp = '', sequence = '' } = event
  // The sequence alone may start again with the server process.
  const id = `${runId}:${timestamp}:${sequence}`
  return { id, runId, stepName, level, message, data, timestamp }
}

function wasSeenLive(log: LogEntry): boolean {
  return log.id.startsWith(`${log.runId}:`)
}

function isSameLine(a: LogEntry, b: LogEntry): boolean {
  return (
    a.timestamp === b.timestamp &&
    a.message === b.message &&
    a.level === b.level &&
    a.stepName === b.stepName &&
    JSON.stringify(a.data) === JSON.stringify(b.data)
  )
}
