/** What a hook needs: changes to listen to, and a snapshot that stays the same object between them. */
export interface Observable<TState> {
  readonly subscribe: (listener: () => void) => () => void
  readonly getSnapshot: () => TState
}

/** Holds one immutable state; works only while somebody listens. */
export abstract class Store<TState> implements Observable<TState> {
  readonly #listeners = new Set<() => void>()
  #state: TState

  constructor(initial: TState) {
    this.#state = initial
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    // Wrapped, so that the same function subscribed twice counts twice.
    const own = () => listener()
    this.#listeners.add(own)
    if (this.#listeners.size === 1) this.start()
    return () => {
      if (this.#listeners.delete(own) && this.#listeners.size === 0) this.stop()
    }
  }

  readonly getSnapshot = (): TState => this.#state

  protected abstract start(): void
  protected abstract stop(): void

  protected get isObserved(): boolean {
    return this.#listeners.size > 0
  }

  protected setState(next: TState): void {
    if (Object.is(next, this.#state)) return
    this.#state = next
    for (const listener of [...this.#listeners]) tell(listener)
  }
}

// What a listener throws must neither keep the news from the others, nor break off the stream or the refresh they
// came with. Node has no `reportError`: there it is uncaught, as it would be in an event emitter.
function tell(listener: () => void): void {
  try {
    listener()
  } catch (error) {
    if (typeof reportError === 'function') reportError(error)
    else
      setTimeout(() => {
        throw error
      })
  }
}
