import { Backoff } from './backoff.js'
import { isPermanent } from './errors.js'
import { parseEvent, type DurablyEvent } from './events.js'
import type { Connection, Transport } from './transport.js'
import { onWake } from './wake.js'

export interface StreamListener {
  onEvent(event: DurablyEvent): void
  /** The stream is open: at once for whoever joins an open one, and again after each reconnect. */
  onOpen?(): void
  /** The connection was lost, or refused before it was open: then at once for whoever joins, too. It comes back by
   * itself, unless the refusal is permanent. */
  onDrop?(error: Error, wasRefused: boolean): void
}

const STABLE_MS = 5_000

/** One connection for any number of listeners: opened for the first, kept alive, closed after the last. */
export class EventStream {
  readonly #transport: Transport
  readonly #path: string
  readonly #onClosed: () => void
  readonly #listeners = new Set<StreamListener>()
  readonly #backoff = new Backoff()
  #connection: Connection | null = null
  #attempt = 0
  #isOpen = false
  #refusal: Error | null = null
  #openedAt = 0
  #lastEventId: string | null = null
  #release: ReturnType<typeof setTimeout> | undefined
  #stopWaking: (() => void) | null = null

  constructor(transport: Transport, path: string, onClosed: () => void) {
    this.#transport = transport
    this.#path = path
    this.#onClosed = onClosed
  }

  subscribe(listener: StreamListener): () => void {
    clearTimeout(this.#release)
    this.#listeners.add(listener)
    this.#stopWaking ??= onWake(() => this.#renew())
    if (this.#isOpen) listener.onOpen?.()
    else if (this.#backoff.isWaiting && this.#refusal) listener.onDrop?.(this.#refusal, true)
    else this.#connectUnlessWaiting()
    return () => this.#unsubscribe(listener)
  }

  /** Connects at once, where it waits for its turn or was refused for good. */
  retry(): void {
    if (this.#connection !== null) return
    this.#backoff.reset()
    this.#connect()
  }

  #unsubscribe(listener: StreamListener): void {
    if (!this.#listeners.delete(listener) || this.#listeners.size > 0) return
    // Not at once: React remounts (StrictMode, a changed key) leave and come back within one task.
    this.#release = setTimeout(() => this.#close(), 0)
  }

  #connectUnlessWaiting(): void {
    if (this.#connection === null && !this.#backoff.isWaiting) this.#connect()
  }

  #connect(): void {
    const attempt = ++this.#attempt
    // A transport may answer before it has returned, when whoever subscribed is not ready either.
    const early: (() => void)[] = []
    let isConnecting = true
    // A connection that was closed or replaced may still have something to say.
    const ifCurrent = (react: () => void) => {
      const reactIfCurrent = () => {
        if (attempt === this.#attempt) react()
      }
      if (isConnecting || early.length > 0) early.push(reactIfCurrent)
      else reactIfCurrent()
    }
    this.#connection = this.#transport.connect(this.#path, {
      lastEventId: this.#lastEventId,
      onOpen: () => ifCurrent(() => this.#opened()),
      onMessage: (data, id) => ifCurrent(() => this.#received(data, id)),
      onMark: (id) =>
        ifCurrent(() => {
          this.#lastEventId = id
        }),
      onClose: (error) => ifCurrent(() => this.#dropped(error)),
    })
    isConnecting = false
    if (early.length > 0) {
      queueMicrotask(() => {
        for (const react of early.splice(0)) react()
      })
    }
  }

  // What seems to be open may be dead, and what waits for its turn has waited long enough.
  #renew(): void {
    const isRefusedForGood = this.#connection === null && !this.#backoff.isWaiting
    if (isRefusedForGood) return
    this.#backoff.reset()
    this.#connection?.close()
    this.#isOpen = false
    this.#connect()
  }

  #opened(): void {
    this.#isOpen = true
    this.#refusal = null
    this.#openedAt = Date.now()
    for (const listener of [...this.#listeners]) listener.onOpen?.()
  }

  #received(data: string, id: string | null): void {
    this.#lastEventId = id
    const event = parseEvent(data)
    if (event === null) return
    for (const listener of [...this.#listeners]) listener.onEvent(event)
  }

  #dropped(error: Error): void {
    // A server that accepts streams only to end them at once counts as one that is away.
    if (this.#isOpen && Date.now() - this.#openedAt >= STABLE_MS) this.#backoff.reset()
    const wasRefused = !this.#isOpen
    if (wasRefused) this.#refusal = error
    this.#isOpen = false
    this.#connection = null
    if (!isPermanent(error)) this.#backoff.retry(() => this.#connect())
    for (const listener of [...this.#listeners]) listener.onDrop?.(error, wasRefused)
  }

  #close(): void {
    this.#stopWaking?.()
    this.#stopWaking = null
    this.#backoff.reset()
    this.#attempt++
    this.#connection?.close()
    this.#connection = null
    this.#isOpen = false
    this.#onClosed()
  }
}
