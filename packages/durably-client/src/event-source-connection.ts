import type { Connection, ConnectionHandlers } from './transport.js'

const CLOSED = 2

export function connectByEventSource(
  EventSourceClass: typeof EventSource,
  url: string,
  withCredentials: boolean,
  handlers: ConnectionHandlers,
): Connection {
  const source = new EventSourceClass(url, { withCredentials })
  source.onopen = () => handlers.onOpen()
  source.onmessage = (message: MessageEvent<string>) =>
    handlers.onMessage(message.data, message.lastEventId || null)
  source.onerror = () => {
    // Otherwise it is already reconnecting by itself, with the Last-Event-ID.
    if (source.readyState === CLOSED) handlers.onClose(new Error(`The event stream ${url} was refused`))
  }
  return { close: () => source.close() }
}
