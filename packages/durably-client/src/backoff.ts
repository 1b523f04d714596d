const FIRST_MS = 500
const LONGEST_MS = 30_000

/** How long to wait before attempt number `attempt` (from 0). Half of it is random, so that
 * the clients of a restarted server do not all come back at the same moment. */
export function reconnectDelay(attempt: number, random: () => number = Math.random): number {
  const ceiling = Math.min(LONGEST_MS, FIRST_MS * 2 ** attempt)
  return ceiling * (0.5 + random() / 2)
}

/** Does something again, later and later, until it succeeds or is no longer wanted. */
export class Backoff {
  #failures = 0
  #timer: ReturnType<typeof setTimeout> | undefined

  get isWaiting(): boolean {
    return this.#timer !== undefined
  }

  /** How often it has failed since it last succeeded. */
  get failures(): number {
    return this.#failures
  }

  retry(attempt: () => void): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      attempt()
    }, reconnectDelay(this.#failures++))
  }

  /** Forgets what waits, and that anything has failed. */
  reset(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#failures = 0
  }
}
