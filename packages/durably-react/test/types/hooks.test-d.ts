import { createDurably, createJobHooks, useJob, useRuns, type LogEntry } from 'durably-react'
import { expectTypeOf } from 'vitest'
import { jobNames, type Jobs } from '../../../durably-client/test/support/jobs.js'

const durably = createDurably<Jobs>({ api: '/api/durably', names: jobNames })

const job = durably.importCsv.useJob({ autoResume: false, followLatest: false, maxLogs: 10 })
expectTypeOf(job.output).toEqualTypeOf<{ count: number } | null>()
expectTypeOf(job.trigger).parameter(0).toEqualTypeOf<{ filename: string }>()
expectTypeOf((await job.triggerAndWait({ filename: 'a' })).output).toEqualTypeOf<{ count: number }>()
expectTypeOf(job.isLeased).toEqualTypeOf<boolean>()

// @ts-expect-error the input of another type
void job.trigger({ filename: 7 })
// @ts-expect-error no such option
durably.importCsv.useJob({ autoresume: true })
expectTypeOf(durably).not.toHaveProperty('importCSV')
// @ts-expect-error a job whose name does not follow from its property needs it
createDurably<Jobs>({ api: '/api/durably' })

const run = durably.slow.useRun('id', { onStart: () => {}, onComplete: (output) => output.done })
expectTypeOf(run.output).toEqualTypeOf<{ done: number } | null>()
expectTypeOf(durably.slow.useLogs(null).logs).toEqualTypeOf<readonly LogEntry[]>()

const { runs } = durably.useRuns({ jobName: ['import-csv', 'slow'], status: 'failed' })
for (const listed of runs) {
  expectTypeOf(listed.jobName).toEqualTypeOf<'import-csv' | 'slow'>()
  if (listed.jobName === 'slow') expectTypeOf(listed.output).toEqualTypeOf<{ done: number } | null>()
}
// @ts-expect-error no job has this name
durably.useRuns({ jobName: 'importCsv' })
// @ts-expect-error no such status
durably.useRuns({ status: ['running'] })

const found = await durably.useRunActions().getRun('id')
if (found?.jobName === 'slow') expectTypeOf(found.output).toEqualTypeOf<{ done: number } | null>()
const status = undefined as 'failed' | undefined
durably.useRuns({ status })
durably.slow.useRun(undefined, { maxLogs: undefined })

expectTypeOf(durably.useRunActions().retrigger).returns.resolves.toEqualTypeOf<string>()

const direct = useJob<{ a: string }, number>({ api: '/api/durably', jobName: 'any' })
expectTypeOf(direct.output).toEqualTypeOf<number | null>()
// @ts-expect-error a hook used directly must know its server
useRuns({ pageSize: 3 })

const hooks = createJobHooks<Jobs['slow']>({ api: '/api/durably', jobName: 'slow' })
expectTypeOf(hooks.useJob().output).toEqualTypeOf<{ done: number } | null>()
