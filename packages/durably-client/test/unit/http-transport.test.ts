import {
  ApiError,
  createDurablyClient,
  httpTransport,
  InvalidAddressError,
  InvalidResponseError,
  RunLostError,
  type ConnectionHandlers,
  type HttpTransportOptions,
} from 'durably-client'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

afterEach(() => {
  vi.unstubAllGlobals()
  FakeEventSource.opened.length = 0
})

class FakeEventSource {
  static readonly opened: FakeEventSource[] = []
  readonly url: string
  readonly withCredentials: boolean
  readyState = 0
  onopen: () => void = () => {}
  onerror: () => void = () => {}
  onmessage: (message: { data: string; lastEventId: string }) => void = () => {}

  constructor(url: string, init: { withCredentials: boolean }) {
    this.url = url
    this.withCredentials = init.withCredentials
    FakeEventSource.opened.push(this)
  }

  close(): void {
    this.readyState = 2
  }
}

const EventSourceClass = FakeEventSource as unknown as typeof EventSource

function fetching(answer: () => Response | Promise<Response>) {
  return vi.fn<typeof fetch>(() => Promise.resolve(answer()))
}

function streamOf(...pieces: string[]): Response {
  const encoder = new TextEncoder()
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces) controller.enqueue(encoder.encode(piece))
      controller.close()
    },
  })
  return eventStream(body)
}

function eventStream(body: ReadableStream<Uint8Array>): Response {
  return new Response(body, { headers: { 'content-type': 'text/event-stream; charset=utf-8' } })
}

/** What a development server answers where it knows nothing better. */
function indexPage(): Response {
  return new Response('<!doctype html>', { headers: { 'content-type': 'text/html; charset=utf-8' } })
}

function connect(options: Partial<HttpTransportOptions>, lastEventId: string | null = null) {
  const heard: unknown[] = []
  const closed = new Promise<Error>((resolve) => {
    const handlers: ConnectionHandlers = {
      lastEventId,
      onOpen: () => heard.push('open'),
      onMessage: (data, id) => heard.push([data, id]),
      onMark: (id) => heard.push(id),
      onClose: resolve,
    }
    const transport = httpTransport({ api: '/api/durably/', ...options })
    const connection = transport.connect('/subscribe?runId=1', handlers)
    heard.push(connection)
  })
  return { heard, closed }
}

test('a request goes below the base path, with its body as JSON and the headers of the moment', async () => {
  let token = 'one'
  const send = fetching(() => new Response('{"error":"no"}', { status: 400, statusText: 'Bad Request' }))
  const transport = httpTransport({
    api: '/api/durably/',
    fetch: send,
    headers: () => ({ authorization: token }),
    credentials: 'include',
  })
  const answer = await transport.request({ method: 'POST', path: '/trigger', body: { input: null } })
  token = 'two'
  await transport.request({ method: 'GET', path: '/runs' })
  expect(answer).toMatchObject({ status: 400, statusText: 'Bad Request', body: '{"error":"no"}' })
  expect(send.mock.calls).toEqual([
    [
      '/api/durably/trigger',
      {
        method: 'POST',
        credentials: 'include',
        body: '{"input":null}',
        headers: { authorization: 'one', 'content-type': 'application/json' },
      },
    ],
    [
      '/api/durably/runs',
      { method: 'GET', credentials: 'include', signal: expect.any(AbortSignal) as AbortSignal, headers: { authorization: 'two' } },
    ],
  ])
})

test('headers may take their time, as a token that is renewed', async () => {
  const send = fetching(() => new Response('[]'))
  const headers = () => Promise.resolve({ authorization: 'fresh' })
  await httpTransport({ api: '/api', fetch: send, headers }).request({ method: 'GET', path: '/runs' })
  expect(send.mock.calls[0]?.[1]?.headers).toEqual({ authorization: 'fresh' })
})

