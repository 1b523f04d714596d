import { createDurablyClient, httpTransport } from 'durably-client'
import { EventSource as NodeEventSource } from 'eventsource'
import { afterEach, beforeEach, describe, expect, inject, test, vi } from 'vitest'
import { jobNames, type Jobs } from '../support/jobs.js'
import { Proxy } from '../support/proxy.js'

const PATIENT = { timeout: 15_000, interval: 50 }

let proxy: Proxy
let api: string

beforeEach(async () => {
  proxy = new Proxy(inject('durablyUrl'))
  api = `${await proxy.listen()}/keep/api/durably`
})

afterEach(() => proxy.close())

describe.each([
  ['fetch', null],
  ['EventSource', NodeEventSource as unknown as typeof EventSource],
])('by %s', (_, EventSource) => {
  const connect = () =>
    createDurablyClient<Jobs>({ transport: httpTransport({ api, EventSource }), names: jobNames })

  async function observeSlowRun(steps: number) {
    const client = connect()
    const { runId } = await client.jobs.slow.trigger({ ms: 400, steps })
    const run = client.observeRun(runId)
    run.subscribe(() => {})
    await vi.waitFor(() => expect(run.getSnapshot().progress?.current).toBe(1), PATIENT)
    return run
  }

  test('a cut connection continues where it broke off', async () => {
    const run = await observeSlowRun(6)
    proxy.cut()
    await vi.waitFor(() => expect(run.getSnapshot().status).toBe('completed'), PATIENT)
    expect(run.getSnapshot()).toMatchObject({ output: { done: 6 }, progress: { current: 6 } })
    const resumed = proxy.streams.filter((stream) => stream.includes('/subscribe?runId='))[1]
    expect(resumed?.split(' ')[1]).not.toBe('')
  })

  test('an end that came while the server was away is told when it is back', async () => {
    const run = await observeSlowRun(2)
    proxy.goDown()
    await new Promise((resolve) => setTimeout(resolve, 1500))
    expect(run.getSnapshot().status).toBe('leased')
    proxy.comeBack()
    await vi.waitFor(() => expect(run.getSnapshot().status).toBe('completed'), PATIENT)
    expect(run.getSnapshot().output).toEqual({ done: 2 })
  })

  test('logs written while the connection was down are not lost, nor told twice', async () => {
    const client = connect()
    const { runId } = await client.jobs.importCsv.trigger({ filename: '2.csv' })
    const run = client.observeRun(runId)
    run.subscribe(() => {})
    proxy.goDown()
    await new Promise((resolve) => setTimeout(resolve, 300))
    proxy.comeBack()
    const messages = () => run.getSnapshot().logs.map(({ message }) => message)
    await vi.waitFor(
      () => expect(messages()).toEqual(['import started', 'parsed 2 rows', 'first row', 'import finished']),
      PATIENT,
    )
  })

  test('a list is right again after a time without the server', async () => {
    const client = connect()
    const labels = { tag: `reconnect-${Date.now()}-${EventSource === null}` }
    const list = client.observeRuns({ labels })
    list.subscribe(() => {})
    await vi.waitFor(() => expect(list.getSnapshot().isLoading).toBe(false), PATIENT)
    proxy.goDown()
    const direct = createDurablyClient<Jobs>({ api: `${inject('durablyUrl')}/keep/api/durably`, names: jobNames })
    await direct.jobs.anything.triggerAndWait({ value: 1 }, { labels })
    proxy.comeBack()
    await vi.waitFor(() => expect(list.getSnapshot().runs).toMatchObject([{ status: 'completed', output: 1 }]), PATIENT)
  })
})
