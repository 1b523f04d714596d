import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { CoalescedTask } from '../../src/coalesced-task.js'

const INTERVAL_MS = 100

let finish: (() => void)[]
let task: CoalescedTask

beforeEach(() => {
  vi.useFakeTimers()
  finish = []
  task = new CoalescedTask(() => new Promise((resolve) => finish.push(resolve)), INTERVAL_MS)
})

afterEach(() => vi.useRealTimers())

async function finishLatest(): Promise<void> {
  finish.at(-1)?.()
  await vi.advanceTimersByTimeAsync(INTERVAL_MS)
}

test('any number of requests while it is busy repeat it once', async () => {
  for (let i = 0; i < 5; i++) task.request()
  expect(finish).toHaveLength(1)
  await finishLatest()
  expect(finish).toHaveLength(2)
  await finishLatest()
  expect(finish).toHaveLength(2)
})

test('what was requested before a cancel is not done', async () => {
  task.request()
  task.request()
  task.cancel()
  await finishLatest()
  expect(finish).toHaveLength(1)
})

test('a request after a cancel waits for the task that is still running', async () => {
  task.request()
  task.cancel()
  task.request()
  expect(finish).toHaveLength(1)
  await finishLatest()
  expect(finish).toHaveLength(2)
})