test('streams use the EventSource of the platform, unless headers must be sent', async () => {
  vi.stubGlobal('EventSource', EventSourceClass)
  connect({})
  expect(FakeEventSource.opened.at(-1)?.url).toBe('/api/durably/subscribe?runId=1')
  const send = fetching(() => streamOf())
  connect({ headers: { 'x-org': 'acme' }, fetch: send })
  await vi.waitFor(() => expect(send).toHaveBeenCalled())
  expect(FakeEventSource.opened).toHaveLength(1)
  expect(send.mock.calls[0]?.[1]?.headers).toEqual({ 'x-org': 'acme', accept: 'text/event-stream' })
})

test('an EventSource is given up only when it does not reconnect by itself', async () => {
  const { heard, closed } = connect({ EventSource: EventSourceClass, credentials: 'include' })
  const source = FakeEventSource.opened.at(-1)!
  expect(source.withCredentials).toBe(true)
  source.onopen()
  source.onmessage({ data: 'a', lastEventId: '' })
  source.onmessage({ data: 'b', lastEventId: '7' })
  source.onerror()
  source.readyState = 2
  source.onerror()
  expect((await closed).message).toBe('The event stream /api/durably/subscribe?runId=1 was refused')
  expect(heard.slice(1)).toEqual(['open', ['a', null], ['b', '7']])
})

test('an EventSource that replaces another one says where to continue', () => {
  connect({ EventSource: EventSourceClass }, '4:1')
  expect(FakeEventSource.opened.at(-1)?.url).toBe('/api/durably/subscribe?runId=1&lastEventId=4%3A1')
})

test('a fetched stream says where to continue, and tells its messages until it ends', async () => {
  const send = fetching(() => streamOf('id: 5\nda', 'ta: a\n\n: comment\n\n', 'data: b\n\n'))
  const { heard, closed } = connect({ EventSource: null, fetch: send }, '4')
  expect((await closed).message).toBe('The server ended the stream')
  expect(heard.slice(1)).toEqual(['open', ['a', '5'], ['b', '5']])
  expect(send.mock.calls[0]?.[1]?.headers).toMatchObject({ 'last-event-id': '4' })
})

test('a stream whose reader fails is given back, not left to run on', async () => {
  const givenBack = vi.fn()
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new TextEncoder().encode('data: a\n\n')),
    cancel: givenBack,
  })
  const transport = httpTransport({ api: '', EventSource: null, fetch: fetching(() => eventStream(body)) })
  const closed = new Promise<Error>((resolve) => {
    transport.connect('/subscribe', {
      lastEventId: null,
      onOpen: () => {},
      onMessage: () => {
        throw new Error('a listener failed')
      },
      onMark: () => {},
      onClose: resolve,
    })
  })
  expect((await closed).message).toBe('a listener failed')
  expect(givenBack).toHaveBeenCalledOnce()
})

describe('of a server that falls silent', () => {
  const LONGEST_SILENCE_MS = 45_000
  let say: (text: string) => void
  let send: ReturnType<typeof fetching>

  beforeEach(() => {
    vi.useFakeTimers()
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        say = (text) => controller.enqueue(new TextEncoder().encode(text))
      },
    })
    send = fetching(() => eventStream(body))
  })

  afterEach(() => vi.useRealTimers())

  test('a fetched stream is given up, heartbeats being heard as well', async () => {
    const { closed } = connect({ EventSource: null, fetch: send })
    const given = vi.fn()
    void closed.then(given)
    await vi.advanceTimersByTimeAsync(LONGEST_SILENCE_MS - 1)
    say(': heartbeat\n\n')
    await vi.advanceTimersByTimeAsync(LONGEST_SILENCE_MS - 1)
    expect(given).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(1)
    expect((await closed).message).toBe('The server has fallen silent')
    expect(send.mock.calls[0]?.[1]?.signal?.aborted).toBe(true)
  })

  test('a stream that is closed says nothing of it', async () => {
    const { heard, closed } = connect({ EventSource: null, fetch: send })
    const given = vi.fn()
    void closed.then(given)
    await vi.advanceTimersByTimeAsync(0)
    ;(heard[0] as { close: () => void }).close()
    await vi.advanceTimersByTimeAsync(LONGEST_SILENCE_MS)
    expect([given.mock.calls, vi.getTimerCount()]).toEqual([[], 0])
  })
})

