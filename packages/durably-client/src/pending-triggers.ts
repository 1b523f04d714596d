/**
 * The triggers of one observer that are not yet answered. Each shows something of its own meanwhile; when they are
 * refused, what was shown before the first of them is shown again.
 */
export class PendingTriggers<TRun extends { runId: string | null }> {
  readonly #waiting = new Set<TRun>()
  // The runs that were told of since the first of them began.
  readonly #toldSince = new Set<string>()
  #before: TRun

  constructor(shown: TRun) {
    this.#before = shown
  }

  begin(waiting: TRun, shown: TRun): void {
    if (this.#waiting.size === 0) this.#toldSince.clear()
    if (!this.#waiting.has(shown)) this.#before = shown
    this.#waiting.add(waiting)
  }

  /** Takes the answer of one; tells whether it is still wanted. */
  settle(waiting: TRun): boolean {
    return this.#waiting.delete(waiting)
  }

  /** What is told of while triggers wait may be newer than the runs that they will make. */
  tell(runId: string): void {
    if (this.#waiting.size > 0) this.#toldSince.add(runId)
  }

  /** No answer is wanted any more. */
  forget(): void {
    this.#waiting.clear()
  }

  includes(shown: TRun): boolean {
    return this.#waiting.has(shown)
  }

  goBackTo(run: TRun): void {
    this.#before = run
  }

  /** What to show when the latest is refused. */
  get fallback(): TRun {
    return [...this.#waiting].at(-1) ?? this.#before
  }

  /**
   * Whether `shown`, which was told of meanwhile, may be older than the run that answers a trigger. Runs are told of in
   * their order: one that is told of after ours is newer. But of ours nothing may be told, as an idempotent trigger
   * creates none.
   */
  mayBeOlder({ runId }: TRun, answer: string): boolean {
    return runId !== null && this.#toldSince.has(runId) && !this.#toldSince.has(answer)
  }
}
