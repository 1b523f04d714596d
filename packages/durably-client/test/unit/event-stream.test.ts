import { ApiError, type DurablyEvent } from 'durably-client'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { reconnectDelay } from '../../src/backoff.js'
import { EventStreams } from '../../src/streams.js'
import { FakeTransport } from '../support/fake-transport.js'
import { anEvent } from '../support/samples.js'

let transport: FakeTransport
let streams: EventStreams

beforeEach(() => {
  vi.useFakeTimers()
  transport = new FakeTransport()
  streams = new EventStreams(transport)
})

afterEach(() => vi.useRealTimers())

function listen(runId = 'run-1') {
  const heard: string[] = []
  const leave = streams.ofRun(runId).subscribe({
    onEvent: (event: DurablyEvent) => heard.push(event.type),
    onOpen: () => heard.push('open'),
    onDrop: (error) => heard.push(error.message),
  })
  return { heard, leave }
}

test('listeners of one run share a connection, and a latecomer learns that it is open', () => {
  const first = listen()
  transport.stream('/subscribe').open()
  const second = listen()
  transport.stream('/subscribe').send(anEvent('run:leased'))
  expect(transport.connections).toHaveLength(1)
  expect(first.heard).toEqual(['open', 'run:leased'])
  expect(second.heard).toEqual(['open', 'run:leased'])
})

test('streams with the same filter in another order are one', () => {
  const listener = { onEvent: () => {} }
  streams.ofRuns({ jobName: ['a', 'b'], labels: { x: '1', y: '2' } }).subscribe(listener)
  streams.ofRuns({ jobName: ['b', 'a'], labels: { y: '2', x: '1' } }).subscribe(listener)
  expect(transport.connections.map(({ path }) => path)).toEqual([
    '/runs/subscribe?jobName=a&jobName=b&label.x=1&label.y=2',
  ])
})

test('a transport that answers before it has returned is heard when the listener is ready', async () => {
  const connect = transport.connect.bind(transport)
  transport.connect = (path, handlers) => {
    const connection = connect(path, handlers)
    connection.open()
    connection.send(anEvent('run:leased'))
    return connection
  }
  const { heard } = listen()
  transport.stream('/subscribe').send(anEvent('run:progress'))
  expect(heard).toEqual([])
  await Promise.resolve()
  expect(heard).toEqual(['open', 'run:leased', 'run:progress'])
})

test('a connection that is refused before its transport has returned is made again', async () => {
  const connect = transport.connect.bind(transport)
  transport.connect = (path, handlers) => {
    const connection = connect(path, handlers)
    if (transport.connections.length === 1) connection.drop(new Error('refused'))
    return connection
  }
  const { heard } = listen()
  await Promise.resolve()
  expect(heard).toEqual(['refused'])
  vi.runAllTimers()
  transport.stream('/subscribe').open()
  expect(heard).toEqual(['refused', 'open'])
})

test('the connection closes after the last listener, but not for one that comes straight back', () => {
  listen().leave()
  const again = listen()
  vi.runAllTimers()
  expect(transport.live).toHaveLength(1)
  again.leave()
  vi.runAllTimers()
  expect(transport.live).toHaveLength(0)
  expect(transport.connections).toHaveLength(1)
})

test('a lost connection is replaced, and continues after the last event that arrived', () => {
  const { heard } = listen()
  const lost = transport.stream('/subscribe')
  lost.open()
  lost.send(anEvent('run:leased'), '41')
  lost.drop()
  vi.advanceTimersByTime(reconnectDelay(0, () => 1))
  const next = transport.connections[1]
  expect(next?.lastEventId).toBe('41')
  next?.open()
  expect(heard).toEqual(['open', 'run:leased', 'connection lost', 'open'])
})

test('a lost connection that had nothing to tell continues from where it had come', () => {
  listen()
  const lost = transport.stream('/subscribe')
  lost.open()
  lost.mark('17')
  lost.drop()
  vi.advanceTimersByTime(reconnectDelay(0, () => 1))
  expect(transport.connections[1]?.lastEventId).toBe('17')
})

test('attempts become rarer while the server stays away, and frequent again once it was back for a while', () => {
  vi.spyOn(Math, 'random').mockReturnValue(1)
  listen()
  for (const wait of [500, 1000, 2000]) {
    const before = transport.connections.length
    transport.connections.at(-1)?.drop()
    vi.advanceTimersByTime(wait - 1)
    expect(transport.connections).toHaveLength(before)
    vi.advanceTimersByTime(1)
    expect(transport.connections).toHaveLength(before + 1)
  }
  const flapping = transport.connections.at(-1)
  flapping?.open()
  flapping?.drop()
  vi.advanceTimersByTime(3999)
  expect(transport.connections).toHaveLength(4)
  vi.advanceTimersByTime(1)
  const stable = transport.connections.at(-1)
  stable?.open()
  vi.advanceTimersByTime(5000)
  stable?.drop()
  vi.advanceTimersByTime(500)
  expect(transport.connections).toHaveLength(6)
})

test('delays are spread by half and never longer than half a minute', () => {
  expect(reconnectDelay(1, () => 0)).toBe(500)
  expect(reconnectDelay(1, () => 1)).toBe(1000)
  expect(reconnectDelay(50, () => 1)).toBe(30_000)
})

test('a refusal that will not change is not tried again', () => {
  const { heard } = listen()
  transport.stream('/subscribe').drop(new ApiError(404, 'Run not found'))
  vi.runAllTimers()
  expect(transport.connections).toHaveLength(1)
  expect(heard).toEqual(['Run not found'])
})

test.each([500, 503, 429, 408])('status %i is tried again', (status) => {
  listen()
  transport.stream('/subscribe').drop(new ApiError(status, 'later'))
  vi.runAllTimers()
  expect(transport.connections).toHaveLength(2)
})

test('a latecomer to a stream that was refused learns so at once', () => {
  listen()
  transport.stream('/subscribe').drop(new ApiError(503, 'later'))
  expect(listen().heard).toEqual(['later'])
  expect(transport.connections).toHaveLength(1)
})

test('nobody reconnects for a listener that left while the connection was down', () => {
  const { leave } = listen()
  transport.stream('/subscribe').drop()
  leave()
  vi.runAllTimers()
  expect(transport.connections).toHaveLength(1)
})

test('what a connection says after it was closed is not listened to', () => {
  const { heard, leave } = listen()
  const stream = transport.stream('/subscribe')
  leave()
  vi.runAllTimers()
  stream.drop()
  stream.open()
  vi.runAllTimers()
  expect(heard).toEqual([])
  expect(transport.connections).toHaveLength(1)
})

test('a damaged message is skipped', () => {
  const { heard } = listen()
  const stream = transport.stream('/subscribe')
  for (const text of ['{', 'null', '"text"', '{}']) stream.sendText(text)
  stream.send(anEvent('run:leased'))
  expect(heard).toEqual(['run:leased'])
})
