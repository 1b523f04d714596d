import type { DurablyApi } from './api.js'
import { Backoff } from './backoff.js'
import { CoalescedTask } from './coalesced-task.js'
import { asError, isPermanent, refusalText } from './errors.js'
import { endsRun, type DurablyEvent } from './events.js'
import type { RunFilter } from './queries.js'
import { reduceRuns } from './reducer.js'
import type { ClientRun, Progress } from './runs.js'
import { Store } from './store.js'
import type { EventStreams } from './streams.js'

export interface RunListQuery extends Omit<RunFilter, 'limit' | 'offset'> {
  /** Runs per page. Default: 10. */
  pageSize?: number | undefined
  /** Keep the first page up to date as events arrive. Default: true. */
  realtime?: boolean | undefined
}

export interface RunListState<TRun extends ClientRun = ClientRun> {
  readonly runs: readonly TRun[]
  readonly page: number
  readonly hasMore: boolean
  readonly isLoading: boolean
  readonly error: string | null
}

const PAGE_SIZE = 10
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
  readonly #filter: Omit<RunListQuery, 'pageSize' | 'realtime'>
  #pageSize: number
  #realtime: boolean
  readonly #refreshSoon = new CoalescedTask(() => this.#load(), REFRESH_INTERVAL_MS)
  readonly #backoff = new Backoff()
  #latestLoad = 0
  #loadedPage = 0
  // What was told since the latest load was asked for: its answer may be older.
  #sinceAsked: DurablyEvent[] | null = null
  // As heard since the stream was opened, without a gap. Progress is stored less often than it is told.
  readonly #liveProgress = new Map<string, Progress>()
  #leaveStream: (() => void) | null = null
  #streamRefusal: string | null = null

  constructor(
    api: DurablyApi,
    streams: EventStreams,
    { pageSize = PAGE_SIZE, realtime = true, ...filter }: RunListQuery = {},
  ) {
    super({ runs: [], page: 0, hasMore: false, isLoading: true, error: null })
    this.#api = api
    this.#streams = streams
    this.#filter = filter
    this.#pageSize = pageSize
    this.#realtime = realtime
  }

  /** Begins again with the first page; what is shown stays until that is there. */
  setPageSize(pageSize = PAGE_SIZE): void {
    if (this.#pageSize === pageSize) return
    this.#pageSize = pageSize
    if (this.isObserved) this.goToPage(0)
  }

  setRealtime(realtime = true): void {
    if (this.#realtime === realtime) return
    this.#realtime = realtime
    if (!this.isObserved) return
    // Nobody misses what is switched off.
    if (this.#streamRefusal === this.getSnapshot().error) this.#patch({ error: null })
    this.#followFirstPage()
  }

  readonly nextPage = (): void => {
    const { page, hasMore } = this.getSnapshot()
    // Until the page is there, `hasMore` is about the one before.
    if (hasMore && page === this.#loadedPage) this.goToPage(page + 1)
  }

  readonly prevPage = (): void => this.goToPage(this.getSnapshot().page - 1)

  readonly goToPage = (page: number): void => {
    this.#patch({ page: Math.max(0, Math.trunc(page) || 0) })
    void this.refresh()
  }

  readonly refresh = async (): Promise<void> => {
    this.#patch({ isLoading: true })
    // Not even a permanent refusal is for ever: whoever asks again may have signed in meanwhile.
    if (this.#streamRefusal) {
      this.#leave()
      this.#streams.ofRuns(this.#filter).retry()
    }
    if (this.isObserved) this.#followFirstPage()
    await this.#load()
  }

  protected start(): void {
    void this.refresh()
  }

  protected stop(): void {
    this.#leave()
    this.#latestLoad++
  }

  #followFirstPage(): void {
    const wanted = this.#realtime && this.getSnapshot().page === 0
    if (!wanted) this.#leave()
    else this.#leaveStream ??= this.#follow()
  }

  #follow(): () => void {
    return this.#streams.ofRuns(this.#filter).subscribe({
      onEvent: (event) => this.#receive(event),
      onOpen: () => this.#opened(),
      onDrop: (error, wasRefused) => this.#dropped(error, wasRefused),
    })
  }

  #leave(): void {
    this.#leaveStream?.()
    this.#leaveStream = null
    this.#refreshSoon.cancel()
    this.#backoff.reset()
    this.#liveProgress.clear()
    this.#streamRefusal = null
  }

  // What happened between the first load, or a lost connection, and this moment was told to nobody.
  #opened(): void {
    this.#liveProgress.clear()
    this.#streamRefusal = null
    this.#refreshSoon.request()
  }

  #dropped(error: Error, wasRefused: boolean): void {
    if (wasRefused) this.#streamRefusal = refusalText(error)
    // Tells it, unless the list is refused as well: then that is what to tell.
    this.#refreshSoon.request()
  }

  #receive(event: DurablyEvent): void {
    this.#sinceAsked?.push(event)
    if (event.type === 'run:progress') this.#liveProgress.set(event.runId, event.progress)
    else if (endsRun(event)) this.#liveProgress.delete(event.runId)
    const { runs } = this.getSnapshot()
    const next = reduceRuns(runs, event) as readonly TRun[]
    if (next.some((run, i) => run !== runs[i]) || next.length !== runs.length) this.#patch({ runs: next })
    // Events of this stream are slim: who is on the page, times and outputs only the server knows.
    if (changesPage(event, runs)) this.#refreshSoon.request()
  }

  async #load(): Promise<void> {
    const load = ++this.#latestLoad
    const sinceAsked: DurablyEvent[] = []
    this.#sinceAsked = sinceAsked
    const pageSize = this.#pageSize
    const { page } = this.getSnapshot()
    try {
      // One more than a page tells whether there is another page.
      const found = await this.#api.getRuns({
        ...this.#filter,
        limit: pageSize + 1,
        offset: page * pageSize,
      })
      if (load !== this.#latestLoad) return
      this.#backoff.reset()
      this.#loadedPage = page
      const runs = this.#upToDate(found.slice(0, pageSize), sinceAsked) as readonly TRun[]
      this.#patch({ runs, hasMore: found.length > pageSize, isLoading: false, error: this.#streamRefusal })
    } catch (error) {
      if (load === this.#latestLoad) this.#failed(asError(error))
    } finally {
      if (load === this.#latestLoad) this.#sinceAsked = null
    }
  }

  #failed(error: Error): void {
    const isRefused = isPermanent(error)
    // The runs that are shown are those of the page that was loaded.
    const page = isRefused ? this.#loadedPage : this.getSnapshot().page
    this.#patch({ page, isLoading: false, error: error.message })
    // The next event may be far off, and on a later page there are none.
    if (this.isObserved && !isRefused) this.#backoff.retry(() => this.#refreshSoon.request())
  }

  #upToDate(found: readonly ClientRun[], since: readonly DurablyEvent[]): readonly ClientRun[] {
    const live = found.map((run) => {
      const progress = run.status === 'leased' ? this.#liveProgress.get(run.id) : undefined
      return progress ? { ...run, progress } : run
    })
    return since.reduce(reduceRuns, live)
  }

  #patch(change: Partial<RunListState<TRun>>): void {
    this.setState({ ...this.getSnapshot(), ...change })
  }
}

function changesPage(event: DurablyEvent, shown: readonly ClientRun[]): boolean {
  if (event.type === 'step:complete') return shown.some((run) => run.id === event.runId)
  return CHANGES_PAGE.has(event.type)
}
