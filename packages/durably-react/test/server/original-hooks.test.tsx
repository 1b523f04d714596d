// @vitest-environment jsdom
// The published hooks of the TypeScript library, unmodified, must work with this server.
import { createDurably, useJob, useJobLogs, useJobRun, useRunActions, useRuns } from '@coji/durably-react'
import { act, cleanup, renderHook, waitFor } from '@testing-library/react'
import { EventSource } from 'eventsource'
import { afterEach, beforeAll, expect, inject, test, vi } from 'vitest'
import { holdRun } from '../../../durably-client/test/support/held-run.js'
import { Proxy } from '../../../durably-client/test/support/proxy.js'

const api = `${inject('durablyUrl')}/api/durably`
const keepApi = `${inject('durablyUrl')}/keep/api/durably`

beforeAll(() => vi.stubGlobal('EventSource', EventSource))
afterEach(cleanup)

const PATIENT = { timeout: 10_000 }
let count = 0
const labelled = () => ({ tag: `original-${process.pid}-${Date.now()}-${count++}` })

async function trigger(jobName: string, input: unknown, labels = labelled()): Promise<string> {
  const response = await fetch(`${api}/trigger`, {
    method: 'POST',
    body: JSON.stringify({ jobName, input, labels }),
  })
  return ((await response.json()) as { runId: string }).runId
}

async function completed(labels: { tag: string }): Promise<unknown> {
  const response = await fetch(`${api}/runs?status=completed&label.tag=${labels.tag}`)
  return response.json()
}

async function leased(runId: string): Promise<void> {
  await vi.waitFor(async () => {
    const response = await fetch(`${api}/run?runId=${runId}`)
    expect(await response.json()).toMatchObject({ status: 'leased' })
  }, PATIENT)
}

const quiet = { autoResume: false, followLatest: false }

test('useJob: trigger, output', async () => {
  const { result } = renderHook(() => useJob({ api, jobName: 'import-csv', ...quiet }))
  await act(() => result.current.trigger({ filename: '3.csv' }))
  await waitFor(() => expect(result.current.isCompleted).toBe(true), PATIENT)
  expect(result.current).toMatchObject({
    status: 'completed',
    isTerminal: true,
    output: { count: 3 },
    error: null,
  })
})

test('useJob and useJobLogs: logs, of which these hooks show what they see live', async () => {
  const proxy = new Proxy(inject('durablyUrl'))
  const proxied = `${await proxy.listen()}/api/durably`
  const { runId, release } = await holdRun(api, 'import-csv', { filename: '2.csv' })
  const { result, unmount } = renderHook(() => ({
    job: useJob({ api: proxied, jobName: 'import-csv', initialRunId: runId, followLatest: false }),
    latest: useJobLogs({ api: proxied, runId, maxLogs: 1 }),
  }))
  await waitFor(() => expect(proxy.streams).toHaveLength(2), PATIENT)
  await release()
  await waitFor(() => expect(result.current.job.isCompleted).toBe(true), PATIENT)
  const { job, latest } = result.current
  expect(job.logs.map(({ message }) => message)).toEqual([
    'import started',
    'parsed 2 rows',
    'first row',
    'import finished',
  ])
  expect(latest.logs.map(({ message }) => message)).toEqual(['import finished'])
  unmount()
  proxy.close()
})

test('useJob: progress of a run that is going on', async () => {
  const { result } = renderHook(() => useJob({ api, jobName: 'slow', ...quiet }))
  await act(() => result.current.trigger({ ms: 400, steps: 3 }))
  await waitFor(() => expect(result.current.progress).toEqual({ current: 1, total: 3 }), PATIENT)
  expect(result.current.isLeased).toBe(true)
  await waitFor(() => expect(result.current.output).toEqual({ done: 3 }), PATIENT)
})

test('useJob: a failure, and reset', async () => {
  const { result } = renderHook(() => useJob({ api, jobName: 'fail-at', ...quiet }))
  await act(() => result.current.trigger({ step: 1 }))
  await waitFor(() => expect(result.current.isFailed).toBe(true), PATIENT)
  expect(result.current.error).toBe('boom at step 1')
  act(() => result.current.reset())
  expect(result.current).toMatchObject({ status: null, currentRunId: null })
})

test('useJob: triggerAndWait', async () => {
  const { result } = renderHook(() => useJob({ api, jobName: 'import-csv', ...quiet }))
  let waiting: Promise<unknown> = Promise.resolve()
  act(() => void (waiting = result.current.triggerAndWait({ filename: '2.csv' })))
  await waitFor(() => expect(result.current.isCompleted).toBe(true), PATIENT)
  expect(await act(() => waiting)).toMatchObject({ output: { count: 2 } })
})

