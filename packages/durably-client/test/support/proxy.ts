import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Stands between a client and the server, and does to the connections what a network does. */
export class Proxy {
  readonly #target: string
  readonly #pages: ReadonlyMap<string, { type: string; body: string }>
  readonly #server: Server
  readonly #forgetting = new Set<() => void>()
  #isDown = false
  /** Event streams that the server has opened, as `PATH last-event-id`. */
  readonly streams: string[] = []
  /** Those of them that are open now. */
  readonly openStreams = new Set<string>()

  constructor(target: string, pages: Record<string, { type: string; body: string }> = {}) {
    this.#target = target
    this.#pages = new Map(Object.entries(pages))
    this.#server = createServer((incoming, outgoing) => this.#handle(incoming, outgoing))
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Cuts every connection there is. */
  cut(): void {
    this.#server.closeAllConnections()
  }

  /** Forgets the connections that are open, as a NAT does: neither side is told, and nothing gets through. */
  forget(): void {
    for (const forget of this.#forgetting) forget()
  }

  /** From now on answers 503, as a proxy does while the server behind it restarts. */
  goDown(): void {
    this.#isDown = true
    this.cut()
  }

  comeBack(): void {
    this.#isDown = false
  }

  close(): void {
    this.#server.close()
    this.cut()
  }

  #handle(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const url = incoming.url ?? '/'
    const page = this.#pages.get(url)
    if (page) outgoing.writeHead(200, { 'content-type': page.type }).end(page.body)
    else if (this.#isDown) outgoing.writeHead(503).end('restarting')
    else this.#forward(url, incoming, outgoing)
  }

  #forward(url: string, incoming: IncomingMessage, outgoing: ServerResponse): void {
    const { method, headers } = incoming
    const onward = request(this.#target + url, { method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      outgoing.flushHeaders()
      if (url.includes('/subscribe')) this.#record(url, headers['last-event-id'], outgoing)
      answer.pipe(outgoing)
      const forget = () => {
        answer.unpipe(outgoing)
        answer.resume()
      }
      this.#forgetting.add(forget)
      outgoing.on('close', () => this.#forgetting.delete(forget))
    })
    onward.on('error', () => outgoing.destroy())
    outgoing.on('close', () => onward.destroy())
    incoming.pipe(onward)
  }

  #record(url: string, lastEventId: string | string[] | undefined, outgoing: ServerResponse): void {
    this.streams.push(`${url} ${lastEventId?.toString() ?? ''}`)
    this.openStreams.add(url)
    outgoing.on('close', () => this.openStreams.delete(url))
  }
}
