// @vitest-environment jsdom
import { act, cleanup, render, renderHook } from '@testing-library/react'
import { createDurablyClient } from 'durably-client'
import { createDurably, useJob, useJobLogs, useJobRun, useRunActions, useRuns } from 'durably-react'
import { Activity, StrictMode, startTransition, Suspense, use, useState, type ReactNode } from 'react'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { FakeTransport } from '../../../durably-client/test/support/fake-transport.js'
import { aLogEvent, anEvent, aRun } from '../../../durably-client/test/support/samples.js'

let transport: FakeTransport
let client: ReturnType<typeof createDurablyClient>

beforeEach(() => {
  transport = new FakeTransport()
  client = createDurablyClient({ transport })
})

afterEach(cleanup)

const settle = () => act(() => new Promise((resolve) => setTimeout(resolve, 5)))

function send(...args: Parameters<typeof anEvent>) {
  const event = anEvent(...args)
  act(() => transport.stream(`/subscribe?runId=${event.runId}`).send(event))
}

describe.each([
  ['in StrictMode', StrictMode],
  ['plain', undefined],
])('%s', (_, wrapper) => {
  const options = wrapper ? { wrapper } : {}

  test('useJob goes from the trigger to the output', async () => {
    transport.answer('POST /trigger', { body: { runId: 'run-1', disposition: 'created' } })
    const { result } = renderHook(() => useJob({ client, jobName: 'import-csv' }), options)
    expect(result.current).toMatchObject({ status: null, currentRunId: null, isActive: false })
    await act(() => result.current.trigger({ filename: 'a' }))
    expect(result.current).toMatchObject({ currentRunId: 'run-1', isPending: true, isActive: true })
    send('run:leased')
    send('run:progress', { progress: { current: 1, total: 2 } })
    expect(result.current).toMatchObject({ isLeased: true, progress: { current: 1, total: 2 } })
    send('run:complete', { output: { count: 2 } })
    expect(result.current).toMatchObject({ isCompleted: true, isTerminal: true, output: { count: 2 } })
    act(() => result.current.reset())
    expect(result.current).toMatchObject({ status: null, output: null, currentRunId: null })
  })

  test('one connection per stream, and none after the last component', async () => {
    const { unmount } = renderHook(() => {
      useJobRun({ client, runId: 'run-1' })
      useJobLogs({ client, runId: 'run-1' })
      useRuns({ client })
      useRuns({ client })
    }, options)
    await settle()
    expect(transport.live.map(({ path }) => path)).toEqual(['/subscribe?runId=run-1', '/runs/subscribe'])
    unmount()
    await settle()
    expect(transport.live).toEqual([])
  })

  test('useJobRun calls back once for each turn, even for those one render merges', async () => {
    const calls: unknown[] = []
    renderHook(
      () =>
        useJobRun({
          client,
          runId: 'run-1',
          onStart: () => calls.push('start'),
          onComplete: (output) => calls.push(['complete', output]),
          onFail: (error) => calls.push(['fail', error]),
        }),
      options,
    )
    act(() => {
      const stream = transport.stream('/subscribe')
      stream.send(anEvent('run:leased'))
      stream.send(anEvent('run:complete', { output: 1 }))
      stream.send(anEvent('run:complete', { output: 1 }))
    })
    await settle()
    expect(calls).toEqual(['start', ['complete', 1]])
  })

  test('changing maxLogs calls nobody back again', async () => {
    transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
    const onStart = vi.fn()
    const { rerender } = renderHook(({ maxLogs }) => useJobRun({ client, runId: 'run-1', maxLogs, onStart }), {
      ...options,
      initialProps: { maxLogs: 10 },
    })
    act(() => transport.stream('/subscribe').open())
    await settle()
    rerender({ maxLogs: 20 })
    await settle()
    expect(onStart).toHaveBeenCalledOnce()
  })

  test('a failed run tells its error', () => {
    const onFail = vi.fn()
    const { result } = renderHook(() => useJobRun({ client, runId: 'run-1', onFail }), options)
    send('run:fail', { error: 'boom' })
    expect(result.current).toMatchObject({ isFailed: true, error: 'boom' })
    expect(onFail.mock.calls).toEqual([['boom']])
  })

  test('a run is pending until the server says otherwise, and starts when the server says so', async () => {
    let answer: (answer: { body: unknown }) => void = () => {}
    transport.answer('GET /run?', () => new Promise((resolve) => (answer = resolve)))
    const onStart = vi.fn()
    const { result } = renderHook(() => useJobRun({ client, runId: 'run-1', onStart }), options)
    act(() => transport.stream('/subscribe').open())
    expect(result.current).toMatchObject({ status: 'pending', isPending: true, isActive: true })
    expect(onStart).not.toHaveBeenCalled()
    answer({ body: aRun({ status: 'pending' }) })
    await settle()
    send('run:leased')
    expect(result.current.status).toBe('leased')
    expect(onStart).toHaveBeenCalledOnce()
  })

  test('a run that there is not, or no longer, is not pending', async () => {
    transport.answer('GET /run?', { status: 404, body: { error: 'Run not found' } })
    const { result } = renderHook(
      () => [useJobRun({ client, runId: 'run-1' }), useJobRun({ client, runId: 'run-2' })] as const,
      options,
    )
    expect(result.current).toMatchObject([{ isPending: true }, { isPending: true }])
    act(() => transport.stream('/subscribe?runId=run-1').drop())
    await settle()
    send('run:delete', { runId: 'run-2' })
    expect(result.current).toMatchObject([
      { status: null, isActive: false, error: 'Run not found' },
      { status: null, isActive: false, error: 'Run was deleted' },
    ])
  })

  interface Props {
    runId: string | null
  }

  test('useJobRun follows another run as soon as it is given one', async () => {
    const initialProps: Props = { runId: 'run-1' }
    const { result, rerender } = renderHook(
      ({ runId }: Props) => useJobRun({ client, runId }),
      { ...options, initialProps },
    )
    send('run:fail', { error: 'boom' })
    rerender({ runId: 'run-2' })
    expect(result.current).toMatchObject({ status: 'pending', error: null })
    send('run:leased', { runId: 'run-2' })
    expect(result.current.isLeased).toBe(true)
    rerender({ runId: null })
    await settle()
    expect(result.current.status).toBeNull()
    expect(transport.live).toEqual([])
  })

  test('useJobLogs keeps the latest logs until they are cleared', () => {
    const { result } = renderHook(() => useJobLogs({ client, runId: 'run-1', maxLogs: 2 }), options)
    act(() => ['a', 'b', 'c'].forEach((text, i) => transport.stream('/subscribe').send(aLogEvent(text, i))))
    expect(result.current.logs.map(({ message }) => message)).toEqual(['b', 'c'])
    act(() => result.current.clearLogs())
    expect(result.current.logs).toEqual([])
  })

  test('useRuns pages through the runs, with a filter written in place', async () => {
    transport.answer('GET /runs?', { body: [aRun({ id: 'a' }), aRun({ id: 'b' })] })
    const { result } = renderHook(
      () => useRuns({ client, jobName: ['import-csv'], labels: { env: 'dev' }, pageSize: 1 }),
      options,
    )
    expect(result.current).toMatchObject({ runs: [], isLoading: true })
    await settle()
    expect(result.current).toMatchObject({ isLoading: false, hasMore: true, page: 0 })
    act(() => result.current.nextPage())
    await settle()
    expect(result.current.page).toBe(1)
    expect(transport.requests.at(-1)?.path).toContain('limit=2&offset=1')
  })

  test('useRuns keeps what it shows while another page size is on its way', async () => {
    transport.answer('GET /runs?', { body: [aRun({ id: 'a' }), aRun({ id: 'b' })] })
    const { result, rerender } = renderHook(({ pageSize }) => useRuns({ client, pageSize }), {
      ...options,
      initialProps: { pageSize: 1 },
    })
    await settle()
    expect(new Set(transport.requests.map(({ path }) => path))).toEqual(new Set(['/runs?limit=2&offset=0']))
    act(() => result.current.nextPage())
    await settle()
    rerender({ pageSize: 2 })
    expect(result.current).toMatchObject({ runs: [{ id: 'a' }], page: 0, isLoading: true })
    await settle()
    expect(result.current).toMatchObject({ runs: [{ id: 'a' }, { id: 'b' }], hasMore: false, isLoading: false })
    expect(transport.asked('GET /runs?').at(-1)?.path).toBe('/runs?limit=3&offset=0')
  })

  test('useRuns stops and begins to follow what happens with the page as it is', async () => {
    transport.answer('GET /runs?', { body: [aRun()] })
    const { result, rerender } = renderHook(({ realtime }) => useRuns({ client, realtime }), {
      ...options,
      initialProps: { realtime: false },
    })
    await settle()
    expect(transport.connections).toEqual([])
    const asked = transport.asked('GET /runs?').length
    rerender({ realtime: true })
    expect(result.current).toMatchObject({ runs: [{ id: 'run-1' }], isLoading: false })
    act(() => transport.stream('/runs/subscribe').open())
    await settle()
    expect(transport.asked('GET /runs?')).toHaveLength(asked + 1)
    rerender({ realtime: false })
    await settle()
    expect(result.current).toMatchObject({ runs: [{ id: 'run-1' }], isLoading: false })
    expect(transport.live).toEqual([])
    expect(transport.asked('GET /runs?')).toHaveLength(asked + 1)
  })

  test('useRuns shows progress at once', async () => {
    transport.answer('GET /runs?', { body: [aRun()] })
    const { result } = renderHook(() => useRuns({ client }), options)
    await settle()
    act(() => transport.stream('/runs/subscribe').send(anEvent('run:progress', { progress: { current: 9 } })))
    expect(result.current.runs[0]).toMatchObject({ status: 'leased', progress: { current: 9 } })
  })
})

