// @vitest-environment jsdom
import { act, cleanup, renderHook, waitFor } from '@testing-library/react'
import { createDurably } from 'durably-react'
import { EventSource } from 'eventsource'
import { StrictMode } from 'react'
import { afterEach, beforeAll, expect, inject, test, vi } from 'vitest'
import { jobNames, type Jobs } from '../../../durably-client/test/support/jobs.js'

const api = `${inject('durablyUrl')}/api/durably`
const durably = createDurably<Jobs>({ api, names: jobNames })

beforeAll(() => vi.stubGlobal('EventSource', EventSource))
afterEach(cleanup)

const PATIENT = { timeout: 10_000 }
const strict = { wrapper: StrictMode }
const quiet = { autoResume: false, followLatest: false }
let count = 0
const labelled = () => ({ tag: `hooks-${process.pid}-${Date.now()}-${count++}` })

test('useJob: trigger, progress, logs, output', async () => {
  const { result } = renderHook(() => durably.importCsv.useJob(quiet), strict)
  await act(() => result.current.trigger({ filename: '3.csv' }))
  await waitFor(() => expect(result.current.isCompleted).toBe(true), PATIENT)
  expect(result.current).toMatchObject({ output: { count: 3 }, error: null })
  const progress = { current: 3, total: 3, message: 'row 3 of 3' }
  await waitFor(() => expect(result.current.progress).toEqual(progress), PATIENT)
  await waitFor(
    () =>
      expect(result.current.logs.map(({ message, stepName }) => [message, stepName])).toEqual([
        ['import started', null],
        ['parsed 3 rows', 'parse'],
        ['first row', 'import-0'],
        ['import finished', null],
      ]),
    PATIENT,
  )
})

test('useJob: a failed triggerAndWait rejects with the error of the job', async () => {
  const { result } = renderHook(() => durably.failAt.useJob(quiet), strict)
  const error: unknown = await act(() => result.current.triggerAndWait({ step: 1 }).catch((e: unknown) => e))
  expect(error).toMatchObject({ name: 'RunFailedError', message: 'boom at step 1' })
  expect(result.current).toMatchObject({ isFailed: true, error: 'boom at step 1' })
})

test('useJob: picks up an active run, and follows the latest one', async () => {
  const actions = renderHook(() => durably.useRunActions()).result.current
  const elsewhere = renderHook(() => durably.slow.useJob(quiet)).result
  const { runId: active } = await act(() => elsewhere.current.trigger({ ms: 60_000, steps: 1 }))
  const { result } = renderHook(() => durably.slow.useJob(), strict)
  await waitFor(() => expect(result.current).toMatchObject({ currentRunId: active, isLeased: true }), PATIENT)
  const { runId: latest } = await act(() => elsewhere.current.trigger({ ms: 1, steps: 2 }))
  await waitFor(() => expect(result.current).toMatchObject({ currentRunId: latest, output: { done: 2 } }), PATIENT)
  await act(() => actions.cancel(active))
})

test('useRun and useLogs: a pending run, then all of it', async () => {
  const { runId } = await trigger('2.csv')
  const onStart = vi.fn()
  const onComplete = vi.fn()
  const { result } = renderHook(
    () => ({
      run: durably.importCsv.useRun(runId, { onStart, onComplete }),
      logs: durably.importCsv.useLogs(runId, { maxLogs: 2 }).logs,
    }),
    strict,
  )
  await waitFor(() => expect(result.current.run.isCompleted).toBe(true), PATIENT)
  expect(onComplete.mock.calls).toEqual([[{ count: 2 }]])
  const messages = () => result.current.logs.map(({ message }) => message)
  await waitFor(() => expect(messages()).toEqual(['first row', 'import finished']), PATIENT)
})

test('useRuns: real time, then actions on what it lists', async () => {
  const labels = labelled()
  const { result } = renderHook(
    () => ({ list: durably.useRuns({ jobName: 'slow', labels }), actions: durably.useRunActions() }),
    strict,
  )
  const statuses = () => result.current.list.runs.map(({ status }) => status)
  await waitFor(() => expect(result.current.list.isLoading).toBe(false), PATIENT)
  const job = renderHook(() => durably.slow.useJob(quiet)).result
  const { runId } = await act(() => job.current.trigger({ ms: 60_000, steps: 1 }, { labels }))
  await waitFor(() => expect(statuses()).toEqual(['leased']), PATIENT)
  await act(() => result.current.actions.cancel(runId))
  await waitFor(() => expect(statuses()).toEqual(['cancelled']), PATIENT)
  await act(() => result.current.actions.deleteRun(runId))
  await waitFor(() => expect(statuses()).toEqual([]), PATIENT)
})

async function trigger(filename: string) {
  const { result, unmount } = renderHook(() => durably.importCsv.useJob(quiet))
  const triggered = await act(() => result.current.trigger({ filename }))
  unmount()
  return triggered
}