test('useJob: picks up an active run, and follows the latest one', async () => {
  const active = await trigger('slow', { ms: 60_000, steps: 1 })
  // The hook asks for leased and for pending runs in two requests, and misses one that is claimed between them.
  await leased(active)
  const { result } = renderHook(() => useJob({ api, jobName: 'slow' }))
  await waitFor(() => expect(result.current.currentRunId).toBe(active), PATIENT)
  await waitFor(() => expect(result.current.isLeased).toBe(true), PATIENT)
  const latest = await trigger('slow', { ms: 1, steps: 2 })
  await waitFor(() => expect(result.current.currentRunId).toBe(latest), PATIENT)
  await waitFor(() => expect(result.current.output).toEqual({ done: 2 }), PATIENT)
  await fetch(`${api}/cancel?runId=${active}`, { method: 'POST' })
})

test('useJobRun: a run triggered elsewhere', async () => {
  const onStart = vi.fn()
  const onComplete = vi.fn()
  const runId = await trigger('slow', { ms: 300, steps: 2 })
  const { result } = renderHook(() => useJobRun({ api, runId, onStart, onComplete }))
  await waitFor(() => expect(result.current.isCompleted).toBe(true), PATIENT)
  expect(result.current.output).toEqual({ done: 2 })
  expect(onComplete).toHaveBeenCalledTimes(1)

  const failing = await trigger('fail-at', { step: 0 })
  const onFail = vi.fn()
  renderHook(() => useJobRun({ api, runId: failing, onFail }))
  await waitFor(() => expect(onFail).toHaveBeenCalledTimes(1), PATIENT)
})

test('useRuns: pages, filters and real time', async () => {
  const labels = labelled()
  for (const value of [1, 2, 3]) await trigger('echo', { value }, labels)
  // These hooks may show a late answer for the first page on the second: let the page come to rest first.
  await waitFor(async () => expect(await completed(labels)).toHaveLength(3), PATIENT)
  const { result } = renderHook(() =>
    useRuns({ api, jobName: 'echo', status: ['completed', 'leased', 'pending'], labels, pageSize: 2 }),
  )
  const outputs = () => result.current.runs.map(({ output }) => output as unknown)
  await waitFor(() => expect(outputs()).toEqual([3, 2]), PATIENT)
  expect(result.current).toMatchObject({ hasMore: true, page: 0, error: null })
  act(() => result.current.nextPage())
  await waitFor(() => expect(outputs()).toEqual([1]), PATIENT)
  expect(result.current).toMatchObject({ hasMore: false, page: 1 })
  act(() => result.current.goToPage(0))
  await waitFor(() => expect(outputs()).toEqual([3, 2]), PATIENT)
  await new Promise((resolve) => setTimeout(resolve, 300))
  await trigger('echo', { value: 4 }, labels)
  await waitFor(() => expect(outputs()).toEqual([4, 3]), PATIENT)
})

test('useRunActions: cancel, retrigger, delete, get', async () => {
  const { result } = renderHook(() => useRunActions({ api }))
  const runId = await trigger('slow', { ms: 60_000, steps: 1 })
  await act(() => result.current.cancel(runId))
  expect(await act(() => result.current.getRun(runId))).toMatchObject({ status: 'cancelled' })
  const fresh = await act(() => result.current.retrigger(runId))
  await expect(act(() => result.current.deleteRun(fresh))).rejects.toThrow(/cannot delete/i)
  await act(() => result.current.cancel(fresh))
  await act(() => result.current.deleteRun(fresh))
  expect(await act(() => result.current.getRun(fresh))).toBeNull()
})

test('createDurably: hooks by job, and the steps of a run', async () => {
  // These hooks take the property as the job's name, letter by letter.
  type Jobs = { 'import-csv': { trigger: (input: { filename: string }) => Promise<{ output?: { count: number } }> } }
  const durably = createDurably<Jobs>({ api: keepApi })
  const job = renderHook(() => durably['import-csv'].useJob(quiet))
  await act(() => job.result.current.trigger({ filename: '1.csv' }))
  await waitFor(() => expect(job.result.current.output).toEqual({ count: 1 }), PATIENT)
  const { result } = renderHook(() => durably.useRunActions())
  const steps = await result.current.getSteps(job.result.current.currentRunId ?? '')
  expect(steps.map(({ name, status }) => [name, status])).toEqual([
    ['parse', 'completed'],
    ['import-0', 'completed'],
  ])
})
