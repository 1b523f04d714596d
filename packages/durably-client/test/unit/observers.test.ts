import {
  ApiError,
  createDurablyClient,
  initialRunState,
  RunCancelledError,
  RunFailedError,
  RunLostError,
  waitForRun,
  type ClientRun,
  type Observable,
  type RunState,
} from 'durably-client'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { FakeTransport } from '../support/fake-transport.js'
import { aLog, aLogEvent, anEvent, aRun, storedLog } from '../support/samples.js'

let transport: FakeTransport
let client: ReturnType<typeof createDurablyClient>

beforeEach(() => {
  transport = new FakeTransport()
  client = createDurablyClient({ transport })
})

afterEach(() => vi.useRealTimers())

const ignore = () => {}

/** Everything that was answered has been taken in. */
const settled = () => new Promise((resolve) => setTimeout(resolve))

describe('a run', () => {
  test('nothing is opened before somebody listens', () => {
    client.observeRun('run-1')
    client.observeRuns()
    client.observeJob('import-csv')
    expect([transport.requests, transport.connections]).toEqual([[], []])
  })

  test('the state of a pending run is asked for, as its stream is silent', async () => {
    transport.answer('GET /run?', { body: aRun() })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    transport.stream('/subscribe?runId=run-1').open()
    await vi.waitFor(() => expect(run.getSnapshot().status).toBe('pending'))
  })

  test('the state is asked for again when that failed, as long as somebody listens', async () => {
    vi.useFakeTimers()
    transport.answer('GET /run?', { status: 503, body: 'restarting' })
    const run = client.observeRun('run-1')
    const leave = run.subscribe(ignore)
    transport.stream('/subscribe').open()
    await vi.advanceTimersByTimeAsync(0)
    transport.answer('GET /run?', { body: aRun() })
    await vi.runAllTimersAsync()
    expect(run.getSnapshot().status).toBe('pending')
    transport.answer('GET /run?', { status: 503, body: 'restarting' })
    transport.stream('/subscribe').open()
    await vi.advanceTimersByTimeAsync(0)
    leave()
    await vi.runAllTimersAsync()
    expect(transport.asked('GET /run?')).toHaveLength(3)
  })

  test('logs written before are loaded, and joined with those that follow', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    transport.answer('GET /logs?', { body: ['one', 'two'].map(storedLog) })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    const stream = transport.stream('/subscribe')
    stream.open()
    stream.send(aLogEvent('two'))
    stream.send(aLogEvent('three', 2))
    const messages = () => run.getSnapshot().logs.map(({ message }) => message)
    await vi.waitFor(() => expect(messages()).toEqual(['one', 'two', 'three']))
  })

  test('logs that were stored too late for the first look are there at the end', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    transport.answer('GET /logs?', { body: [] })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    const stream = transport.stream('/subscribe')
    stream.open()
    await vi.waitFor(() => expect(run.getSnapshot().status).toBe('leased'))
    transport.answer('GET /logs?', { body: [storedLog('first')] })
    stream.send(aLogEvent('last'))
    stream.send(anEvent('run:complete'))
    const messages = () => run.getSnapshot().logs.map(({ message }) => message)
    await vi.waitFor(() => expect(messages()).toEqual(['first', 'last']))
  })

  test('a higher limit brings back the logs that the former one left out', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    transport.answer('GET /logs?', { body: ['one', 'two', 'three'].map(storedLog) })
    const run = client.observeRun('run-1', { maxLogs: 1 })
    run.subscribe(ignore)
    transport.stream('/subscribe').open()
    const messages = () => run.getSnapshot().logs.map(({ message }) => message)
    await vi.waitFor(() => expect(messages()).toEqual(['three']))
    run.setMaxLogs(2)
    await vi.waitFor(() => expect(messages()).toEqual(['two', 'three']))
    run.setMaxLogs(1)
    expect(messages()).toEqual(['three'])
  })

  test.each([1.5, NaN, -1])('a limit of %d logs is refused', (maxLogs) => {
    const refused = new RangeError(`maxLogs must be a whole number, 0 or more: ${maxLogs}`)
    expect(() => client.observeRun('run-1', { maxLogs })).toThrow(refused)
    expect(() => client.observeRun('run-1').setMaxLogs(maxLogs)).toThrow(refused)
    expect(() => client.observeJob('import-csv', { maxLogs })).toThrow(refused)
    expect(() => client.observeJob('import-csv').setMaxLogs(maxLogs)).toThrow(refused)
  })

  test('the limit of logs goes also for the run that a refused trigger leads back to', async () => {
    const job = client.observeJob('import-csv', { initialRunId: 'run-1' })
    job.subscribe(ignore)
    transport.stream('/subscribe').send(aLogEvent('one', 1))
    transport.stream('/subscribe').send(aLogEvent('two', 2))
    const triggering = job.trigger({})
    job.setMaxLogs(1)
    await expect(triggering).rejects.toThrow(ApiError)
    expect(job.getSnapshot()).toMatchObject({ runId: 'run-1', logs: [{ message: 'two' }] })
  })

  test('cleared logs do not come back with a reconnect', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    transport.answer('GET /logs?', { body: [storedLog('old')] })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    transport.stream('/subscribe').open()
    await vi.waitFor(() => expect(run.getSnapshot().logs).toHaveLength(1))
    run.clearLogs()
    transport.stream('/subscribe').open()
    await vi.waitFor(() => expect(transport.asked('GET /run?')).toHaveLength(2))
    expect(run.getSnapshot().logs).toEqual([])
    expect(transport.asked('GET /logs?')).toHaveLength(1)
  })

  test('the stream is left when the run has ended', async () => {
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    transport.stream('/subscribe').send(anEvent('run:complete', { output: 1 }))
    await vi.waitFor(() => expect(transport.live).toEqual([]))
    expect(run.getSnapshot()).toMatchObject({ status: 'completed', output: 1 })
  })

  test('a refused stream is not asked for again when the run is seen to have ended', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'completed', output: 4 }) })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    vi.useFakeTimers()
    transport.stream('/subscribe').drop(new Error('The event stream was refused'))
    await vi.runAllTimersAsync()
    expect(run.getSnapshot()).toMatchObject({ status: 'completed', output: 4, error: null })
    expect(transport.connections).toHaveLength(1)
  })

  test('logs that were stored before a run ended unheard are there', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    transport.answer('GET /logs?', { body: [] })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    const stream = transport.stream('/subscribe')
    stream.open()
    await vi.waitFor(() => expect(run.getSnapshot().status).toBe('leased'))
    transport.answer('GET /run?', () => {
      transport.answer('GET /logs?', { body: [storedLog('last')] })
      return { body: aRun({ status: 'completed' }) }
    })
    stream.drop()
    await vi.waitFor(() => expect(run.getSnapshot().logs).toMatchObject([{ message: 'last' }]))
  })

  test('a run that does not exist is given up', async () => {
    transport.answer('GET /run?', { status: 404, body: { error: 'Run not found' } })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    transport.stream('/subscribe').drop()
    await vi.waitFor(() => expect(run.getSnapshot().error).toBe('Run not found'))
    await new Promise((resolve) => setTimeout(resolve, 600))
    expect(transport.connections).toHaveLength(1)
  })

  test('a server that is away for a while is told, and no reason to give up', async () => {
    transport.answer('GET /run?', { status: 503, body: 'restarting' })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    transport.stream('/subscribe').drop()
    await vi.waitFor(() => expect(transport.connections).toHaveLength(2), 2000)
    expect(run.getSnapshot()).toMatchObject({ status: null, error: 'Live updates are off: connection lost', isLost: false })
    transport.answer('GET /run?', { body: aRun() })
    transport.stream('/subscribe').open()
    await vi.waitFor(() => expect(run.getSnapshot()).toMatchObject({ status: 'pending', error: null }))
  })

  test('a run whose state cannot be had, though its stream is open, says why', async () => {
    vi.useFakeTimers()
    transport.answer('GET /run?', { status: 500, body: '{"error":"Internal server error"}' })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    transport.stream('/subscribe').open()
    await vi.advanceTimersByTimeAsync(0)
    expect(run.getSnapshot()).toMatchObject({ status: null, error: 'Internal server error', isLost: false })
    transport.answer('GET /run?', { body: aRun() })
    await vi.runAllTimersAsync()
    expect(run.getSnapshot()).toMatchObject({ status: 'pending', error: null })
  })

  test('a run that was given back is pending again, unless an event told better meanwhile', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    const stream = transport.stream('/subscribe')
    stream.open()
    await vi.waitFor(() => expect(run.getSnapshot().status).toBe('leased'))
    transport.answer('GET /run?', { body: aRun() })
    stream.open()
    await vi.waitFor(() => expect(run.getSnapshot().status).toBe('pending'))
    stream.open()
    stream.send(anEvent('run:leased'))
    await settled()
    expect(run.getSnapshot().status).toBe('leased')
  })

  test('logs that could not be loaded are asked for again, also those of an ended run', async () => {
    vi.useFakeTimers()
    transport.answer('GET /run?', { body: aRun({ status: 'completed' }) })
    transport.answer('GET /logs?', { status: 503, body: 'restarting' })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    transport.stream('/subscribe').open()
    transport.stream('/subscribe').send(anEvent('run:complete'))
    await vi.advanceTimersByTimeAsync(0)
    transport.answer('GET /logs?', { body: [storedLog('one')] })
    await vi.runAllTimersAsync()
    expect(run.getSnapshot().logs).toMatchObject([{ message: 'one' }])
  })

  test('what could not be had before the run ended is asked for again', async () => {
    vi.useFakeTimers()
    transport.answer('GET /run?', { status: 503, body: 'restarting' })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    transport.stream('/subscribe').open()
    await vi.advanceTimersByTimeAsync(0)
    transport.stream('/subscribe').send(anEvent('run:complete', { output: 1 }))
    await vi.advanceTimersByTimeAsync(0)
    transport.answer('GET /run?', { body: aRun({ status: 'completed', progress: { current: 2 }, output: 1 }) })
    await vi.runAllTimersAsync()
    expect(run.getSnapshot()).toMatchObject({ status: 'completed', progress: { current: 2 } })
    expect(transport.asked('GET /run?')).toHaveLength(3)
  })

  test('a run that is known to have ended is asked for its output and logs', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'completed', output: 1 }) })
    transport.answer('GET /logs?', { status: 503, body: 'restarting' })
    const run = client.observeRun('run-1', { status: 'completed' })
    run.subscribe(ignore)()
    await settled()
    transport.answer('GET /logs?', { body: [storedLog('one')] })
    const leave = run.subscribe(ignore)
    await vi.waitFor(() => expect(run.getSnapshot()).toMatchObject({ output: 1, logs: [{ message: 'one' }] }))
    leave()
    const asked = transport.requests.length
    run.subscribe(ignore)
    expect([transport.requests.length, transport.connections]).toEqual([asked, []])
  })

  test('who listens again while the answers are on their way is told them all the same', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'completed', output: 1 }) })
    transport.answer('GET /logs?', { body: [storedLog('one')] })
    const run = client.observeRun('run-1', { status: 'completed' })
    run.subscribe(ignore)()
    run.subscribe(ignore)
    await vi.waitFor(() => expect(run.getSnapshot()).toMatchObject({ output: 1, logs: [{ message: 'one' }] }))
  })

  test('an answer that comes after the end still tells how far the run had come', async () => {
    let answer: (answer: { body: unknown }) => void = ignore
    transport.answer('GET /run?', () => new Promise((resolve) => (answer = resolve)))
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    const stream = transport.stream('/subscribe')
    stream.open()
    stream.send(anEvent('run:complete', { output: { count: 3 } }))
    answer({ body: aRun({ status: 'completed', progress: { current: 3 }, output: { count: 3 } }) })
    await settled()
    expect(run.getSnapshot()).toMatchObject({ status: 'completed', progress: { current: 3 }, output: { count: 3 } })
  })

  test('an answer from before the run was deleted does not bring it back', async () => {
    let answer: (answer: { body: unknown }) => void = ignore
    transport.answer('GET /run?', () => new Promise((resolve) => (answer = resolve)))
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    const stream = transport.stream('/subscribe')
    stream.open()
    stream.send(anEvent('run:delete'))
    answer({ body: aRun({ status: 'leased' }) })
    await settled()
    expect(run.getSnapshot()).toMatchObject({ status: null, error: 'Run was deleted' })
  })

  test('a run that was given up is followed again by whoever asks again', async () => {
    transport.answer('GET /run?', { status: 401, body: 'Unauthorized' })
    const run = client.observeRun('run-1')
    const leave = run.subscribe(ignore)
    transport.stream('/subscribe').drop()
    await vi.waitFor(() => expect(run.getSnapshot().error).toBe('Unauthorized'))
    leave()
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    run.subscribe(ignore)
    transport.stream('/subscribe').open()
    await vi.waitFor(() => expect(run.getSnapshot()).toMatchObject({ status: 'leased', error: null }))
  })

  test('events of another run are not taken for those of this one', () => {
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    transport.stream('/subscribe').send(anEvent('run:complete', { runId: 'run-2' }))
    expect(run.getSnapshot().status).toBeNull()
  })
})

