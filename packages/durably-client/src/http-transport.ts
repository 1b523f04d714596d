import { connectByEventSource } from './event-source-connection.js'
import { InvalidAddressError } from './errors.js'
import { connectByFetch } from './fetch-connection.js'
import type {
  Connection,
  ConnectionHandlers,
  Transport,
  TransportRequest,
  TransportResponse,
} from './transport.js'

// On a connection that died unnoticed, which requests share, an answer never comes.
const LONGEST_ANSWER_MS = 30_000

type HeaderFields = Record<string, string>

export interface HttpTransportOptions {
  /** Base path or URL of the server, such as `/api/durably`. Outside of a browser a path has no host: there, a URL. */
  api: string
  /** Sent with every request. Streams are then read with fetch, as an EventSource cannot send headers. */
  headers?: HeaderFields | (() => HeaderFields | Promise<HeaderFields>) | undefined
  credentials?: 'include' | 'omit' | 'same-origin' | undefined
  fetch?: typeof fetch | undefined
  /** `null` reads streams with fetch everywhere. Default: the platform's EventSource, if there is one. */
  EventSource?: typeof EventSource | null | undefined
}

export function httpTransport(options: HttpTransportOptions): Transport {
  return new HttpTransport(options)
}

class HttpTransport implements Transport {
  readonly #options: HttpTransportOptions
  readonly #base: string

  constructor(options: HttpTransportOptions) {
    this.#options = options
    this.#base = options.api.replace(/\/+$/, '')
  }

  async request({ method, path, body, signal }: TransportRequest): Promise<TransportResponse> {
    // What changes something is not given up: it may have happened.
    const until = method === 'GET' ? withLimit(signal) : signal
    const response = await this.#fetch(path, {
      method,
      ...(until && { signal: until }),
      ...(body !== undefined && {
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json' },
      }),
    })
    const { status, statusText, headers } = response
    const contentType = headers.get('content-type')
    return { url: this.#base + path, status, statusText, contentType, body: await response.text() }
  }

  connect(path: string, handlers: ConnectionHandlers): Connection {
    const EventSourceClass = this.#eventSourceClass()
    if (EventSourceClass) {
      const url = this.#base + withLastEventId(path, handlers.lastEventId)
      return connectByEventSource(EventSourceClass, url, this.#sendsCookiesAcrossOrigins(), handlers)
    }
    const url = this.#base + path
    return connectByFetch(url, (signal) => this.#fetchStream(path, handlers.lastEventId, signal), handlers)
  }

  #eventSourceClass(): typeof EventSource | null {
    const { EventSource: chosen, headers } = this.#options
    if (chosen !== undefined) return chosen
    return headers === undefined && typeof EventSource === 'function' ? EventSource : null
  }

  #sendsCookiesAcrossOrigins(): boolean {
    return this.#options.credentials === 'include'
  }

  #fetchStream(path: string, lastEventId: string | null, signal: AbortSignal): Promise<Response> {
    return this.#fetch(path, {
      signal,
      cache: 'no-store',
      headers: {
        accept: 'text/event-stream',
        ...(lastEventId !== null && { 'last-event-id': lastEventId }),
      },
    })
  }

  async #fetch(path: string, init: FetchInit): Promise<Response> {
    const { fetch: chosen, headers, credentials } = this.#options
    // Looked up per call, so that a fetch installed later (tests, instrumentation) is the one that is used.
    const send = chosen ?? globalThis.fetch
    const own = typeof headers === 'function' ? await headers() : headers
    try {
      return await send(this.#base + path, {
        ...init,
        ...(credentials && { credentials }),
        headers: { ...own, ...init.headers },
      })
    } catch (error) {
      throw isInvalidUrl(error) ? new InvalidAddressError(this.#options.api, error) : error
    }
  }
}

function withLimit(signal: AbortSignal | undefined): AbortSignal {
  const limit = AbortSignal.timeout(LONGEST_ANSWER_MS)
  return signal ? AbortSignal.any([signal, limit]) : limit
}

// Asked of the error and not of the address: a fetch of one's own may know the host of a path.
function isInvalidUrl(error: unknown): boolean {
  const { cause } = (error ?? {}) as { cause?: { code?: unknown } | null }
  return cause?.code === 'ERR_INVALID_URL'
}

type FetchInit = Omit<RequestInit, 'headers'> & { headers?: HeaderFields }

// A new EventSource cannot be told the header with which its predecessor would have reconnected.
function withLastEventId(path: string, lastEventId: string | null): string {
  if (lastEventId === null) return path
  const separator = path.includes('?') ? '&' : '?'
  return `${path}${separator}lastEventId=${encodeURIComponent(lastEventId)}`
}
