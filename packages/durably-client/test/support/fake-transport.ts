import type {
  Connection,
  ConnectionHandlers,
  DurablyEvent,
  Transport,
  TransportRequest,
  TransportResponse,
} from 'durably-client'

export class FakeConnection implements Connection {
  readonly path: string
  readonly #handlers: ConnectionHandlers
  isClosed = false

  constructor(path: string, handlers: ConnectionHandlers) {
    this.path = path
    this.#handlers = handlers
  }

  get lastEventId(): string | null {
    return this.#handlers.lastEventId
  }

  open(): void {
    this.#handlers.onOpen()
  }

  send(event: Partial<DurablyEvent>, id: string | null = null): void {
    this.sendText(JSON.stringify(event), id)
  }

  sendText(data: string, id: string | null = null): void {
    if (!this.isClosed) this.#handlers.onMessage(data, id)
  }

  mark(id: string): void {
    this.#handlers.onMark(id)
  }

  drop(error: Error = new Error('connection lost')): void {
    this.#handlers.onClose(error)
  }

  close(): void {
    this.isClosed = true
  }
}

type Answer = { status?: number; body: unknown }

/** A server in memory: answers what a test tells it to, and hands out its connections. */
export class FakeTransport implements Transport {
  readonly requests: TransportRequest[] = []
  readonly connections: FakeConnection[] = []
  readonly #answers = new Map<string, () => Answer | Promise<Answer>>()

  /** The answer to every request whose method and path begin like this: `GET /run?`. */
  answer(start: string, answer: Answer | (() => Answer | Promise<Answer>)): this {
    this.#answers.set(start, typeof answer === 'function' ? answer : () => answer)
    return this
  }

  async request(request: TransportRequest): Promise<TransportResponse> {
    this.requests.push(request)
    const line = `${request.method} ${request.path}`
    const start = [...this.#answers.keys()].findLast((key) => line.startsWith(key))
    const answering = start === undefined ? undefined : this.#answers.get(start)?.()
    const answer = await Promise.race([answering, ...whenAborted(request.signal)])
    if (!answer) return { status: 404, statusText: 'Not Found', body: '{"error":"Run not found"}' }
    const { status = 200, body } = answer
    return { status, statusText: '', body: typeof body === 'string' ? body : JSON.stringify(body) }
  }

  connect(path: string, handlers: ConnectionHandlers): FakeConnection {
    const connection = new FakeConnection(path, handlers)
    this.connections.push(connection)
    return connection
  }

  asked(start: string): TransportRequest[] {
    return this.requests.filter(({ method, path }) => `${method} ${path}`.startsWith(start))
  }

  get live(): FakeConnection[] {
    return this.connections.filter((connection) => !connection.isClosed)
  }

  /** The latest connection that is still wanted to this path. */
  stream(start: string): FakeConnection {
    const found = this.live.findLast(({ path }) => path.startsWith(start))
    if (!found) throw new Error(`Nobody is connected to ${start}`)
    return found
  }
}

function whenAborted(signal: AbortSignal | undefined): Promise<never>[] {
  if (!signal) return []
  return [
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error))
    }),
  ]
}