describe('an active run whose stream is refused', () => {
  const REFUSED = { status: 'leased', error: 'Live updates are off: The event stream was refused' }

  async function refused() {
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    const run = client.observeRun('run-1')
    run.subscribe(ignore)
    transport.stream('/subscribe').drop(new Error('The event stream was refused'))
    await vi.waitFor(() => expect(run.getSnapshot()).toMatchObject(REFUSED))
    return run
  }

  beforeEach(() => void vi.useFakeTimers())

  test('says so, and is asked for again', async () => {
    const run = await refused()
    const states = new Set<RunState>()
    run.subscribe(() => states.add(run.getSnapshot()))
    transport.answer('GET /run?', { body: aRun({ status: 'leased', progress: { current: 1 } }) })
    await vi.advanceTimersByTimeAsync(500)
    transport.stream('/subscribe').drop(new Error('The event stream was refused'))
    await vi.advanceTimersByTimeAsync(0)
    expect([...states]).toMatchObject([{ ...REFUSED, progress: { current: 1 } }])
  })

  test('says so no longer when the stream is open', async () => {
    const run = await refused()
    await vi.advanceTimersByTimeAsync(500)
    transport.stream('/subscribe').open()
    expect(run.getSnapshot()).toMatchObject({ status: 'leased', error: null })
    transport.stream('/subscribe').send(anEvent('run:progress', { progress: { current: 1 } }))
    expect(run.getSnapshot()).toMatchObject({ progress: { current: 1 }, error: null })
  })

  test('has no such error when it has ended', async () => {
    const run = await refused()
    transport.answer('GET /run?', { body: aRun({ status: 'completed', output: 1 }) })
    await vi.advanceTimersByTimeAsync(500)
    transport.stream('/subscribe').drop(new Error('The event stream was refused'))
    await vi.advanceTimersByTimeAsync(0)
    expect(run.getSnapshot()).toMatchObject({ status: 'completed', output: 1, error: null })
  })
})