test('triggerAndWait resolves with the output', async () => {
  transport.answer('POST /trigger', { body: { runId: 'run-1', disposition: 'created' } })
  const { result } = renderHook(() => useJob({ client, jobName: 'import-csv' }))
  const waiting = result.current.triggerAndWait({})
  await settle()
  send('run:complete', { output: 5 })
  expect(await waiting).toEqual({ runId: 'run-1', disposition: 'created', output: 5 })
})

test('changing followLatest keeps the run that is followed', async () => {
  transport.answer('POST /trigger', { body: { runId: 'run-1', disposition: 'created' } })
  const { result, rerender } = renderHook(
    ({ followLatest }) => useJob({ client, jobName: 'import-csv', followLatest }),
    { initialProps: { followLatest: true } },
  )
  await act(() => result.current.trigger({}))
  rerender({ followLatest: false })
  await settle()
  expect(result.current.currentRunId).toBe('run-1')
  expect(transport.live.map(({ path }) => path)).toEqual(['/subscribe?runId=run-1'])
})

test('changing maxLogs keeps the run that is followed', async () => {
  transport.answer('POST /trigger', { body: { runId: 'run-1', disposition: 'created' } })
  const { result, rerender } = renderHook(({ maxLogs }) => useJob({ client, jobName: 'import-csv', maxLogs }), {
    initialProps: { maxLogs: 2 },
  })
  await act(() => result.current.trigger({}))
  act(() => ['a', 'b', 'c'].forEach((text, i) => transport.stream('/subscribe').send(aLogEvent(text, i))))
  rerender({ maxLogs: 1 })
  expect(result.current.currentRunId).toBe('run-1')
  expect(result.current.logs.map(({ message }) => message)).toEqual(['c'])
})

