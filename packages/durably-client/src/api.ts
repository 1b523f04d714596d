import { ApiError, notExpected, refusal } from './errors.js'
import { runPath, runsPath, type RunFilter } from './queries.js'
import type { ClientRun, JobInfo, Labels, LogEntry, StepRecord } from './runs.js'
import { anything, objects, objectWith, type Shape } from './shapes.js'
import type { Transport, TransportRequest } from './transport.js'

export interface TriggerOptions {
  idempotencyKey?: string | undefined
  concurrencyKey?: string | undefined
  coalesce?: 'skip' | undefined
  labels?: Labels | undefined
}

export interface TriggerResult {
  runId: string
  disposition: 'created' | 'idempotent' | 'coalesced'
}

/** The trigger options among others: nothing else may reach the server. */
function triggerOptionsOf(options: TriggerOptions): TriggerOptions {
  const { idempotencyKey, concurrencyKey, coalesce, labels } = options
  return {
    ...(idempotencyKey !== undefined && { idempotencyKey }),
    ...(concurrencyKey !== undefined && { concurrencyKey }),
    ...(coalesce !== undefined && { coalesce }),
    ...(labels !== undefined && { labels }),
  }
}

interface StoredLog extends Omit<LogEntry, 'timestamp' | 'data'> {
  data?: unknown
  createdAt: string
}

/** The endpoints of a Durably server, one method each. All reject with an `ApiError` when it says no, and
 * with an `InvalidResponseError` when something else answers. */
export class DurablyApi {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** An aborted trigger may have been accepted all the same. */
  trigger(
    jobName: string,
    input: unknown,
    options: TriggerOptions = {},
    signal?: AbortSignal,
  ): Promise<TriggerResult> {
    const body = { jobName, input, ...triggerOptionsOf(options) }
    return this.#call({ method: 'POST', path: '/trigger', body, ...(signal && { signal }) }, objectWith('runId'))
  }

  getJobs(): Promise<JobInfo[]> {
    return this.#get('/jobs', objects)
  }

  getRuns<TRun extends ClientRun = ClientRun>(filter: RunFilter = {}): Promise<TRun[]> {
    return this.#get(runsPath(filter), objects)
  }

  /** The run, or null when there is none (or none that the caller may see). */
  async getRun<TRun extends ClientRun = ClientRun>(runId: string, signal?: AbortSignal): Promise<TRun | null> {
    try {
      return await this.#get<TRun>(runPath('/run', runId), objectWith('id'), signal)
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return null
      throw error
    }
  }

  getSteps(runId: string): Promise<StepRecord[]> {
    return this.#get(runPath('/steps', runId), objects)
  }

  async getLogs(runId: string, signal?: AbortSignal): Promise<LogEntry[]> {
    const stored = await this.#get<StoredLog[]>(runPath('/logs', runId), objects, signal)
    return stored.map(({ createdAt, data = null, ...log }) => ({ ...log, data, timestamp: createdAt }))
  }

  /** Starts a fresh run with the input of an ended one, and returns its id. */
  async retrigger(runId: string): Promise<string> {
    const request = { method: 'POST', path: runPath('/retrigger', runId) } as const
    const { runId: fresh } = await this.#call<{ runId: string }>(request, objectWith('runId'))
    return fresh
  }

  async cancel(runId: string): Promise<void> {
    await this.#call({ method: 'POST', path: runPath('/cancel', runId) }, anything)
  }

  async deleteRun(runId: string): Promise<void> {
    await this.#call({ method: 'DELETE', path: runPath('/run', runId) }, anything)
  }

  #get<T>(path: string, shape: Shape, signal?: AbortSignal): Promise<T> {
    return this.#call({ method: 'GET', path, ...(signal && { signal }) }, shape)
  }

  async #call<T>(request: TransportRequest, shape: Shape): Promise<T> {
    const { url, status, statusText, contentType, body } = await this.#transport.request(request)
    const asked = `${request.method} ${url ?? request.path}`
    if (status < 200 || status >= 300) throw refusal(asked, status, statusText, body)
    const answer = parse(body)
    if (answer === undefined) throw notExpected(asked, contentType, 'JSON')
    if (!shape.fits(answer)) throw notExpected(asked, contentType, shape.name)
    return answer as T
  }
}

/** JSON has no undefined: it stands for what is none. */
function parse(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}