describe('a listener that fails', () => {
  const FAILURE = new Error('a listener failed')
  const fail = () => {
    throw FAILURE
  }
  const reported = vi.fn()

  beforeEach(() => {
    reported.mockClear()
    vi.stubGlobal('reportError', reported)
  })

  afterEach(() => vi.unstubAllGlobals())

  test('is reported, and keeps nothing from the others', () => {
    client.observeRun('run-1').subscribe(fail)
    const run = client.observeRun('run-1')
    const heard = vi.fn()
    run.subscribe(fail)
    run.subscribe(heard)
    transport.stream('/subscribe').send(anEvent('run:leased'))
    expect(heard).toHaveBeenCalledOnce()
    expect(reported.mock.calls).toEqual([[FAILURE], [FAILURE]])
  })

  test('does not keep a list from being fetched again', async () => {
    transport.answer('GET /runs?', { body: [] })
    const list = client.observeRuns()
    list.subscribe(fail)
    const stream = transport.stream('/runs/subscribe')
    stream.open()
    await vi.waitFor(() => expect(transport.asked('GET /runs?')).toHaveLength(2))
    await settled()
    stream.send(anEvent('run:trigger'))
    await vi.waitFor(() => expect(transport.asked('GET /runs?')).toHaveLength(3))
  })
})

