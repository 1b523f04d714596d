import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test, vi } from 'vitest'
import { Proxy } from '../../../durably-client/test/support/proxy.js'
import { bundlePage } from './bundle.js'
import { launchChromium } from './chromium.js'

const HTML = '<!doctype html><div id="root"></div><script type="module" src="/page.js"></script>'
const PATIENT = { timeout: 15_000, interval: 50 }

let browser: Browser
let script: string
let proxy: Proxy
let page: Page
let problems: string[]
let count = 0

beforeAll(async () => {
  browser = await launchChromium()
  script = await bundlePage()
})

afterAll(() => browser.close())

beforeEach(async () => {
  const path = `/?tag=browser-${process.pid}-${Date.now()}-${count++}`
  proxy = new Proxy(inject('durablyUrl'), {
    [path]: { type: 'text/html', body: HTML },
    '/page.js': { type: 'text/javascript', body: script },
    '/favicon.ico': { type: 'image/x-icon', body: '' },
  })
  page = await browser.newPage()
  problems = []
  page.on('pageerror', (error) => problems.push(error.message))
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(message.text())
  })
  await page.goto((await proxy.listen()) + path)
})

afterEach(async () => {
  await page.close()
  proxy.close()
})

const text = (selector: string) => page.textContent(selector)
const runs = () => page.locator('#runs li').allTextContents()

test('a click triggers a job; progress, logs and output show without a reload', async () => {
  await page.click('#import button')
  await page.waitForSelector('#import .output')
  expect(await text('#import .output')).toBe('Imported 3 rows')
  expect(await page.getAttribute('progress', 'aria-label')).toBe('row 3 of 3')
  await vi.waitFor(
    async () =>
      expect(await page.locator('#import li').allTextContents()).toEqual([
        'import started',
        'parsed 3 rows',
        'first row',
        'import finished',
      ]),
    PATIENT,
  )
  await vi.waitFor(async () => expect(await runs()).toEqual(['import-csv completed']), PATIENT)
  expect(problems).toEqual([])
})

test('a run can be cancelled while it is going on', async () => {
  await page.click('text=Start')
  await vi.waitFor(async () => expect(await text('.status')).toBe('leased'), PATIENT)
  await page.click('text=Cancel')
  await vi.waitFor(async () => expect(await text('.status')).toBe('cancelled'), PATIENT)
  await vi.waitFor(async () => expect(await runs()).toEqual(['slow cancelled']), PATIENT)
  expect(problems).toEqual([])
})

test('a cut connection is resumed with the id of the last event', async () => {
  await page.click('text=Start')
  await vi.waitFor(async () => expect(await text('.progress')).toBe('1'), PATIENT)
  proxy.cut()
  await vi.waitFor(async () => expect(await text('.status')).toBe('completed'), PATIENT)
  expect(await text('.progress')).toBe('8')
  const [first, second] = proxy.streams.filter((stream) => stream.includes('/subscribe?runId='))
  expect(first?.split(' ')[1]).toBe('')
  expect(second?.split(' ')[1]).not.toBe('')
})

test('connections that died unnoticed are replaced when the network is another one', async () => {
  await page.click('text=Start')
  await vi.waitFor(async () => expect(await text('.progress')).toBe('1'), PATIENT)
  proxy.forget()
  await page.evaluate(() => window.dispatchEvent(new Event('online')))
  await vi.waitFor(async () => expect(await text('.status')).toBe('completed'), PATIENT)
  await vi.waitFor(async () => expect(await runs()).toEqual(['slow completed']), PATIENT)
  expect(problems).toEqual([])
})

test('streams that the browser has given up are opened again', async () => {
  await page.click('text=Start')
  await vi.waitFor(async () => expect(await text('.progress')).toBe('1'), PATIENT)
  // A 503 leaves an EventSource closed for good.
  proxy.goDown()
  await new Promise((resolve) => setTimeout(resolve, 4000))
  proxy.comeBack()
  await vi.waitFor(async () => expect(await text('.status')).toBe('completed'), PATIENT)
  await vi.waitFor(async () => expect(await runs()).toEqual(['slow completed']), PATIENT)
})

test('one stream for a list, and none when the list is gone', async () => {
  const opened = () => proxy.streams.filter((stream) => stream.includes('/runs/subscribe'))
  await vi.waitFor(() => expect(opened()).toHaveLength(1), PATIENT)
  expect(proxy.openStreams.size).toBe(1)
  await page.click('#toggle')
  await vi.waitFor(() => expect(proxy.openStreams.size).toBe(0), PATIENT)
  await page.click('#toggle')
  await vi.waitFor(() => expect(proxy.openStreams.size).toBe(1), PATIENT)
  expect(opened()).toHaveLength(2)
  expect(problems).toEqual([])
})
