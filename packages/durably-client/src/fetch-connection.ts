import { asError, notExpected, refusal } from './errors.js'
import { ServerSentEventParser } from './sse-parser.js'
import type { Connection, ConnectionHandlers } from './transport.js'

// The server says something every 15 seconds, if only a comment. Who says nothing for three times as long is gone, though
// nobody closed the connection: this machine slept, or something on the way has forgotten it.
const LONGEST_SILENCE_MS = 45_000

/** Reads an event stream from a fetch body: where there is no EventSource, or it cannot send what is needed. */
export function connectByFetch(
  url: string,
  fetchStream: (signal: AbortSignal) => Promise<Response>,
  handlers: ConnectionHandlers,
): Connection {
  const abort = new AbortController()
  let silence: ReturnType<typeof setTimeout>
  const heard = () => {
    clearTimeout(silence)
    silence = setTimeout(() => end(new Error('The server has fallen silent')), LONGEST_SILENCE_MS)
  }
  const close = () => {
    clearTimeout(silence)
    abort.abort()
  }
  const end = (error: Error) => {
    close()
    handlers.onClose(error)
  }
  heard()
  void readStream(url, () => fetchStream(abort.signal), handlers, heard).catch((error: unknown) => {
    if (!abort.signal.aborted) end(asError(error))
  })
  return { close }
}

async function readStream(
  url: string,
  fetchStream: () => Promise<Response>,
  handlers: ConnectionHandlers,
  heard: () => void,
): Promise<never> {
  const response = await fetchStream()
  if (!response.ok || response.body === null) {
    throw refusal(`GET ${url}`, response.status, response.statusText, await response.text())
  }
  const contentType = response.headers.get('content-type')
  if (!contentType?.startsWith('text/event-stream')) {
    response.body.cancel().catch(() => undefined)
    throw notExpected(`GET ${url}`, contentType, 'an event stream')
  }
  handlers.onOpen()
  const parser = new ServerSentEventParser(
    (message) => handlers.onMessage(message.data, message.id),
    (id) => handlers.onMark(id),
    handlers.lastEventId,
  )
  for await (const text of chunksOf(response.body)) {
    heard()
    parser.push(text)
  }
  throw new Error('The server ended the stream')
}

async function* chunksOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      yield decoder.decode(value, { stream: true })
    }
  } finally {
    // Whoever stopped reading early leaves a connection on which the server goes on sending. Not waited for, and
    // not listened to: it must not stand in for the error that ended the reading.
    reader.cancel().catch(() => undefined)
  }
}