test('what is asked for is not waited for without end, but what is to be done is', async () => {
  const timeout = vi.spyOn(AbortSignal, 'timeout').mockReturnValue(AbortSignal.abort(new Error('no answer')))
  const send = vi.fn<typeof fetch>((_url, init) => {
    init?.signal?.throwIfAborted()
    return Promise.resolve(new Response('{"runId":"1","disposition":"created"}'))
  })
  const client = createDurablyClient({ api: '/api', fetch: send, EventSource: null })
  await expect(client.getRuns()).rejects.toThrow('no answer')
  await client.trigger('import-csv', {})
  expect(timeout.mock.calls).toEqual([[30_000]])
  timeout.mockRestore()
})

test('what is asked for can be given up earlier, but is not waited for without end then either', async () => {
  const limit = new AbortController()
  const timeout = vi.spyOn(AbortSignal, 'timeout').mockReturnValue(limit.signal)
  const silent = vi.fn<typeof fetch>(
    (_url, init) =>
      new Promise((_resolve, reject) => {
        init?.signal?.addEventListener('abort', () => reject(init.signal?.reason as Error))
      }),
  )
  const client = createDurablyClient({ api: '/api', fetch: silent })
  const givenUp = new AbortController()
  const [first, second] = [client.getRun('1', givenUp.signal), client.getRun('1', new AbortController().signal)]
  givenUp.abort(new Error('not wanted any more'))
  await expect(first).rejects.toThrow('not wanted any more')
  limit.abort(new Error('no answer'))
  await expect(second).rejects.toThrow('no answer')
  timeout.mockRestore()
})

test('a path has no host outside of a browser: that is said at once, and ends a wait', async () => {
  const client = createDurablyClient({ api: '/api/durably' })
  const text =
    'Outside of a browser `api` must be an absolute URL, such as https://example.com/api/durably: /api/durably'
  await expect(client.getRuns()).rejects.toThrow(InvalidAddressError)
  await expect(client.getRuns()).rejects.toThrow(text)
  await expect(client.waitForRun('1', { timeout: 1000 })).rejects.toThrow(new RunLostError('1', text))
})

test('a refused stream tells the status and the words of the server', async () => {
  const send = fetching(() => new Response('{"error":"Run not found"}', { status: 404 }))
  const error = await connect({ EventSource: null, fetch: send }).closed
  expect(error).toBeInstanceOf(ApiError)
  expect(error).toMatchObject({ status: 404, message: 'Run not found', isPermanent: true })
})

test('a page in place of an answer says where to look, and ends a wait', async () => {
  const client = createDurablyClient({ api: '/api', fetch: fetching(indexPage), EventSource: null })
  const text =
    'GET /api/run?runId=1 was answered with text/html that is not JSON: is the handler mounted elsewhere than `api` says?'
  await expect(client.getRun('1')).rejects.toThrow(text)
  await expect(client.waitForRun('1', { timeout: 1000 })).rejects.toThrow(new RunLostError('1', text))
})

describe('JSON of another service', () => {
  const answering = (body: string) => {
    const answer = () => new Response(body, { headers: { 'content-type': 'application/json' } })
    return createDurablyClient({ api: '/api', fetch: fetching(answer), EventSource: null })
  }
  type Client = ReturnType<typeof answering>

  test.each<[string, string, (client: Client) => Promise<unknown>]>([
    ['getRuns', 'an array of objects', (client) => client.getRuns()],
    ['getJobs', 'an array of objects', (client) => client.getJobs()],
    ['getSteps', 'an array of objects', (client) => client.getSteps('1')],
    ['getLogs', 'an array of objects', (client) => client.getLogs('1')],
    ['getRun', 'an object with `id`', (client) => client.getRun('1')],
    ['trigger', 'an object with `runId`', (client) => client.trigger('import-csv', {})],
    ['retrigger', 'an object with `runId`', (client) => client.retrigger('1')],
  ])('is not the answer to %s, which is %s', async (_name, expected, ask) => {
    for (const body of ['null', '{"a":1}', '[null]', '"text"']) {
      const asking = ask(answering(body))
      await expect(asking).rejects.toThrow(InvalidResponseError)
      await expect(asking).rejects.toThrow(`was answered with application/json that is not ${expected}: `)
    }
  })

  test('ends a wait', async () => {
    await expect(answering('null').waitForRun('1', { timeout: 1000 })).rejects.toThrow(RunLostError)
  })

  test('is what a list tells that it could not be fetched for', async () => {
    const list = answering('{"a":1}').observeRuns({ realtime: false })
    const stop = list.subscribe(() => {})
    await vi.waitFor(() => expect(list.getSnapshot().error).toMatch('is not an array of objects'))
    stop()
  })
})

