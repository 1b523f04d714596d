import type { DurablyApi } from './api.js'
import { CoalescedTask } from './coalesced-task.js'
import type { DurablyEvent } from './events.js'
import type { RunFilter } from './queries.js'
import { reduceRuns } from './reducer.js'
import type { ClientRun } from './runs.js'
import { Store } from './store.js'
import type { EventStreams } from './streams.js'

export interface RunListQuery extends Omit<RunFilter, 'limit' | 'offset'> {
  /** Runs per page. Default: 10. */
  pageSize?: number
  /** Keep the first page up to date as events arrive. Default: true. */
  realtime?: boolean
}

export interface RunListState<TRun extends ClientRun = ClientRun> {
  readonly runs: readonly TRun[]
  readonly page: number
  readonly hasMore: boolean
  readonly isLoading: boolean
  readonly error: string | null
}

const REFRESH_INTERVAL_MS = 200

const CHANGES_PAGE: ReadonlySet<DurablyEvent['type']> = new Set([
  'run:trigger',
  'run:leased',
  'run:complete',
  'run:fail',
  'run:cancel',
  'run:delete',
])

/** Shows one page of runs at a time, newest first. Later pages stand still: they would shift while being read. */
export class RunListObserver<TRun extends ClientRun = ClientRun> extends Store<RunListState<TRun>> {
  readonly #api: DurablyApi
  readonly #streams: EventStreams
  readonly #query: RunListQuery
  readonly #refreshSoon = new CoalescedTask(() => this.#load(), REFRESH_INTERVAL_MS)
  #latestLoad = 0
  #leaveStream: (() => void) | null = null

  constructor(api: DurablyApi, streams: EventStreams, query: RunListQuery = {}) {
    super({ runs: [], page: 0, hasMore: false, isLoading: true, error: null })
    this.#api = api
    this.#streams = streams
    this.#query = query
  }

  readonly nextPage = (): void => {
    const { page, hasMore } = this.getSnapshot()
    if (hasMore) this.goToPage(page + 1)
  }

  readonly prevPage = (): void => this.goToPage(this.getSnapshot().page - 1)

  readonly goToPage = (page: number): void => {
    this.#patch({ page: Math.max(0, Math.trunc(page)) })
    if (this.isObserved) this.#followFirstPage()
    void this.refresh()
  }

  readonly refresh = async (): Promise<void> => {
    this.#patch({ isLoading: true })
    await this.#load()
  }

  protected start(): void {
    this.#followFirstPage()
    void this.refresh()
  }

  protected stop(): void {
    this.#leave()
    this.#latestLoad++
  }

  #followFirstPage(): void {
    const wanted = (this.#query.realtime ?? true) && this.getSnapshot().page === 0
    if (!wanted) this.#leave()
    else this.#leaveStream ??= this.#follow()
  }

  #follow(): () => void {
    return this.#streams.ofRuns(this.#query).subscribe({
      onEvent: (event) => this.#receive(event),
      // What happened between the first load, or a lost connection, and this moment was told to nobody.
      onOpen: () => this.#refreshSoon.request(),
      onDrop: () => this.#refreshSoon.request(),
    })
  }

  #leave(): void {
    this.#leaveStream?.()
    this.#leaveStream = null
    this.#refreshSoon.cancel()
  }

  #receive(event: DurablyEvent): void {
    const { runs } = this.getSnapshot()
    const next = reduceRuns(runs, event) as readonly TRun[]
    if (next.some((run, i) => run !== runs[i]) || next.length !== runs.length) this.#patch({ runs: next })
    // Events of this stream are slim: who is on the page, times and outputs only the server knows.
    if (changesPage(event, runs)) this.#refreshSoon.request()
  }

  async #load(): Promise<void> {
    const load = ++this.#latestLoad
    const { jobName, status, labels, pageSize = 10 } = this.#query
    const { page } = this.getSnapshot()
    try {
      // One more than a page tells whether there is another page.
      const found = await this.#api.getRuns({
        ...(jobName !== undefined && { jobName }),
        ...(status !== undefined && { status }),
        ...(labels !== undefined && { labels }),
        limit: pageSize + 1,
        offset: page * pageSize,
      })
      if (load !== this.#latestLoad) return
      const runs = found.slice(0, pageSize) as TRun[]
      this.#patch({ runs, hasMore: found.length > pageSize, isLoading: false, error: null })
    } catch (error) {
      if (load === this.#latestLoad) this.#patch({ isLoading: false, error: messageOf(error) })
    }
  }

  #patch(change: Partial<RunListState<TRun>>): void {
    this.setState({ ...this.getSnapshot(), ...change })
  }
}

function changesPage(event: DurablyEvent, shown: readonly ClientRun[]): boolean {
  if (event.type === 'step:complete') return shown.some((run) => run.id === event.runId)
  return CHANGES_PAGE.has(event.type)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
