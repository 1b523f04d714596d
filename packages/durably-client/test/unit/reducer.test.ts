import { initialRunState, reduceRun, reduceRuns, type DurablyEvent, type RunState } from 'durably-client'
import { describe, expect, test, vi } from 'vitest'
import { aLog, aLogEvent, anEvent, aRun } from '../support/samples.js'

const START = initialRunState('run-1')

function after(...events: DurablyEvent[]): RunState {
  return events.reduce<RunState>((state, event) => reduceRun(state, { type: 'event', event }), START)
}

describe('events', () => {
  test('a run is followed from its trigger to its output', () => {
    const progress = { current: 1, total: 2, message: 'half' }
    const state = after(
      anEvent('run:trigger'),
      anEvent('run:leased'),
      anEvent('run:progress', { progress }),
      anEvent('run:complete', { output: { count: 3 } }),
    )
    expect(state).toMatchObject({ status: 'completed', progress, output: { count: 3 }, error: null })
  })

  test.each([0, false, '', [], {}])('an output of %j is kept as it is', (output) => {
    expect(after(anEvent('run:complete', { output })).output).toEqual(output)
  })

  test('a job that returns nothing has no output', () => {
    expect(after(anEvent('run:complete')).output).toBeNull()
  })

  test('a failure tells its error', () => {
    expect(after(anEvent('run:fail', { error: 'boom' }))).toMatchObject({ status: 'failed', error: 'boom' })
  })

  test('an ended run stays as it ended', () => {
    const ended = after(anEvent('run:cancel'))
    const replayed = [anEvent('run:leased'), anEvent('run:progress'), anEvent('run:complete')]
    for (const event of replayed) expect(reduceRun(ended, { type: 'event', event })).toBe(ended)
  })

  test('a run deleted while it was followed is lost', () => {
    expect(after(anEvent('run:leased'), anEvent('run:delete'))).toMatchObject({
      status: null,
      error: 'Run was deleted',
    })
  })

  test('what changes nothing keeps the state the same object', () => {
    const leased = after(anEvent('run:leased'))
    for (const event of [anEvent('run:leased'), anEvent('step:start'), { ...anEvent('run:leased'), type: 'new:kind' }])
      expect(reduceRun(leased, { type: 'event', event: event as DurablyEvent })).toBe(leased)
  })
})

describe('snapshots', () => {
  test('a snapshot fills in what no event has told', () => {
    const run = aRun({ status: 'leased', progress: { current: 4 } })
    expect(reduceRun(START, { type: 'snapshot', run })).toMatchObject({
      status: 'leased',
      progress: { current: 4 },
    })
  })

  test('a snapshot older than an event does not turn the run back', () => {
    const completed = after(anEvent('run:complete', { output: 1 }))
    expect(reduceRun(completed, { type: 'snapshot', run: aRun({ status: 'leased' }) })).toBe(completed)
  })

  test('progress seen live wins over progress of a snapshot', () => {
    const live = after(anEvent('run:progress', { progress: { current: 5 } }))
    const run = aRun({ status: 'leased', progress: { current: 4 } })
    expect(reduceRun(live, { type: 'snapshot', run }).progress).toEqual({ current: 5 })
  })

  test('progress of an ended run is the last one, even if it was not seen live', () => {
    const seen = after(anEvent('run:progress', { progress: { current: 1 } }), anEvent('run:complete'))
    const run = aRun({ status: 'completed', progress: { current: 6 } })
    expect(reduceRun(seen, { type: 'snapshot', run }).progress).toEqual({ current: 6 })
  })

  test('a lost run tells why, unless it had ended', () => {
    const lost = { type: 'lost', error: 'Run not found' } as const
    expect(reduceRun(after(anEvent('run:leased')), lost)).toMatchObject({ status: null, error: 'Run not found' })
    expect(reduceRun(after(anEvent('run:cancel')), lost)).toMatchObject({ status: 'cancelled', error: null })
  })
})

