import { createDurablyClient, type ConnectionOptions, type DurablyClient } from 'durably-client'

/** Which server a hook talks to: by its base path, or through a client of one's own. */
export type ServerOptions = { api: string; client?: never } | { client: DurablyClient; api?: never }

// One client per server, so that all hooks share its event streams. A client that nobody
// listens through holds no state: nothing leaks from one rendered request into the next.
const clients = new Map<string, DurablyClient>()

export function clientOf({ api, client }: ServerOptions): DurablyClient {
  if (client) return client
  const known = clients.get(api)
  if (known) return known
  const created = createDurablyClient({ api })
  clients.set(api, created)
  return created
}

/** The same; a client of its own where more is said about a server than its address. */
export function clientFor(options: ServerOptions | ConnectionOptions): DurablyClient {
  const isAddress = Object.keys(options).every((name) => SHARED.has(name))
  return isAddress ? clientOf(options as ServerOptions) : createDurablyClient(options as ConnectionOptions)
}

// What may be said without a client of one's own: `names` are about jobs, not about the server.
const SHARED: ReadonlySet<string> = new Set(['api', 'client', 'names'])
