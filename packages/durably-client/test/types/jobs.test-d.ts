import { createDurablyClient, type ClientRun, type JobName, type RunOf } from 'durably-client'
import { expectTypeOf } from 'vitest'
import { jobNames, type Jobs } from '../support/jobs.js'

const client = createDurablyClient<Jobs>({ api: '/api/durably', names: jobNames })

expectTypeOf<JobName<Jobs>>().toEqualTypeOf<'import-csv' | 'fail-at' | 'slow' | 'echo'>()

expectTypeOf(client.jobs.importCsv.trigger).parameter(0).toEqualTypeOf<{ filename: string }>()
expectTypeOf(client.jobs.importCsv.triggerAndWait({ filename: 'a' })).resolves.toHaveProperty('output')
expectTypeOf((await client.jobs.slow.getRuns())[0]!.output).toEqualTypeOf<{ done: number } | null>()

// @ts-expect-error the input of another type
void client.jobs.importCsv.trigger({ filename: 7 })
// @ts-expect-error a part of the input is missing
void client.jobs.slow.trigger({ ms: 1 })
expectTypeOf(client.jobs).not.toHaveProperty('importCSV')
// @ts-expect-error no such option
void client.jobs.importCsv.trigger({ filename: 'a' }, { idempotency: 'k' })
// @ts-expect-error the only way to coalesce is to skip
void client.jobs.importCsv.trigger({ filename: 'a' }, { coalesce: 'merge' })

// @ts-expect-error `echo` does not follow from `anything`: without its name every trigger would be a 404
createDurablyClient<Jobs>({ api: '/api/durably' })
// @ts-expect-error not the name of this job
createDurablyClient<Jobs>({ api: '/api/durably', names: { anything: 'slow' } })
createDurablyClient<Jobs>({ api: '/api/durably', names: { anything: 'echo' } })
createDurablyClient<Pick<Jobs, 'importCsv' | 'slow'>>({ api: '/api/durably' })

// A name may be declared as optional, as it is not there at runtime.
interface Optional {
  nightly: { name?: 'reports.nightly'; input: null; output: null }
}
expectTypeOf<JobName<Optional>>().toEqualTypeOf<'reports.nightly'>()
// @ts-expect-error nor does this name follow from its property
createDurablyClient<Optional>({ api: '/api/durably' })

declare const run: RunOf<Jobs>
if (run.jobName === 'import-csv') expectTypeOf(run.output).toEqualTypeOf<{ count: number } | null>()
if (run.jobName === 'slow') expectTypeOf(run.input.ms).toEqualTypeOf<number>()
expectTypeOf(run).toExtend<ClientRun>()

const untyped = createDurablyClient({ api: '/api/durably', names: { nightly: 'reports.nightly' } })
void untyped.jobs['anythingAtAll']?.trigger({ any: 'input' })