describe('logs', () => {
  test('logs are kept in order, with data that was left out as null', () => {
    const { logs } = after(aLogEvent('a', 1), aLogEvent('b', 2))
    expect(logs.map(({ message, data }) => [message, data])).toEqual([['a', null], ['b', null]])
    expect(new Set(logs.map(({ id }) => id)).size).toBe(2)
  })

  test('only the latest are kept where a maximum is given', () => {
    const state = ['a', 'b', 'c'].reduce<RunState>(
      (current, message, i) => reduceRun(current, { type: 'event', event: aLogEvent(message, i) }, 2),
      START,
    )
    expect(state.logs.map(({ message }) => message)).toEqual(['b', 'c'])
  })

  test('stored logs come before those seen live, each once', () => {
    const live = after(aLogEvent('tick', 2), aLogEvent('last', 3))
    const logs = [aLog('first'), aLog('tick'), aLog('tick')]
    const merged = reduceRun(live, { type: 'history', logs }).logs
    expect(merged.map(({ message }) => message)).toEqual(['first', 'tick', 'tick', 'last'])
  })

  test('a line that comes again after a reconnect is not told twice', () => {
    const state = after(aLogEvent('a', 1), aLogEvent('b', 2))
    expect(reduceRun(state, { type: 'event', event: aLogEvent('b', 2) })).toBe(state)
  })

  test('a stored line that arrives as an event afterwards is still one line', () => {
    const stored = reduceRun(START, { type: 'history', logs: [aLog('tick'), aLog('tick')] })
    const add = (state: RunState, sequence: number) =>
      reduceRun(state, { type: 'event', event: aLogEvent('tick', sequence) })
    const both = add(add(stored, 1), 2)
    expect(both.logs).toHaveLength(2)
    expect(add(both, 3).logs).toHaveLength(3)
    expect(reduceRun(both, { type: 'history', logs: [aLog('tick'), aLog('tick')] }).logs).toEqual(both.logs)
  })

  test('a line that was told long ago is not looked at for each that follows', () => {
    const id = vi.fn(() => 'stored')
    const first = Object.defineProperty(aLog('first'), 'id', { get: id })
    const after = (ms: number) => new Date(Date.parse(first.timestamp) + ms).toISOString()
    const lines = Array.from({ length: 1_000 }, (_, i) =>
      anEvent('log:write', { message: `line ${i}`, sequence: i, timestamp: after(i + 1) }),
    )
    const start = reduceRun(START, { type: 'history', logs: [first] })
    const { logs } = lines.reduce<RunState>((state, event) => reduceRun(state, { type: 'event', event }), start)
    expect(logs).toHaveLength(1_001)
    expect(id.mock.calls.length).toBeLessThanOrEqual(100)
  })

  test('a line that comes again after those of a slower clock is not told twice', () => {
    const slow = { ...aLogEvent('b', 2), timestamp: '2026-01-02T03:04:04.000Z' } as DurablyEvent
    const state = after(aLogEvent('a', 1), slow)
    expect(reduceRun(state, { type: 'event', event: aLogEvent('a', 1) })).toBe(state)
  })

  test('the same words at another time are another log', () => {
    const live = after(aLogEvent('tick'))
    const earlier = { ...aLog('tick'), timestamp: '2026-01-02T03:04:05.000Z' }
    expect(reduceRun(live, { type: 'history', logs: [earlier] }).logs).toHaveLength(2)
  })

  test('logs that were never stored survive a history', () => {
    expect(reduceRun(after(aLogEvent('a')), { type: 'history', logs: [] }).logs).toHaveLength(1)
  })
})

describe('rows of a list', () => {
  test('an event changes the row of its run and leaves the others as they are', () => {
    const rows = [aRun({ id: 'other' }), aRun()]
    const next = reduceRuns(rows, anEvent('run:fail'))
    expect(next[0]).toBe(rows[0])
    expect(next[1]).toMatchObject({ status: 'failed', isTerminal: true, isActive: false })
  })

  test('a deleted run leaves the list', () => {
    expect(reduceRuns([aRun({ status: 'completed' })], anEvent('run:delete'))).toEqual([])
  })
})
