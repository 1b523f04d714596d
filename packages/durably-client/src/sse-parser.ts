export interface ServerSentMessage {
  data: string
  /** The id in force after this message: an id line stays valid until the next one. */
  id: string | null
}

/** Turns the text of an event stream, in pieces of any size, into messages. */
export class ServerSentEventParser {
  readonly #onMessage: (message: ServerSentMessage) => void
  readonly #onMark: (id: string) => void
  #rest = ''
  #data: string[] = []
  #id: string | null
  #mark: string | null = null

  /** `onMark` is told of an id that comes without a message: how far the stream has come. */
  constructor(
    onMessage: (message: ServerSentMessage) => void,
    onMark: (id: string) => void,
    lastEventId: string | null = null,
  ) {
    this.#onMessage = onMessage
    this.#onMark = onMark
    this.#id = lastEventId
  }

  push(text: string): void {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/)
    // The last piece is unfinished: a trailing CR may yet turn out to be half of a CRLF.
    this.#rest = lines.pop() ?? ''
    for (const line of lines) this.#line(line)
  }

  #line(line: string): void {
    if (line === '') return this.#dispatch()
    const colon = line.indexOf(':')
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'data') this.#data.push(value)
    if (field === 'id' && !value.includes('\0')) this.#id = this.#mark = value
  }

  #dispatch(): void {
    const mark = this.#mark
    this.#mark = null
    if (this.#data.length === 0) {
      if (mark !== null) this.#onMark(mark)
      return
    }
    const data = this.#data.join('\n')
    this.#data = []
    this.#onMessage({ data, id: this.#id })
  }
}
