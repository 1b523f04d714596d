import { ApiError, createDurablyClient, httpTransport, RunCancelledError, RunFailedError, type LogEntry } from 'durably-client'
import { EventSource as NodeEventSource } from 'eventsource'
import { describe, expect, inject, test, vi } from 'vitest'
import { holdRun } from '../support/held-run.js'
import { jobNames, type Jobs } from '../support/jobs.js'

const url = inject('durablyUrl')
const api = `${url}/api/durably`
const client = createDurablyClient<Jobs>({ api, names: jobNames })
const keep = createDurablyClient<Jobs>({ api: `${url}/keep/api/durably`, names: jobNames })

const PATIENT = { timeout: 10_000, interval: 50 }
let count = 0
/** A label that no other test uses. */
const labelled = () => ({ tag: `client-${process.pid}-${Date.now()}-${count++}` })

describe('endpoints', () => {
  test('a run from its trigger to its deletion', async () => {
    const labels = labelled()
    const { runId, disposition } = await client.jobs.importCsv.trigger({ filename: '2.csv' }, { labels })
    expect(disposition).toBe('created')
    expect(await client.waitForRun(runId)).toEqual({ count: 2 })
    expect(await client.getRun(runId)).toMatchObject({
      id: runId,
      jobName: 'import-csv',
      input: { filename: '2.csv' },
      status: 'completed',
      output: { count: 2 },
      labels,
      isTerminal: true,
    })
    await client.deleteRun(runId)
    expect(await client.getRun(runId)).toBeNull()
  })

  test('steps of a run', async () => {
    const { runId } = await keep.jobs.importCsv.triggerAndWait({ filename: '1.csv' })
    const steps = await keep.getSteps(runId)
    expect(steps.map(({ name, status, output }) => [name, status, output])).toEqual([
      ['parse', 'completed', { rows: 1 }],
      ['import-0', 'completed', { row: 0 }],
    ])
  })

  test('logs of an ended run', async () => {
    const { runId } = await client.jobs.importCsv.triggerAndWait({ filename: '1.csv' })
    const logs = await client.getLogs(runId)
    expect(logs.map(({ message, stepName, level, data }) => [message, stepName, level, data])).toEqual([
      ['import started', null, 'info', { filename: '1.csv' }],
      ['parsed 1 rows', 'parse', 'info', null],
      ['first row', 'import-0', 'warn', { row: 0, header: true }],
      ['import finished', null, 'info', { count: 1 }],
    ])
    expect(logs[0]?.timestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  })

  test('the jobs of the server', async () => {
    const jobs = await client.getJobs()
    expect(jobs.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['import-csv', 'fail-at', 'slow', 'echo', 'noop', 'burst', 'bad-output']),
    )
    expect(jobs.find(({ name }) => name === 'import-csv')?.inputSchema).toMatchObject({
      properties: { filename: { type: 'string' } },
    })
  })

  test('runs by job, status and label, page by page', async () => {
    const labels = labelled()
    for (const value of [1, 2, 3]) await client.jobs.anything.trigger({ value }, { labels })
    await vi.waitFor(async () => expect(await client.getRuns({ status: 'completed', labels })).toHaveLength(3), PATIENT)
    const newest = await client.jobs.anything.getRuns({ labels, limit: 2 })
    expect(newest.map(({ input }) => input.value)).toEqual([3, 2])
    const rest = await client.getRuns({ jobName: ['echo', 'noop'], labels, limit: 2, offset: 2 })
    expect(rest.map(({ output }) => output)).toEqual([1])
    expect(await client.getRuns({ status: ['failed', 'pending'], labels })).toEqual([])
  })

  test('cancel, and retrigger', async () => {
    const { runId } = await client.jobs.slow.trigger({ ms: 60_000, steps: 1 })
    const waiting = client.waitForRun(runId).catch((error: unknown) => error)
    await client.cancel(runId)
    expect(await waiting).toBeInstanceOf(RunCancelledError)
    const fresh = await client.retrigger(runId)
    expect(fresh).not.toBe(runId)
    await client.cancel(fresh)
  })

  test('refusals say why', async () => {
    const refused = (promise: Promise<unknown>) => promise.catch((error: unknown) => error)
    const error = await refused(client.cancel('no-such-run'))
    expect(error).toBeInstanceOf(ApiError)
    expect(error).toMatchObject({ status: 404, message: 'Run not found' })
    expect(await refused(client.trigger('no-such-job', {}))).toMatchObject({
      status: 404,
      message: 'Job not found: no-such-job',
    })
    expect(await refused(client.trigger('import-csv', { filename: 7 }))).toMatchObject({ status: 400 })
  })

  test('what an auth hook rejects with is plain text, and headers get past it', async () => {
    const closed = createDurablyClient({ api: `${url}/auth/api/durably` })
    await expect(closed.getRuns()).rejects.toMatchObject({ status: 401, message: 'Unauthorized' })
    const headers = () => ({ 'x-org': 'acme' })
    const open = createDurablyClient<Jobs>({ api: `${url}/auth/api/durably`, headers, names: jobNames })
    const labels = { organizationId: 'acme' }
    const { output } = await open.jobs.anything.triggerAndWait({ value: 'seen' }, { labels })
    expect(output).toBe('seen')
  })
})