test('changing autoResume keeps the run that is followed', async () => {
  transport.answer('POST /trigger', { body: { runId: 'run-1', disposition: 'created' } })
  const { result, rerender } = renderHook(
    ({ autoResume }) => useJob({ client, jobName: 'import-csv', autoResume }),
    { initialProps: { autoResume: true } },
  )
  await act(() => result.current.trigger({}))
  rerender({ autoResume: false })
  expect(result.current.currentRunId).toBe('run-1')
})

test('a page that is shown again goes on with the run it had, not with initialRunId', async () => {
  let mode: 'visible' | 'hidden' = 'visible'
  transport.answer('POST /trigger', { body: { runId: 'run-2', disposition: 'created' } })
  const { result, rerender } = renderHook(() => useJob({ client, jobName: 'import-csv', initialRunId: 'run-1' }), {
    wrapper: ({ children }) => <Activity mode={mode}>{children}</Activity>,
  })
  async function hideAndShow() {
    for (mode of ['hidden', 'visible'] as const) {
      rerender()
      await settle()
    }
  }
  await act(() => result.current.trigger({}))
  await hideAndShow()
  expect(result.current.currentRunId).toBe('run-2')
  act(() => result.current.reset())
  await hideAndShow()
  expect(result.current.currentRunId).toBeNull()
})

test('initialRunId is followed from the start', () => {
  const { result } = renderHook(() => useJob({ client, jobName: 'import-csv', initialRunId: 'run-1' }))
  send('run:complete', { output: 5 })
  expect(result.current).toMatchObject({ currentRunId: 'run-1', output: 5 })
})

test('a page that is told the id of the run it follows goes on; another id is followed', async () => {
  transport.answer('POST /trigger', { body: { runId: 'run-1', disposition: 'created' } })
  const { result, rerender } = renderHook(
    ({ initialRunId }) => useJob({ client, jobName: 'import-csv', initialRunId, followLatest: false }),
    { initialProps: { initialRunId: undefined as string | undefined } },
  )
  await act(() => result.current.trigger({}))
  send('run:progress', { progress: { current: 3 } })
  rerender({ initialRunId: 'run-1' })
  expect(result.current).toMatchObject({ currentRunId: 'run-1', progress: { current: 3 } })
  rerender({ initialRunId: 'run-2' })
  expect(result.current).toMatchObject({ currentRunId: 'run-2', progress: null })
})

