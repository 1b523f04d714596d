/** Repeats a task on request: one at a time, and never more often than the interval, however many ask. */
export class CoalescedTask {
  readonly #task: () => Promise<void>
  readonly #intervalMs: number
  #isBusy = false
  #isWanted = false

  constructor(task: () => Promise<void>, intervalMs: number) {
    this.#task = task
    this.#intervalMs = intervalMs
  }

  request(): void {
    this.#isWanted = true
    if (!this.#isBusy) void this.#run()
  }

  /** Forget what was requested and has not begun. What runs is waited for all the same. */
  cancel(): void {
    this.#isWanted = false
  }

  async #run(): Promise<void> {
    this.#isBusy = true
    this.#isWanted = false
    await this.#task()
    setTimeout(() => {
      this.#isBusy = false
      if (this.#isWanted) void this.#run()
    }, this.#intervalMs)
  }
}
