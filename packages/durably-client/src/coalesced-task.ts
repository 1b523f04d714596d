/** Repeats a task on request: one at a time, and never more often than the interval, however many ask. */
export class CoalescedTask {
  readonly #task: () => Promise<void>
  readonly #intervalMs: number
  #isBusy = false
  #isWanted = false
  #cooldown: ReturnType<typeof setTimeout> | undefined

  constructor(task: () => Promise<void>, intervalMs: number) {
    this.#task = task
    this.#intervalMs = intervalMs
  }

  request(): void {
    this.#isWanted = true
    if (!this.#isBusy) void this.#run()
  }

  cancel(): void {
    clearTimeout(this.#cooldown)
    this.#isBusy = false
    this.#isWanted = false
  }

  async #run(): Promise<void> {
    this.#isBusy = true
    this.#isWanted = false
    await this.#task()
    this.#cooldown = setTimeout(() => {
      this.#isBusy = false
      if (this.#isWanted) void this.#run()
    }, this.#intervalMs)
  }
}
