export interface TransportRequest {
  method: 'GET' | 'POST' | 'DELETE'
  /** Path below the server's base path, query included: `/runs?limit=10`. */
  path: string
  /** Sent as JSON. */
  body?: unknown
  signal?: AbortSignal
}

export interface TransportResponse {
  /** Where it was asked, for errors. Default: the path. */
  url?: string
  status: number
  statusText: string
  /** As the header says it, where there are headers. */
  contentType?: string | null
  body: string
}

export interface ConnectionHandlers {
  /** Where the previous connection broke off, so that the server can continue from there. */
  lastEventId: string | null
  /** The server has accepted the stream; again each time the transport itself re-established it. */
  onOpen(): void
  onMessage(data: string, id: string | null): void
  /** An id without a message: the stream has come so far, and there was nothing for this client. */
  onMark(id: string): void
  /** The connection is lost for good; whoever opened it decides whether to open another one. */
  onClose(error: Error): void
}

export interface Connection {
  close(): void
}

/** How requests reach a Durably server: over HTTP, or by whatever else speaks the same paths. */
export interface Transport {
  /** Resolves whatever the status; rejects when there was no answer at all. */
  request(request: TransportRequest): Promise<TransportResponse>
  connect(path: string, handlers: ConnectionHandlers): Connection
}