test.each([
  [404, 'text/html', '<h1>Cannot GET</h1>'],
  [405, 'text/html', '<h1>Cannot GET</h1>'],
  [404, 'application/json', '{"detail":"Not Found"}'],
  [404, 'application/json', '{"statusCode":404,"message":"Cannot GET /run","error":"Not Found"}'],
  [404, 'text/plain', 'Not Found'],
  [404, 'text/plain', ''],
])('a %i of another server, %s %s, is not that of an unknown run', async (status, contentType, body) => {
  const answer = () => new Response(body, { status, headers: { 'content-type': contentType } })
  const client = createDurablyClient({ api: '/api', fetch: fetching(answer), EventSource: null })
  const text = `GET /api/run?runId=1 was answered with a bare ${status}: is the handler mounted elsewhere than \`api\` says?`
  await expect(client.getRun('1')).rejects.toThrow(text)
  await expect(client.waitForRun('1', { timeout: 1000 })).rejects.toThrow(text)
})

test('a framework in front of the handler speaks in its own form', async () => {
  const answer = () => new Response('{"detail":"Not authenticated"}', { status: 401 })
  const client = createDurablyClient({ api: '/api', fetch: fetching(answer) })
  await expect(client.getRun('1')).rejects.toThrow(/^Not authenticated$/)
})

test('an unknown run is none, also in the words of a hook that hides it', async () => {
  const client = (body: string) => createDurablyClient({ api: '/api', fetch: fetching(() => new Response(body, { status: 404 })) })
  expect(await client('{"error":"Run not found"}').getRun('1')).toBeNull()
  expect(await client('No such run of yours').getRun('1')).toBeNull()
})

test('the page that a proxy shows for an error is not the message of one', async () => {
  const page = () => new Response('<html>...</html>', { status: 502, statusText: 'Bad Gateway' })
  const client = createDurablyClient({ api: '/api', fetch: fetching(page) })
  await expect(client.getRuns()).rejects.toThrow(new ApiError(502, 'Bad Gateway'))
})

test('a stream that there is not says where it was asked for', async () => {
  const send = fetching(() => new Response('Not Found', { status: 404 }))
  const error = await connect({ EventSource: null, fetch: send }).closed
  expect(error.message).toBe(
    'GET /api/durably/subscribe?runId=1 was answered with a bare 404: is the handler mounted elsewhere than `api` says?',
  )
})

test('a page in place of a stream is not opened', async () => {
  const { heard, closed } = connect({ EventSource: null, fetch: fetching(indexPage) })
  expect((await closed).message).toMatch(
    'GET /api/durably/subscribe?runId=1 was answered with text/html that is not an event stream',
  )
  expect(heard.slice(1)).toEqual([])
})

test('a fetched stream that is closed ends its request, and says nothing more', async () => {
  const send = vi.fn<typeof fetch>(
    (_url, init) =>
      new Promise((_resolve, reject) => {
        init?.signal?.addEventListener('abort', () => reject(new Error('aborted')))
      }),
  )
  const { heard, closed } = connect({ EventSource: null, fetch: send })
  const [connection] = heard as [{ close: () => void }]
  connection.close()
  const silence = new Promise((resolve) => setTimeout(resolve, 10, 'silence'))
  expect(await Promise.race([closed, silence])).toBe('silence')
})