test('a run that cannot be asked for is pending as far as one knows, and says why', async () => {
  transport.answer('GET /run?', { status: 500, body: '{"error":"Internal server error"}' })
  const { result } = renderHook(() => useJobRun({ client, runId: 'run-1' }))
  act(() => transport.stream('/subscribe').open())
  await settle()
  expect(result.current).toMatchObject({ status: 'pending', error: 'Internal server error' })
})

test.each([null, undefined, ''])('%j in place of a run id is no run yet: nothing is asked for', async (none) => {
  transport.answer('GET /runs?', { body: [aRun({ id: 'run-7', status: 'leased' })] })
  const { result } = renderHook(() => ({
    run: useJobRun({ client, runId: none }),
    logs: useJobLogs({ client, runId: none }),
  }))
  const { result: job } = renderHook(() => useJob({ client, jobName: 'import-csv', initialRunId: none }))
  await settle()
  expect(result.current.run).toMatchObject({ status: null, error: null, isActive: false })
  expect(job.current.currentRunId).toBe('run-7')
  expect(transport.live.map(({ path }) => path)).not.toContain('/subscribe?runId=')
})

test('all hooks of one address share a client, and its event streams', () => {
  const opened: string[] = []
  class Source {
    constructor(url: string) {
      opened.push(url)
    }
    close() {}
  }
  vi.stubGlobal('EventSource', Source)
  vi.stubGlobal('fetch', () => new Promise(() => {}))
  const durably = createDurably({ api: '/shared' })
  renderHook(() => {
    durably.useRuns()
    useRuns({ api: '/shared' })
  })
  expect(opened).toEqual(['/shared/runs/subscribe'])
  vi.unstubAllGlobals()
})

test('actions are the same functions in every render, and say what the server said', async () => {
  transport.answer('POST /cancel?', { body: { success: true } })
  transport.answer('POST /retrigger?', { body: { success: true, runId: 'run-2' } })
  transport.answer('DELETE /run?', { status: 409, body: { error: 'Cannot delete leased run' } })
  const { result, rerender } = renderHook(() => useRunActions({ client }))
  const first = result.current
  rerender()
  expect(result.current).toBe(first)
  await first.cancel('run-1')
  expect(await first.retrigger('run-1')).toBe('run-2')
  expect(await first.getRun('run-1')).toBeNull()
  await expect(first.deleteRun('run-1')).rejects.toThrow('Cannot delete leased run')
})

test('a render that is thrown away opens nothing', async () => {
  const never = new Promise<never>(() => {})
  function Suspended(): ReactNode {
    useJobRun({ client, runId: 'run-1' })
    useJob({ client, jobName: 'import-csv' })
    return use(never)
  }
  await act(() => {
    render(
      <Suspense fallback="waiting">
        <Suspended />
      </Suspense>,
    )
    return Promise.resolve()
  })
  await settle()
  expect([transport.requests, transport.connections]).toEqual([[], []])
})

test('components that render at different times in a transition agree on the state', async () => {
  let show: (shown: boolean) => void = () => {}
  function Status() {
    return <span>{useJobRun({ client, runId: 'run-1' }).status}</span>
  }
  function Page() {
    const [shown, setShown] = useState(false)
    show = setShown
    return <>{[<Status key="a" />, shown && <Status key="b" />]}</>
  }
  transport.answer('GET /run?', { body: aRun({ status: 'leased' }) })
  const { container } = render(<Page />)
  act(() => transport.stream('/subscribe').open())
  await settle()
  act(() => startTransition(() => show(true)))
  await settle()
  expect([...container.querySelectorAll('span')].map((span) => span.textContent)).toEqual(['leased', 'leased'])
})

test('what has the jobs can be written into a text', () => {
  expect(`Hooks: ${createDurably({ client }) as unknown as string}`).toBe('Hooks: [object Durably]')
})

test('the hooks of a job are the same in every render', () => {
  const durably = createDurably({ client, names: { nightly: 'reports.nightly' } })
  expect(durably['importCsv']).toBe(durably['importCsv'])
  const { result } = renderHook(() => durably['nightly']!.useRun('run-1'))
  send('run:leased')
  expect(result.current.isLeased).toBe(true)
  renderHook(() => durably['nightly']!.useJob())
  expect(transport.stream('/runs/subscribe').path).toBe('/runs/subscribe?jobName=reports.nightly')
})