describe('waiting', () => {
  async function ended(type: 'run:fail' | 'run:cancel' | 'run:delete', error?: string) {
    const waiting = client.waitForRun('run-1')
    transport.stream('/subscribe').send(anEvent(type, error ? { error } : {}))
    return waiting.catch((reason: unknown) => reason)
  }

  test('resolves with the output, having told progress and logs on the way', async () => {
    const onProgress = vi.fn()
    const onLog = vi.fn()
    const waiting = client.waitForRun('run-1', { onProgress, onLog })
    const stream = transport.stream('/subscribe')
    stream.send(aLogEvent('hello'))
    stream.send(anEvent('run:progress', { progress: { current: 1 } }))
    transport.answer('GET /run?', { body: aRun({ status: 'leased', progress: { current: 1 } }) })
    stream.open()
    await settled()
    stream.send(anEvent('run:complete', { output: { count: 3 } }))
    expect(await waiting).toEqual({ count: 3 })
    expect(onProgress.mock.calls).toEqual([[{ current: 1 }]])
    expect(onLog.mock.calls).toMatchObject([[{ message: 'hello' }]])
  })

  test('takes any observable, also one that calls who subscribes at once', async () => {
    const state = { ...initialRunState('run-1'), status: 'completed' as const, output: 7 }
    const store = {
      getSnapshot: () => state,
      subscribe: (listener: () => void) => {
        listener()
        return ignore
      },
    }
    expect(await waitForRun('run-1', store)).toBe(7)
  })

  test('rejects with the error of the job when it failed', async () => {
    const error = await ended('run:fail', 'boom')
    expect(error).toBeInstanceOf(RunFailedError)
    expect(error).toMatchObject({ message: 'boom', runId: 'run-1' })
  })

  test('rejects when the run was cancelled, or is gone', async () => {
    expect(await ended('run:cancel')).toBeInstanceOf(RunCancelledError)
    expect(await ended('run:delete')).toBeInstanceOf(RunLostError)
  })

  test('rejects with the words of a server that refuses the stream for good', async () => {
    transport.answer('GET /run?', { body: aRun() })
    const waiting = client.waitForRun('run-1', { timeout: 1000 })
    transport.stream('/subscribe').drop(new ApiError(403, 'Not your run'))
    await expect(waiting).rejects.toThrow(new RunLostError('run-1', 'Not your run'))
  })

  test('resolves when the stream is refused for good, but the run is seen to have completed', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'completed', output: 4 }) })
    const waiting = client.waitForRun('run-1', { timeout: 1000 })
    transport.stream('/subscribe').drop(new ApiError(403, 'No streams here'))
    expect(await waiting).toBe(4)
  })

  test('tells a line once that is first read from the store and then arrives as an event', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    transport.answer('GET /logs?', { body: [storedLog('hello')] })
    const lines: string[] = []
    const waiting = client.waitForRun('run-1', { onLog: ({ message }) => lines.push(message) })
    const stream = transport.stream('/subscribe')
    stream.open()
    await vi.waitFor(() => expect(lines).toEqual(['hello']))
    stream.send(aLogEvent('hello', 1))
    stream.send(aLogEvent('hello', 2))
    stream.send(anEvent('run:complete'))
    await waiting
    expect(lines).toEqual(['hello', 'hello'])
  })

  describe('for all lines', () => {
    const ENDED = { body: aRun({ status: 'completed', output: 4 }) }
    const STORED = { body: ['one', 'two', 'three', 'four'].map(storedLog) }
    const AWAY = { status: 503, body: 'restarting' }
    let lines: string[]
    const onLog = ({ message }: { message: string }) => void lines.push(message)

    beforeEach(() => (lines = []))

    /** Answers of the test's own time. */
    function answersLater(start: string): (answer: { body: unknown }) => void {
      const waiting: ((answer: { body: unknown }) => void)[] = []
      transport.answer(start, () => new Promise((resolve) => waiting.push(resolve)))
      return (answer) => waiting.splice(0).forEach((resolve) => resolve(answer))
    }

    test('hears those of a run that had ended', async () => {
      transport.answer('GET /run?', ENDED)
      const answer = answersLater('GET /logs?')
      const waiting = client.waitForRun('run-1', { onLog })
      transport.stream('/subscribe').open()
      transport.stream('/subscribe').send(anEvent('run:complete', { output: 4 }))
      await settled()
      expect(lines).toEqual([])
      answer(STORED)
      expect(await waiting).toBe(4)
      expect(lines).toEqual(['one', 'two', 'three', 'four'])
    })

    test('hears those of a quick run in their order, each once', async () => {
      transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
      const answer = answersLater('GET /logs?')
      const waiting = client.waitForRun('run-1', { onLog })
      const stream = transport.stream('/subscribe')
      stream.open()
      stream.send(aLogEvent('two', 2))
      stream.send(aLogEvent('three', 3))
      answer({ body: ['one', 'two'].map(storedLog) })
      await vi.waitFor(() => expect(lines).toEqual(['one', 'two', 'three']))
      stream.send(anEvent('run:complete', { output: 4 }))
      await settled()
      answer(STORED)
      expect(await waiting).toBe(4)
      expect(lines).toEqual(['one', 'two', 'three', 'four'])
    })

    test('asks again when the run has ended, for an answer from before may lack the last', async () => {
      const answer = answersLater('GET /logs?')
      transport.answer('GET /run?', { body: aRun({ status: 'failed', error: 'boom' }) })
      const waiting = client.waitForRun('run-1', { onLog })
      transport.stream('/subscribe').open()
      transport.answer('GET /logs?', STORED)
      answer({ body: [] })
      await expect(waiting).rejects.toThrow(new RunFailedError('run-1', 'boom'))
      expect(lines).toEqual(['one', 'two', 'three', 'four'])
      expect(transport.asked('GET /logs?')).toHaveLength(2)
    })

    test('hears those of the run of a job that others look at too', async () => {
      transport.answer('POST /trigger', { body: { runId: 'run-1', disposition: 'created' } })
      transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
      transport.answer('GET /logs?', { body: [] })
      const job = client.observeJob('import-csv', { autoResume: false })
      job.subscribe(ignore)
      const waiting = job.triggerAndWait({}, { onLog })
      await vi.waitFor(() => transport.stream('/subscribe?runId=run-1').open())
      await vi.waitFor(() => expect(job.getSnapshot().status).toBe('leased'))
      transport.answer('GET /logs?', STORED)
      transport.stream('/subscribe?runId=run-1').send(anEvent('run:complete', { output: 4 }))
      expect(await waiting).toMatchObject({ output: 4 })
      expect(lines).toEqual(['one', 'two', 'three', 'four'])
      expect(transport.asked('GET /logs?')).toHaveLength(2)
    })

    test('hears those of an observer that was left when it had seen the end', async () => {
      transport.answer('GET /run?', ENDED)
      transport.answer('GET /logs?', { body: [] })
      const run = client.observeRun<number>('run-1')
      const leave = run.subscribe(ignore)
      transport.stream('/subscribe').open()
      await settled()
      leave()
      transport.answer('GET /logs?', STORED)
      expect(await waitForRun('run-1', run, { onLog })).toBe(4)
      expect(lines).toEqual(['one', 'two', 'three', 'four'])
    })

    test('hears them from a server that was away', async () => {
      vi.useFakeTimers()
      transport.answer('GET /run?', ENDED)
      transport.answer('GET /logs?', AWAY)
      const waiting = client.waitForRun('run-1', { onLog })
      transport.stream('/subscribe').open()
      await vi.advanceTimersByTimeAsync(0)
      transport.answer('GET /logs?', STORED)
      await vi.runAllTimersAsync()
      expect(await waiting).toBe(4)
      expect(lines).toEqual(['one', 'two', 'three', 'four'])
    })

    test.each([AWAY, { status: 403, body: 'Not yours' }])('does without those that cannot be had: %j', async (answer) => {
      vi.useFakeTimers()
      transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
      transport.answer('GET /logs?', answer)
      const waiting = client.waitForRun('run-1', { onLog })
      const stream = transport.stream('/subscribe')
      stream.open()
      stream.send(aLogEvent('live', 1))
      await vi.advanceTimersByTimeAsync(5000)
      expect(lines).toEqual(['live'])
      stream.send(aLogEvent('last', 2))
      stream.send(anEvent('run:complete', { output: 4 }))
      await vi.advanceTimersByTimeAsync(0)
      expect(await waiting).toBe(4)
      expect(lines).toEqual(['live', 'last'])
    })

    test('tells what it has when the time is up, and the output of a run that has ended', async () => {
      transport.answer('GET /logs?', () => new Promise(ignore))
      const waiting = client.waitForRun('run-1', { timeout: 5, onLog })
      transport.stream('/subscribe').open()
      transport.stream('/subscribe').send(aLogEvent('live'))
      transport.stream('/subscribe').send(anEvent('run:complete', { output: 4 }))
      expect(await waiting).toBe(4)
      expect(lines).toEqual(['live'])
      transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
      const unended = client.waitForRun('run-1', { timeout: 5, onLog })
      await vi.waitFor(() => transport.stream('/subscribe').open())
      transport.stream('/subscribe').send(aLogEvent('again'))
      await expect(unended).rejects.toThrow(/timeout/i)
      expect(lines).toEqual(['live', 'again'])
    })

    test('hears each once, and progress too, when a callback gives up', async () => {
      transport.answer('GET /logs?', () => new Promise(ignore))
      const abort = new AbortController()
      const onProgress = vi.fn(() => abort.abort(new Error('enough')))
      const waiting = client.waitForRun('run-1', { signal: abort.signal, onLog, onProgress })
      const stream = transport.stream('/subscribe')
      stream.open()
      stream.send(aLogEvent('live'))
      stream.send(anEvent('run:progress', { progress: { current: 1 } }))
      await expect(waiting).rejects.toThrow('enough')
      expect([lines, onProgress.mock.calls]).toEqual([['live'], [[{ current: 1 }]]])
    })

    test('waits for none of a run that is deleted after its end', async () => {
      transport.answer('GET /run?', ENDED)
      transport.answer('GET /logs?', () => new Promise(ignore))
      const waiting = client.waitForRun('run-1', { onLog })
      transport.stream('/subscribe').open()
      await settled()
      transport.stream('/subscribe').send(anEvent('run:delete'))
      expect(await waiting).toBe(4)
      await vi.waitFor(() => expect(transport.live).toEqual([]))
    })
  })

  test('looks once at a line, however many follow', () => {
    const toJSON = vi.fn(() => 'data')
    const line = (message: string) => ({ ...aLog(message), data: { toJSON } })
    const logs = [line('one')]
    let tell = ignore
    const run: Observable<RunState> = {
      subscribe: (listener) => {
        tell = listener
        return ignore
      },
      getSnapshot: () => ({ ...initialRunState('run-1', 'leased'), logs: [...logs] }),
    }
    void waitForRun('run-1', run, { onLog: ignore })
    for (const message of ['two', 'three', 'four']) {
      logs.push(line(message))
      tell()
    }
    expect(toJSON).toHaveBeenCalledTimes(4)
  })

  test('asks for no logs that nobody wants to hear', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'completed' }) })
    const waiting = client.waitForRun('run-1')
    transport.stream('/subscribe').open()
    await waiting
    expect(transport.asked('GET /logs?')).toEqual([])
  })

  test('rejects with the error of a callback that fails, and leaves the stream', async () => {
    const waiting = client.waitForRun('run-1', {
      timeout: 1000,
      onProgress: () => {
        throw new Error('no such progress bar')
      },
    })
    transport.stream('/subscribe').send(anEvent('run:progress', { progress: { current: 1 } }))
    await expect(waiting).rejects.toThrow('no such progress bar')
    await vi.waitFor(() => expect(transport.live).toEqual([]))
  })

  test('triggers nothing when it is given up already', async () => {
    transport.answer('POST /trigger', { body: { runId: 'run-1', disposition: 'created' } })
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(client.triggerAndWait('import-csv', {}, { signal })).rejects.toThrow('enough')
    const job = client.observeJob('import-csv')
    await expect(job.triggerAndWait({}, { signal })).rejects.toThrow('enough')
    expect(transport.asked('POST /trigger')).toEqual([])
  })

  test('for a trigger too ends at the timeout, and on request', async () => {
    transport.answer('POST /trigger', () => new Promise(ignore))
    const job = client.observeJob('import-csv')
    await expect(client.triggerAndWait('import-csv', {}, { timeout: 5 })).rejects.toThrow(/timeout/i)
    await expect(job.triggerAndWait({}, { timeout: 5 })).rejects.toThrow(/timeout/i)
    expect(job.getSnapshot().status).toBeNull()
    const abort = new AbortController()
    const waiting = client.triggerAndWait('import-csv', {}, { signal: abort.signal })
    abort.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
  })

  test('rejects for a timeout that is none, before anything is triggered', async () => {
    await expect(client.waitForRun('run-1', { timeout: -1 })).rejects.toThrow(RangeError)
    await expect(client.triggerAndWait('import-csv', {}, { timeout: -1 })).rejects.toThrow(RangeError)
    expect(transport.asked('POST /trigger')).toEqual([])
  })

  test.each([30 * 24 * 60 * 60 * 1000, Infinity])('takes a timeout longer than timers count, of %s ms', async (timeout) => {
    const waiting = client.waitForRun('run-1', { timeout })
    // A timer that takes it for nothing rings at once.
    await new Promise((resolve) => setTimeout(resolve, 20))
    transport.stream('/subscribe').send(anEvent('run:complete', { output: 4 }))
    expect(await waiting).toBe(4)
  })

  test('takes a part of a millisecond', async () => {
    await expect(client.waitForRun('run-1', { timeout: 4.5 })).rejects.toThrow(/timeout/i)
  })

  test('gives up at its timeout, and leaves the stream', async () => {
    await expect(client.waitForRun('run-1', { timeout: 5 })).rejects.toThrow(/timeout/i)
    await vi.waitFor(() => expect(transport.live).toEqual([]))
  })

  test('leaves no question open when it is given up', async () => {
    transport.answer('GET /', () => new Promise(ignore))
    const waiting = client.waitForRun('run-1', { timeout: 5, onLog: ignore })
    transport.stream('/subscribe').open()
    await expect(waiting).rejects.toThrow(/timeout/i)
    const asked = transport.requests.map(({ path, signal }) => [path, signal?.aborted])
    expect(asked).toEqual([
      ['/logs?runId=run-1', true],
      ['/run?runId=run-1', true],
    ])
  })

  test('gives up on request', async () => {
    const abort = new AbortController()
    const waiting = client.waitForRun('run-1', { signal: abort.signal, timeout: 60_000 })
    abort.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    await expect(client.waitForRun('run-1', { signal: AbortSignal.abort(new Error('late')) })).rejects.toThrow('late')
  })
})

