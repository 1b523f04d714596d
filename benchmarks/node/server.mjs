// The HTTP handler of the TypeScript library on a SQLite file: node server.mjs FILE. Prints where it listens.
import http from 'node:http'
import { createDurably, createDurablyHandler, defineJob } from '@coji/durably'
import Database from 'better-sqlite3'
import { SqliteDialect } from 'kysely'
import { z } from 'zod'

const BASE = '/api/durably'

const database = new Database(process.argv[2])
// What durably for Python sets by default, so that both pay the same for a commit.
database.pragma('journal_mode = WAL')
database.pragma('synchronous = FULL')

const nothing = defineJob({ name: 'nothing', input: z.object({ n: z.number() }), run: async () => {} })
const durably = createDurably({ dialect: new SqliteDialect({ database }), jobs: { nothing } })
await durably.migrate()
const handler = createDurablyHandler(durably)

const server = http.createServer(async (incoming, outgoing) => {
  const body = await bodyOf(incoming)
  const response = await handler.handle(
    new Request(`http://127.0.0.1${incoming.url}`, { method: incoming.method, headers: incoming.headers, body }),
    BASE,
  )
  const answer = Buffer.from(await response.arrayBuffer())
  outgoing.writeHead(response.status, { ...Object.fromEntries(response.headers), 'content-length': answer.length })
  outgoing.end(answer)
})

async function bodyOf(incoming) {
  if (incoming.method === 'GET') return undefined
  const chunks = []
  for await (const chunk of incoming) chunks.push(chunk)
  return Buffer.concat(chunks)
}

server.listen(0, '127.0.0.1', () => console.log(server.address().port))