describe.each([
  ['fetch', null],
  ['EventSource', NodeEventSource as unknown as typeof EventSource],
])('streams by %s', (_, EventSource) => {
  const streaming = createDurablyClient<Jobs>({
    transport: httpTransport({ api, EventSource }),
    names: jobNames,
  })

  test('progress, logs and output arrive', async () => {
    const { runId, release } = await holdRun(api, 'import-csv', { filename: '3.csv' })
    const run = streaming.observeRun(runId)
    run.subscribe(() => {})
    await vi.waitFor(() => expect(run.getSnapshot().status).toBe('pending'), PATIENT)
    const progress: unknown[] = []
    const logs: string[] = []
    const waiting = streaming.waitForRun(runId, {
      onProgress: (next) => progress.push(next),
      onLog: (log) => logs.push(log.message),
    })
    await release()
    expect(await waiting).toEqual({ count: 3 })
    expect(progress.at(-1)).toEqual({ current: 3, total: 3, message: 'row 3 of 3' })
    expect(logs).toEqual(['import started', 'parsed 3 rows', 'first row', 'import finished'])
  })

  test('a failure arrives as the error of the job', async () => {
    const error: unknown = await streaming.jobs.failAt.triggerAndWait({ step: 1 }).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(RunFailedError)
    expect(error).toMatchObject({ message: 'boom at step 1' })
  })

  test('a run that has ended already tells its end', async () => {
    const { runId } = await streaming.jobs.anything.triggerAndWait({ value: 0 })
    expect(await streaming.waitForRun(runId)).toBe(0)
  })

  test('all lines of a quick run are told before its end, and those of one that has ended', async () => {
    const told = ['import started', 'parsed 1 rows', 'first row', 'import finished']
    const logs: string[] = []
    const onLog = (log: LogEntry) => void logs.push(log.message)
    const { runId } = await streaming.jobs.importCsv.triggerAndWait({ filename: '1.csv' }, { onLog })
    expect(logs).toEqual(told)
    expect(await streaming.waitForRun(runId, { onLog })).toEqual({ count: 1 })
    expect(logs).toEqual([...told, ...told])
    const job = streaming.jobs.importCsv.observe({ autoResume: false })
    const leave = job.subscribe(() => {})
    await job.triggerAndWait({ filename: '1.csv' }, { onLog })
    expect(logs).toEqual([...told, ...told, ...told])
    leave()
  })

  test('a list follows runs from their trigger to their deletion', async () => {
    const labels = labelled()
    const list = streaming.observeRuns({ labels })
    const leave = list.subscribe(() => {})
    const rows = () => list.getSnapshot().runs.map(({ status, output }) => [status, output])
    await vi.waitFor(() => expect(list.getSnapshot().isLoading).toBe(false), PATIENT)
    const { runId } = await streaming.jobs.anything.trigger({ value: 1 }, { labels })
    await vi.waitFor(() => expect(rows()).toEqual([['completed', 1]]), PATIENT)
    await streaming.deleteRun(runId)
    await vi.waitFor(() => expect(rows()).toEqual([]), PATIENT)
    leave()
  })

  test('a run that does not exist is given up', async () => {
    await expect(streaming.waitForRun('no-such-run')).rejects.toThrow('Run not found')
  })
})