describe('a job', () => {
  const TRIGGERED = { body: { runId: 'run-1', disposition: 'created' } }

  test('is pending from the moment of the trigger', async () => {
    transport.answer('POST /trigger', TRIGGERED)
    const job = client.jobs['importCsv']!.observe()
    job.subscribe(ignore)
    const triggering = job.trigger({ filename: 'a' }, { concurrencyKey: 'k' })
    expect(job.getSnapshot()).toMatchObject({ runId: null, status: 'pending' })
    expect(await triggering).toEqual({ runId: 'run-1', disposition: 'created' })
    expect(job.getSnapshot()).toMatchObject({ runId: 'run-1', status: 'pending' })
    expect(transport.asked('POST /trigger')[0]?.body).toEqual({
      jobName: 'import-csv',
      input: { filename: 'a' },
      concurrencyKey: 'k',
    })
  })

  test('a refused trigger rejects with the words of the server, and the previous run is back', async () => {
    transport.answer('POST /trigger', { status: 409, body: { error: 'A pending run already exists' } })
    const job = client.observeJob('import-csv', { initialRunId: 'run-0' })
    job.subscribe(ignore)
    const error: unknown = await job.trigger({}).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(ApiError)
    expect(error).toMatchObject({ status: 409, message: 'A pending run already exists' })
    expect(job.getSnapshot().runId).toBe('run-0')
  })

  test('two triggers at once that are both refused leave what was there before', async () => {
    transport.answer('POST /trigger', { status: 503, body: { error: 'The database is away' } })
    transport.answer('GET /runs?', { body: [] })
    const job = client.observeJob('import-csv')
    job.subscribe(ignore)
    await Promise.allSettled([job.trigger({}), job.trigger({})])
    expect(job.getSnapshot()).toMatchObject({ runId: null, status: null })
  })

  test('of two triggers at once the one that is accepted is followed', async () => {
    let count = 0
    transport.answer('POST /trigger', () => (++count === 1 ? TRIGGERED : { status: 409, body: { error: 'Taken' } }))
    transport.answer('GET /runs?', { body: [] })
    const job = client.observeJob('import-csv')
    job.subscribe(ignore)
    await Promise.allSettled([job.trigger({}), job.trigger({})])
    expect(job.getSnapshot().runId).toBe('run-1')
  })

  test('a run that has ended before its trigger is answered is not waited for', async () => {
    let answer: (answer: { body: unknown }) => void = ignore
    transport.answer('GET /runs?', { body: [] })
    transport.answer('POST /trigger', () => new Promise((resolve) => (answer = resolve)))
    const job = client.observeJob('import-csv')
    job.subscribe(ignore)
    const waiting = job.triggerAndWait({})
    await vi.waitFor(() => transport.stream('/runs/subscribe'))
    transport.stream('/runs/subscribe').send(anEvent('run:trigger', {}))
    await vi.waitFor(() => transport.stream('/subscribe?runId=run-1'))
    transport.stream('/subscribe?runId=run-1').send(anEvent('run:complete', { output: 2 }))
    await vi.waitFor(() => expect(job.getSnapshot().status).toBe('completed'))
    answer(TRIGGERED)
    expect(await waiting).toMatchObject({ runId: 'run-1', output: 2 })
  })

  test('who waits hears all logs, however few are kept to be shown', async () => {
    transport.answer('POST /trigger', TRIGGERED)
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    transport.answer('GET /logs?', { body: ['one', 'two', 'three'].map(storedLog) })
    const job = client.observeJob('import-csv', { autoResume: false, maxLogs: 1 })
    job.subscribe(ignore)
    const lines: string[] = []
    const waiting = job.triggerAndWait({}, { onLog: ({ message }) => lines.push(message) })
    await vi.waitFor(() => transport.stream('/subscribe?runId=run-1').open())
    await vi.waitFor(() => expect(job.getSnapshot().logs).toMatchObject([{ message: 'three' }]))
    transport.stream('/subscribe?runId=run-1').send(anEvent('run:complete'))
    await waiting
    expect(lines).toEqual(['one', 'two', 'three'])
  })

  test('only what the server knows as a trigger option is sent', async () => {
    transport.answer('POST /trigger', TRIGGERED)
    const waiting = client.triggerAndWait('import-csv', {}, { timeout: 60_000, labels: { a: 'b' } })
    await vi.waitFor(() => transport.stream('/subscribe'))
    transport.stream('/subscribe').send(anEvent('run:complete', { output: 2 }))
    expect(await waiting).toEqual({ runId: 'run-1', disposition: 'created', output: 2 })
    expect(transport.asked('POST /trigger')[0]?.body).toEqual({
      jobName: 'import-csv',
      input: {},
      labels: { a: 'b' },
    })
  })

  test('a leased run is resumed before a pending one', async () => {
    const runs = [aRun({ id: 'newer' }), aRun({ id: 'older', status: 'leased' })]
    transport.answer('GET /runs?', { body: runs })
    const job = client.observeJob('import-csv')
    job.subscribe(ignore)
    await vi.waitFor(() => expect(job.getSnapshot()).toMatchObject({ runId: 'older', status: 'leased' }))
  })

  test('a leased run is resumed however many were triggered after it', async () => {
    transport.answer('GET /runs?', { body: [aRun({ id: 'newest' })] })
    const leased = 'GET /runs?jobName=import-csv&status=leased&limit=1'
    transport.answer(leased, { body: [aRun({ id: 'at work', status: 'leased' })] })
    const job = client.observeJob('import-csv')
    job.subscribe(ignore)
    await vi.waitFor(() => expect(job.getSnapshot()).toMatchObject({ runId: 'at work', status: 'leased' }))
  })

  test('the run to begin with is not left for another before it is known', () => {
    const job = client.observeJob('import-csv', { initialRunId: 'run-1' })
    job.subscribe(ignore)
    transport.stream('/runs/subscribe').send(anEvent('run:leased', { runId: 'older' }))
    expect(job.getSnapshot().runId).toBe('run-1')
  })

  test('another run is followed on request; the same one goes on', () => {
    const job = client.observeJob('import-csv', { initialRunId: 'run-1' })
    job.subscribe(ignore)
    transport.stream('/subscribe?runId=run-1').send(anEvent('run:progress', { progress: { current: 1 } }))
    job.follow('run-1')
    expect(job.getSnapshot()).toMatchObject({ runId: 'run-1', progress: { current: 1 } })
    job.follow('run-2')
    expect(job.getSnapshot()).toMatchObject({ runId: 'run-2', progress: null })
  })

  test('of many runs that are triggered at once only the last is connected to', async () => {
    const job = client.observeJob('import-csv', { autoResume: false })
    job.subscribe(ignore)
    const feed = transport.stream('/runs/subscribe')
    for (const runId of ['a', 'b', 'c']) feed.send(anEvent('run:trigger', { runId }))
    expect(job.getSnapshot()).toMatchObject({ runId: 'c', status: 'pending' })
    await settled()
    expect(transport.connections.map(({ path }) => path).slice(1)).toEqual(['/subscribe?runId=c'])
  })

  test('a run to resume is looked for again when that failed, as long as somebody listens', async () => {
    vi.useFakeTimers()
    transport.answer('GET /runs?', { status: 503, body: 'restarting' })
    const job = client.observeJob('import-csv', { followLatest: false })
    const leave = job.subscribe(ignore)
    await vi.advanceTimersByTimeAsync(0)
    leave()
    await vi.runAllTimersAsync()
    expect(transport.asked('GET /runs?')).toHaveLength(2)
    job.subscribe(ignore)
    await vi.advanceTimersByTimeAsync(0)
    transport.answer('GET /runs?', { body: [aRun()] })
    await vi.runAllTimersAsync()
    expect(job.getSnapshot()).toMatchObject({ runId: 'run-1', status: 'pending' })
  })

  test('a trigger beats the search for a run to resume', async () => {
    let found: (answer: { body: unknown }) => void = ignore
    transport.answer('GET /runs?', () => new Promise((resolve) => (found = resolve)))
    transport.answer('POST /trigger', TRIGGERED)
    const job = client.observeJob('import-csv')
    job.subscribe(ignore)
    await job.trigger({})
    found({ body: [aRun({ id: 'older', status: 'leased' })] })
    await new Promise((resolve) => setTimeout(resolve, 10))
    expect(job.getSnapshot().runId).toBe('run-1')
  })

  test.each([{ autoResume: false }, { initialRunId: 'run-9' }])('%j looks for no active run', (options) => {
    client.observeJob('import-csv', options).subscribe(ignore)
    expect(transport.asked('GET /runs?')).toEqual([])
  })

  test('a newer run is followed, whoever triggered it', async () => {
    const job = client.observeJob('import-csv', { autoResume: false })
    job.subscribe(ignore)
    transport.stream('/runs/subscribe?jobName=import-csv').send(anEvent('run:trigger', { runId: 'run-7' }))
    await settled()
    transport.stream('/subscribe?runId=run-7').send(anEvent('run:leased', { runId: 'run-7' }))
    expect(job.getSnapshot()).toMatchObject({ runId: 'run-7', status: 'leased' })
  })

  test('the pending run that a trigger joined is followed, whoever triggered it', () => {
    const job = client.observeJob('import-csv', { autoResume: false })
    job.subscribe(ignore)
    const joined = { runId: 'kept', skippedInput: null, skippedLabels: {} }
    transport.stream('/runs/subscribe').send(anEvent('run:coalesced', joined))
    expect(job.getSnapshot()).toMatchObject({ runId: 'kept', status: 'pending' })
  })

  test('a run that is leased while another is active is not newer', () => {
    const job = client.observeJob('import-csv', { autoResume: false })
    job.subscribe(ignore)
    const feed = transport.stream('/runs/subscribe')
    feed.send(anEvent('run:trigger', { runId: 'newer' }))
    feed.send(anEvent('run:leased', { runId: 'older' }))
    expect(job.getSnapshot().runId).toBe('newer')
  })

  test('without followLatest, other runs are not even listened to', () => {
    const job = client.observeJob('import-csv', { followLatest: false, autoResume: false })
    job.subscribe(ignore)
    expect(transport.connections).toEqual([])
    job.setFollowLatest(true)
    expect(transport.connections).toHaveLength(1)
  })

  test('reset forgets the run', async () => {
    transport.answer('POST /trigger', TRIGGERED)
    const job = client.observeJob('import-csv')
    job.subscribe(ignore)
    await job.trigger({})
    job.reset()
    expect(job.getSnapshot()).toMatchObject({ runId: null, status: null, logs: [] })
  })

  test('a newer run is found that began while nobody listened, or nobody was heard', async () => {
    const ended = aRun({ status: 'completed', output: 1 })
    const newer = aRun({ id: 'newer', status: 'leased' })
    for (const outage of ['left', 'dropped']) {
      transport = new FakeTransport()
      transport.answer('GET /runs?', { body: [aRun({ status: 'leased' })] })
      const job = createDurablyClient({ transport }).observeJob('import-csv')
      const leave = job.subscribe(ignore)
      await vi.waitFor(() => expect(job.getSnapshot().runId).toBe('run-1'))
      if (outage === 'left') {
        leave()
        job.subscribe(ignore)
      }
      transport.answer('GET /runs?', { body: [newer] })
      transport.answer('GET /run?', { body: newer })
      transport.answer('GET /run?runId=run-1', { body: ended })
      transport.stream('/runs/subscribe').open()
      await settled()
      transport.stream('/subscribe?runId=run-1').open()
      await vi.waitFor(() => expect(job.getSnapshot()).toMatchObject({ runId: 'newer', status: 'leased' }))
    }
  })

  test('what is looked for does not grow with the runs that were forgotten', async () => {
    transport.answer('GET /runs?', { body: [] })
    const job = client.observeJob('import-csv')
    job.subscribe(ignore)
    const feed = transport.stream('/runs/subscribe')
    for (const runId of ['one', 'two', 'three', 'four']) {
      transport.answer('POST /trigger', { body: { runId, disposition: 'created' } })
      await job.trigger({})
      const ending = anEvent('run:complete', { runId })
      if (runId === 'one') transport.stream('/subscribe').send(ending)
      job.reset()
      if (runId !== 'four') feed.send(ending)
    }
    transport.answer('GET /runs?', { body: [aRun({ id: 'four' })] })
    feed.open()
    await settled()
    expect(transport.requests.at(-1)?.path).toContain('limit=2')
    expect(job.getSnapshot().runId).toBeNull()
  })

  describe('a run that reset has forgotten is not picked up again', () => {
    async function forgotten() {
      transport.answer('POST /trigger', TRIGGERED)
      transport.answer('GET /runs?', { body: [] })
      const job = client.observeJob('import-csv')
      job.subscribe(ignore)
      await job.trigger({})
      job.reset()
      return { job, feed: transport.stream('/runs/subscribe') }
    }

    test('when it is leased', async () => {
      const { job, feed } = await forgotten()
      feed.send(anEvent('run:leased'))
      expect(job.getSnapshot().runId).toBeNull()
    })

    test('when active runs are looked for after a reconnect', async () => {
      const { job, feed } = await forgotten()
      transport.answer('GET /runs?', { body: [aRun()] })
      feed.open()
      await settled()
      expect(job.getSnapshot().runId).toBeNull()
      transport.answer('GET /runs?', { body: [aRun(), aRun({ id: 'another' })] })
      feed.open()
      await vi.waitFor(() => expect(job.getSnapshot().runId).toBe('another'))
    })

    test('when its trigger was not yet answered', async () => {
      let answer: (answer: { body: unknown }) => void = ignore
      transport.answer('POST /trigger', () => new Promise((resolve) => (answer = resolve)))
      transport.answer('GET /runs?', { body: [] })
      const job = client.observeJob('import-csv')
      job.subscribe(ignore)
      const triggering = job.trigger({})
      job.reset()
      const feed = transport.stream('/runs/subscribe')
      feed.send(anEvent('run:trigger'))
      answer(TRIGGERED)
      await triggering
      feed.send(anEvent('run:leased'))
      expect(job.getSnapshot()).toMatchObject({ runId: null, status: null })
    })

    test('unless it is what a trigger of its own leads to', async () => {
      const { job } = await forgotten()
      transport.answer('POST /trigger', { body: { runId: 'run-1', disposition: 'coalesced' } })
      await job.trigger({})
      expect(job.getSnapshot()).toMatchObject({ runId: 'run-1', status: 'pending' })
    })
  })

  describe("another's trigger while one's own is not yet answered", () => {
    async function triggering(answers: string[], disposition = 'created') {
      const answering: ((answer: { status?: number; body: unknown }) => void)[] = []
      transport.answer('POST /trigger', () => new Promise((resolve) => answering.push(resolve)))
      transport.answer('GET /runs?', { body: [] })
      const job = client.observeJob('import-csv')
      job.subscribe(ignore)
      const triggers = answers.map(() => job.trigger({}))
      await vi.waitFor(() => expect(answering).toHaveLength(answers.length))
      const answer = async (index: number, refusal?: { status: number; body: string }) => {
        answering[index]?.(refusal ?? { body: { runId: answers[index], disposition } })
        await Promise.allSettled([triggers[index]])
      }
      return { job, feed: transport.stream('/runs/subscribe'), answer }
    }

    const CONFLICT = { status: 409, body: 'A pending run already exists' }

    test('gives way to the own one, which was told of in no event', async () => {
      const { job, feed, answer } = await triggering(['own'], 'idempotent')
      feed.send(anEvent('run:trigger', { runId: 'foreign' }))
      await answer(0)
      expect(job.getSnapshot().runId).toBe('own')
    })

    test('stays when it was told of after the own one, for it is newer', async () => {
      const { job, feed, answer } = await triggering(['own'])
      feed.send(anEvent('run:trigger', { runId: 'own' }))
      feed.send(anEvent('run:trigger', { runId: 'foreign' }))
      await answer(0)
      expect(job.getSnapshot().runId).toBe('foreign')
    })

    test('stays when the own one is refused', async () => {
      const { job, feed, answer } = await triggering(['own'])
      feed.send(anEvent('run:trigger', { runId: 'foreign' }))
      await answer(0, CONFLICT)
      expect(job.getSnapshot().runId).toBe('foreign')
    })

    test('of two own ones the accepted one is followed, though the later one was refused before', async () => {
      const { job, answer } = await triggering(['first', 'second'])
      await answer(1, CONFLICT)
      expect(job.getSnapshot()).toMatchObject({ runId: null, status: 'pending' })
      await answer(0)
      expect(job.getSnapshot()).toMatchObject({ runId: 'first', status: 'pending' })
    })

    test('of two own ones that are accepted the later one is followed, in whatever order they are answered', async () => {
      const { job, answer } = await triggering(['first', 'second'])
      await answer(1)
      await answer(0)
      expect(job.getSnapshot().runId).toBe('second')
    })
  })
})

