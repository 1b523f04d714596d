import { EventStream } from './event-stream.js'
import { runPath, subscribePath, type RunsSubscribeFilter } from './queries.js'
import type { Transport } from './transport.js'

/** The event streams of one client. Equal streams are one: browsers allow six connections to a host. */
export class EventStreams {
  readonly #transport: Transport
  readonly #streams = new Map<string, EventStream>()

  constructor(transport: Transport) {
    this.#transport = transport
  }

  ofRun(runId: string): EventStream {
    return this.#at(runPath('/subscribe', runId))
  }

  ofRuns(filter: RunsSubscribeFilter): EventStream {
    return this.#at(subscribePath(filter))
  }

  #at(path: string): EventStream {
    const existing = this.#streams.get(path)
    if (existing) return existing
    const stream = new EventStream(this.#transport, path, () => this.#streams.delete(path))
    this.#streams.set(path, stream)
    return stream
  }
}
