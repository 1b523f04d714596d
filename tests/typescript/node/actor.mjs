// A program in TypeScript's library on a database that Python uses too. It reads one command per line, a JSON
// array of a name and arguments, and answers each with one line: {"ok": value} or {"error": message}.
import readline from 'node:readline'
import { createDurably, defineJob, withLogPersistence } from '@coji/durably'
import { PostgresDialect, SqliteDialect } from 'kysely'
import { z } from 'zod'

async function dialectOf(url) {
  if (url.startsWith('postgres')) {
    const { default: pg } = await import('pg')
    return new PostgresDialect({ pool: new pg.Pool({ connectionString: url, max: 2 }) })
  }
  const { default: Database } = await import('better-sqlite3')
  return new SqliteDialect({ database: new Database(url) })
}

const options = process.argv.slice(3)

// The web application knows what the job takes and gives; the work itself is Python's, as a rule.
const importCsv = defineJob({
  name: 'import-csv',
  input: z.object({ filename: z.string() }),
  output: z.object({ count: z.number() }),
  run: async (step, { filename }) => {
    const count = await step.run('count', () => filename.length)
    if (options.includes('die-after-the-step')) process.exit(1)
    step.progress(1, 1, 'counted')
    step.log.info('counted', { filename })
    return { count }
  },
})

const durably = createDurably({
  dialect: await dialectOf(process.argv[2]),
  jobs: { importCsv },
  pollingIntervalMs: 20,
  leaseMs: options.includes('short-leases') ? 500 : undefined,
  leaseRenewIntervalMs: options.includes('short-leases') ? 100 : undefined,
  preserveSteps: options.includes('preserve-steps'),
})
durably.use(withLogPersistence())

const commands = {
  migrate: () => durably.migrate(),
  trigger: (input, options) => durably.jobs.importCsv.trigger(input, options),
  batchTrigger: (items) => durably.jobs.importCsv.batchTrigger(items),
  triggerAndWait: (input) => durably.jobs.importCsv.triggerAndWait(input, { timeout: 30_000 }),
  purgeRuns: () => durably.purgeRuns({ olderThan: new Date(Date.now() + 60_000) }),
  getRun: (id) => durably.getRun(id),
  getRuns: (filter) => durably.getRuns(filter),
  getSteps: (id) => durably.storage.getSteps(id),
  getLogs: (id) => durably.storage.getLogs(id),
  waitForRun: (id) => durably.waitForRun(id, { timeout: 30_000 }),
  cancel: (id) => durably.cancel(id),
  retrigger: (id) => durably.retrigger(id),
  deleteRun: (id) => durably.deleteRun(id),
  processOne: () => durably.processOne(),
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line)
  try {
    console.log(JSON.stringify({ ok: (await commands[name](...args)) ?? null }))
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }))
  }
}
process.exit(0)