describe('a list of runs', () => {
  const page = (count: number) => Array.from({ length: count }, (_, i) => aRun({ id: `run-${i}` }))

  test('one run more than a page tells that there is another page', async () => {
    transport.answer('GET /runs?', { body: page(3) })
    const list = client.observeRuns({ pageSize: 2, status: ['failed', 'cancelled'], labels: { env: 'x' } })
    expect(list.getSnapshot().isLoading).toBe(true)
    list.subscribe(ignore)
    await vi.waitFor(() => expect(list.getSnapshot()).toMatchObject({ isLoading: false, hasMore: true }))
    expect(list.getSnapshot().runs).toHaveLength(2)
    expect(transport.requests[0]?.path).toBe(
      '/runs?label.env=x&status=failed&status=cancelled&limit=3&offset=0',
    )
  })

  test('events show at once, and the page is fetched once for any number of them', async () => {
    transport.answer('GET /runs?', { body: page(2) })
    const list = client.observeRuns()
    list.subscribe(ignore)
    await vi.waitFor(() => expect(list.getSnapshot().runs).toHaveLength(2))
    const stream = transport.stream('/runs/subscribe')
    const asked = transport.asked('GET /runs?').length
    stream.send(anEvent('run:progress', { runId: 'run-1', progress: { current: 1 } }))
    for (let i = 0; i < 50; i++) stream.send(anEvent('run:trigger', { runId: `new-${i}` }))
    expect(list.getSnapshot().runs[1]).toMatchObject({ status: 'leased', progress: { current: 1 } })
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(transport.asked('GET /runs?').length - asked).toBeLessThanOrEqual(2)
  })

  test('events that change nothing on the page leave the snapshot alone', async () => {
    transport.answer('GET /runs?', { body: page(1) })
    const list = client.observeRuns()
    list.subscribe(ignore)
    await vi.waitFor(() => expect(list.getSnapshot().isLoading).toBe(false))
    const before = list.getSnapshot()
    transport.stream('/runs/subscribe').send(anEvent('step:start', { runId: 'elsewhere' }))
    expect(list.getSnapshot()).toBe(before)
  })

  test('only the first page is live', async () => {
    transport.answer('GET /runs?', { body: page(11) })
    const list = client.observeRuns()
    list.subscribe(ignore)
    await vi.waitFor(() => expect(list.getSnapshot().hasMore).toBe(true))
    list.nextPage()
    await vi.waitFor(() => expect(transport.live).toEqual([]))
    expect(list.getSnapshot().page).toBe(1)
    list.prevPage()
    await vi.waitFor(() => expect(transport.live).toHaveLength(1))
    list.prevPage()
    expect(list.getSnapshot().page).toBe(0)
  })

  test('an answer that comes after a later question is dropped', async () => {
    const answers: ((answer: { body: unknown }) => void)[] = []
    transport.answer('GET /runs?', () => new Promise((resolve) => answers.push(resolve)))
    const list = client.observeRuns({ realtime: false })
    list.subscribe(ignore)
    list.goToPage(3)
    await vi.waitFor(() => expect(answers).toHaveLength(2))
    answers[1]?.({ body: [aRun({ id: 'page-3' })] })
    await vi.waitFor(() => expect(list.getSnapshot().isLoading).toBe(false))
    answers[0]?.({ body: [aRun({ id: 'page-0' })] })
    await new Promise((resolve) => setTimeout(resolve, 10))
    expect(list.getSnapshot().runs.map(({ id }) => id)).toEqual(['page-3'])
  })

  describe('while an answer is on its way', () => {
    async function listWith(...runs: ClientRun[]) {
      transport.answer('GET /runs?', { body: runs })
      const list = client.observeRuns()
      list.subscribe(ignore)
      await vi.waitFor(() => expect(list.getSnapshot().isLoading).toBe(false))
      let answer: (answer: { body: unknown }) => void = ignore
      transport.answer('GET /runs?', () => new Promise((resolve) => (answer = resolve)))
      const stream = transport.stream('/runs/subscribe')
      stream.open()
      await vi.waitFor(() => expect(transport.asked('GET /runs?')).toHaveLength(2))
      const answered = async (...found: ClientRun[]) => {
        answer({ body: found })
        await settled()
      }
      return { list, stream, answered }
    }

    test('a run that is deleted stays deleted', async () => {
      const { list, stream, answered } = await listWith(aRun({ id: 'kept' }), aRun({ id: 'gone' }))
      stream.send(anEvent('run:delete', { runId: 'gone' }))
      await answered(aRun({ id: 'kept' }), aRun({ id: 'gone' }))
      expect(list.getSnapshot().runs.map(({ id }) => id)).toEqual(['kept'])
    })

    test('a run that ends stays ended', async () => {
      const { list, stream, answered } = await listWith(aRun({ status: 'leased' }))
      stream.send(anEvent('run:complete'))
      await answered(aRun({ status: 'leased' }))
      expect(list.getSnapshot().runs).toMatchObject([{ status: 'completed', isTerminal: true }])
    })
  })

  describe('progress', () => {
    const at = (current: number) => ({ progress: { current } })

    async function listAt(current: number) {
      transport.answer('GET /runs?', { body: [aRun({ status: 'leased', ...at(current) })] })
      const list = client.observeRuns()
      list.subscribe(ignore)
      const stream = transport.stream('/runs/subscribe')
      stream.open()
      await vi.waitFor(() => expect(transport.asked('GET /runs?')).toHaveLength(2))
      await settled()
      return { list, stream }
    }

    test('does not jump back to what is stored, which is less often than it is told', async () => {
      const { list, stream } = await listAt(3)
      stream.send(anEvent('run:progress', at(9)))
      await list.refresh()
      expect(list.getSnapshot().runs).toMatchObject([at(9)])
    })

    test('is the stored one when the run has ended', async () => {
      const { list, stream } = await listAt(3)
      stream.send(anEvent('run:progress', at(9)))
      transport.answer('GET /runs?', { body: [aRun({ status: 'completed', ...at(10) })] })
      await list.refresh()
      expect(list.getSnapshot().runs).toMatchObject([at(10)])
    })

    test('is the stored one when the stream was away, and some was not told', async () => {
      const { list, stream } = await listAt(3)
      stream.send(anEvent('run:progress', at(4)))
      transport.answer('GET /runs?', { body: [aRun({ status: 'leased', ...at(8) })] })
      stream.open()
      await list.refresh()
      expect(list.getSnapshot().runs).toMatchObject([at(8)])
    })
  })

  test('a click too many on the next page goes no further than the pages that are known', async () => {
    transport.answer('GET /runs?', { body: page(11) })
    const list = client.observeRuns()
    list.subscribe(ignore)
    await vi.waitFor(() => expect(list.getSnapshot().hasMore).toBe(true))
    list.nextPage()
    list.nextPage()
    expect(list.getSnapshot().page).toBe(1)
    await vi.waitFor(() => expect(list.getSnapshot().isLoading).toBe(false))
    list.nextPage()
    expect(list.getSnapshot().page).toBe(2)
    list.goToPage(NaN)
    expect(list.getSnapshot().page).toBe(0)
  })

  test('a page that is live is fetched again when that failed, as long as somebody listens', async () => {
    vi.useFakeTimers()
    transport.answer('GET /runs?', { status: 503, body: 'restarting' })
    const list = client.observeRuns()
    const leave = list.subscribe(ignore)
    await vi.advanceTimersByTimeAsync(0)
    transport.answer('GET /runs?', { body: page(1) })
    await vi.runAllTimersAsync()
    expect(list.getSnapshot()).toMatchObject({ runs: page(1), error: null })
    transport.answer('GET /runs?', { status: 503, body: 'restarting' })
    await list.refresh()
    leave()
    await vi.runAllTimersAsync()
    expect(transport.asked('GET /runs?')).toHaveLength(3)
  })

  test('a later page is fetched again when that failed, and left when it is refused', async () => {
    vi.useFakeTimers()
    transport.answer('GET /runs?', { body: page(11) })
    const list = client.observeRuns()
    list.subscribe(ignore)
    await vi.advanceTimersByTimeAsync(0)
    transport.answer('GET /runs?', { status: 503, body: 'restarting' })
    list.nextPage()
    await vi.advanceTimersByTimeAsync(0)
    expect(list.getSnapshot()).toMatchObject({ page: 1, error: 'restarting' })
    transport.answer('GET /runs?', { body: page(2) })
    await vi.runAllTimersAsync()
    expect(list.getSnapshot()).toMatchObject({ page: 1, runs: page(2), error: null })
    transport.answer('GET /runs?', { status: 403, body: 'Forbidden' })
    list.goToPage(2)
    await vi.runAllTimersAsync()
    expect(list.getSnapshot()).toMatchObject({ page: 1, runs: page(2), error: 'Forbidden' })
  })

  test('a failed load tells the words of the server, until one succeeds', async () => {
    transport.answer('GET /runs?', { status: 401, body: 'Unauthorized' })
    const list = client.observeRuns({ realtime: false })
    list.subscribe(ignore)
    await vi.waitFor(() => expect(list.getSnapshot().error).toBe('Unauthorized'))
    transport.answer('GET /runs?', { body: [] })
    await list.refresh()
    expect(list.getSnapshot()).toMatchObject({ error: null, isLoading: false })
  })
})

