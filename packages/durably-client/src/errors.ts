/** Root of everything this package throws by itself. */
export class DurablyClientError extends Error {
  override name = 'DurablyClientError'
}

/** The server answered with an error: its status, and its own words as the message. */
export class ApiError extends DurablyClientError {
  override name = 'ApiError'
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }

  /** Tell whether asking again, unchanged, can be expected to give the same answer. */
  get isPermanent(): boolean {
    return this.status >= 400 && this.status < 500 && !TRANSIENT_STATUSES.has(this.status)
  }
}

// Timeout, too early, too many requests: client errors in number only.
const TRANSIENT_STATUSES = new Set([408, 425, 429])

/** What answered is hardly a Durably server: a development server's page, for example, for an address of its own. */
export class InvalidResponseError extends DurablyClientError {
  override name = 'InvalidResponseError'

  constructor(request: string, answer: string) {
    super(`${request} was answered with ${answer}: is the handler mounted elsewhere than \`api\` says?`)
  }
}

/** No request can be sent to what `api` says: in Node, for example, to a path without a host. */
export class InvalidAddressError extends DurablyClientError {
  override name = 'InvalidAddressError'

  constructor(api: string, cause: unknown) {
    super(`Outside of a browser \`api\` must be an absolute URL, such as https://example.com/api/durably: ${api}`, { cause })
  }
}

export function notExpected(request: string, contentType: string | null | undefined, expected: string): Error {
  return new InvalidResponseError(request, `${contentType?.split(';')[0] ?? 'text'} that is not ${expected}`)
}

/** What a status that is no success is thrown as. */
export function refusal(request: string, status: number, statusText: string, body: string): Error {
  // A Durably server says what it is that is not found.
  const isBare = (status === 404 || status === 405) && isWordless(body)
  if (isBare) return new InvalidResponseError(request, `a bare ${status}`)
  return new ApiError(status, errorText(body, statusText))
}

export function isPermanent(error: Error): boolean {
  if (error instanceof ApiError) return error.isPermanent
  return error instanceof InvalidResponseError || error instanceof InvalidAddressError
}

/** The run that was waited for ended without an output. */
export class RunEndedError extends DurablyClientError {
  override name = 'RunEndedError'
  readonly runId: string

  constructor(runId: string, message: string) {
    super(message)
    this.runId = runId
  }
}

/** The run failed; the message is the error of the job. */
export class RunFailedError extends RunEndedError {
  override name = 'RunFailedError'
}

export class RunCancelledError extends RunEndedError {
  override name = 'RunCancelledError'
}

/** The run can no longer be followed: it was deleted, or the server refuses to show it. */
export class RunLostError extends RunEndedError {
  override name = 'RunLostError'
}

/** What is said where a stream is refused, but not what it is about. */
export function refusalText(error: Error): string {
  return `Live updates are off: ${error.message}`
}

function errorText(body: string, statusText: string): string {
  return jsonErrorText(body) ?? (plainText(body) || statusText || 'Request failed')
}

/** Tell whether a body says no more than that an address is unknown, as web servers and frameworks do. */
function isWordless(body: string): boolean {
  return /^$|^[<{]|^Not Found$|^Method Not Allowed$/.test(jsonErrorText(body) ?? body.trim())
}

// The page that a proxy shows for an error is nothing to show within another.
function plainText(body: string): string {
  const text = body.trim()
  return text.startsWith('<') ? '' : text
}

function jsonErrorText(body: string): string | null {
  try {
    const parsed: unknown = JSON.parse(body)
    const { error, detail } = (parsed ?? {}) as { error?: unknown; detail?: unknown }
    // `detail` is what a framework in front of the handler says, as FastAPI's dependencies.
    const text = error ?? detail
    return typeof text === 'string' ? text : null
  } catch {
    // What an auth hook rejects with is plain text.
    return null
  }
}

export function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}
