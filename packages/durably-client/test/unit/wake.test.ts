// @vitest-environment jsdom
import { ApiError } from 'durably-client'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { EventStreams } from '../../src/streams.js'
import { FakeTransport } from '../support/fake-transport.js'
import { anEvent } from '../support/samples.js'

let transport: FakeTransport
let leave: () => void

beforeEach(() => {
  vi.useFakeTimers()
  transport = new FakeTransport()
  leave = new EventStreams(transport).ofRun('run-1').subscribe({ onEvent: () => {} })
})

afterEach(() => {
  leave()
  vi.runOnlyPendingTimers()
  vi.restoreAllMocks()
  vi.useRealTimers()
})

function show(visibilityState: DocumentVisibilityState): void {
  vi.spyOn(document, 'visibilityState', 'get').mockReturnValue(visibilityState)
  document.dispatchEvent(new Event('visibilitychange'))
}

/** The clock goes on, but nothing runs. */
const sleep = (ms: number) => vi.setSystemTime(Date.now() + ms)

test('another network: an open stream is replaced, and continues where it was', () => {
  transport.stream('/subscribe').open()
  transport.stream('/subscribe').send(anEvent('run:leased'), '41')
  window.dispatchEvent(new Event('online'))
  expect(transport.connections.map(({ isClosed, lastEventId }) => [isClosed, lastEventId])).toEqual([
    [true, null],
    [false, '41'],
  ])
})

test('a page that was hidden for long has its streams replaced, one that was for a moment has not', () => {
  show('hidden')
  vi.advanceTimersByTime(9_000)
  show('visible')
  expect(transport.connections).toHaveLength(1)
  show('hidden')
  vi.advanceTimersByTime(600_000)
  expect(transport.connections).toHaveLength(1)
  show('visible')
  expect(transport.connections).toHaveLength(2)
})

test('a machine that slept with the page in sight has its streams replaced, one that is awake has not', () => {
  vi.advanceTimersByTime(600_000)
  expect(transport.connections).toHaveLength(1)
  sleep(600_000)
  vi.advanceTimersByTime(5_000)
  expect(transport.connections).toHaveLength(2)
})

test('a stream that waits to be tried again is tried at once', () => {
  transport.stream('/subscribe').drop()
  window.dispatchEvent(new Event('online'))
  expect(transport.connections).toHaveLength(2)
  vi.advanceTimersByTime(60_000)
  expect(transport.connections).toHaveLength(2)
})

test('a stream that is refused for good stays so', () => {
  transport.stream('/subscribe').drop(new ApiError(403, 'No'))
  window.dispatchEvent(new Event('online'))
  expect(transport.connections).toHaveLength(1)
})

test('a stream that nobody listens to is left alone', () => {
  leave()
  vi.advanceTimersByTime(0)
  window.dispatchEvent(new Event('online'))
  expect([transport.connections.length, vi.getTimerCount()]).toEqual([1, 0])
})