describe('a list whose stream is refused', () => {
  const REFUSED = 'Live updates are off: No streams here'

  async function refused(status: number) {
    transport.answer('GET /runs?', { body: [aRun()] })
    const list = client.observeRuns()
    list.subscribe(ignore)
    transport.stream('/runs/subscribe').drop(new ApiError(status, 'No streams here'))
    await vi.waitFor(() => expect(list.getSnapshot()).toMatchObject({ error: REFUSED, isLoading: false }))
    return list
  }

  test('says so, and shows what was fetched', async () => {
    const list = await refused(403)
    expect(list.getSnapshot().runs).toMatchObject([{ id: 'run-1' }])
  })

  test('says so whoever else had heard it before', async () => {
    await refused(503)
    const another = client.observeRuns()
    another.subscribe(ignore)
    await vi.waitFor(() => expect(another.getSnapshot()).toMatchObject({ error: REFUSED, isLoading: false }))
  })

  test('is live again when a refusal that may end has ended; a lost connection is none', async () => {
    const list = await refused(503)
    await vi.waitFor(() => expect(transport.connections).toHaveLength(2), 2000)
    const stream = transport.stream('/runs/subscribe')
    stream.open()
    await vi.waitFor(() => expect(list.getSnapshot().error).toBeNull())
    stream.drop()
    await list.refresh()
    expect(list.getSnapshot().error).toBeNull()
  })

  test.each([403, 503])('asks for it again when it is refreshed, after a %i', async (status) => {
    const list = await refused(status)
    await list.refresh()
    expect(transport.connections).toHaveLength(2)
    transport.stream('/runs/subscribe').open()
    await vi.waitFor(() => expect(list.getSnapshot().error).toBeNull())
  })

  test('has no fault on pages that stand still', async () => {
    const list = await refused(403)
    list.goToPage(1)
    await vi.waitFor(() => expect(list.getSnapshot()).toMatchObject({ page: 1, error: null, isLoading: false }))
  })

  test('has no fault when it is not to be live any more', async () => {
    const list = await refused(403)
    list.setRealtime(false)
    expect(list.getSnapshot()).toMatchObject({ runs: [{ id: 'run-1' }], error: null })
  })

  test('tells the words with which the list is refused, if it is', async () => {
    const list = await refused(403)
    transport.answer('GET /runs?', { status: 401, body: 'Unauthorized' })
    await list.refresh()
    expect(list.getSnapshot().error).toBe('Unauthorized')
  })
})

describe('jobs by property', () => {
  test('a property is the job in kebab-case, or what the names say', () => {
    const named = createDurablyClient({ transport, names: { nightly: 'reports.nightly' } })
    expect(named.jobs['importCsv']?.name).toBe('import-csv')
    expect(named.jobs['nightly']?.name).toBe('reports.nightly')
    expect(named.jobs['importCsv']).toBe(named.jobs['importCsv'])
  })

  test('a job may be called like something that every object has', () => {
    expect(client.jobs['constructor']?.name).toBe('constructor')
    expect(client.jobs['toString']?.name).toBe('to-string')
  })

  test('the jobs are not taken for a promise', async () => {
    expect(await Promise.resolve(client.jobs)).toBe(client.jobs)
  })
})
