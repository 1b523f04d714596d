import { mkdir } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Browser, BrowserContext, Locator, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { launchChromium } from '../../packages/durably-react/test/browser/chromium.js'
import { Application } from './application.js'

const PATIENT = { timeout: 20_000, interval: 50 }
const SCREENSHOTS = fileURLToPath(new URL('../../.work/screenshots/', import.meta.url))

let browser: Browser
let application: Application
let session: BrowserContext
let page: Page
let problems: string[]
let expectedStatus: string

beforeAll(async () => {
  await mkdir(SCREENSHOTS, { recursive: true })
  browser = await launchChromium()
})

afterAll(() => browser.close())

beforeEach(async () => {
  application = await Application.start()
  session = await browser.newContext({ viewport: { width: 1280, height: 900 } })
  problems = []
  expectedStatus = 'none'
  page = await open(await application.url())
})

afterEach(async () => {
  await session.close()
  expect(await application.stop()).toBe(0)
  // The browser has a word of its own on every request that is refused, as some should be.
  const refused = `Failed to load resource: the server responded with a status of ${expectedStatus}`
  expect(problems.filter((problem) => !problem.startsWith(refused))).toEqual([])
})

async function open(url: string): Promise<Page> {
  const opened = await session.newPage()
  opened.on('pageerror', (error) => problems.push(error.message))
  opened.on('console', (message) => {
    if (message.type() === 'error') problems.push(message.text())
  })
  await opened.goto(url)
  return opened
}

const shot = (name: string, of = page) => of.screenshot({ path: `${SCREENSHOTS}${name}.png`, animations: 'disabled' })
const details = (of = page) => of.locator('.details')
const runs = (of = page) => of.locator('.run')
const statusOf = (of = page) => details(of).locator('.status').textContent()
const button = (name: string, of: Page | Locator = page) => of.getByRole('button', { name, exact: true })
const percent = async (of = page) => Number(await details(of).locator('progress').getAttribute('value'))
const logs = (of = page) => details(of).locator('.log').allTextContents()
const focused = () => page.evaluate(() => document.activeElement?.id)

const csv = (name: string, lines: string[]) => ({
  name,
  mimeType: 'text/csv',
  buffer: Buffer.from(lines.join('\n')),
})
const people = (rows: number) =>
  csv('people.csv', ['name,age', ...Array.from({ length: rows }, (_, index) => `Person ${index},${index % 90}`)])

const choose = (file: ReturnType<typeof csv>) => page.setInputFiles('input[type=file]', file)
const hurry = () => page.getByLabel('Pause after each batch').uncheck()
const answer = (dialog: 'accept' | 'dismiss', of = page) => of.once('dialog', (asked) => void asked[dialog]())
const see = (read: () => Promise<unknown>, expected: unknown) =>
  vi.waitFor(async () => expect(await read()).toEqual(expected), PATIENT)
const reach = (share: number, of = page) =>
  vi.waitFor(async () => expect(await percent(of)).toBeGreaterThanOrEqual(share), PATIENT)

test('an uploaded file is imported, and every window shows how far it is', async () => {
  await choose(people(300))
  await reach(10)
  const other = await open(page.url())
  await reach(20, other)
  await see(() => runs(other).locator('.status').allTextContents(), ['Running'])
  await shot('running')
  await see(statusOf, 'Completed')
  await see(() => statusOf(other), 'Completed')
  await see(() => runs(other).locator('.status').allTextContents(), ['Completed'])
  expect(await details(other).locator('.result p').textContent()).toBe('300 rows imported.')
  expect(await logs()).toEqual(await logs(other))
})

test('a worker that is killed comes back, and the run goes on where it was', async () => {
  await button('Use the sample').click()
  await reach(30)
  process.kill(await application.worker(1), 'SIGKILL')
  const reached = await percent()
  await shot('worker-killed')
  await application.worker(2)
  await vi.waitFor(async () => expect((await logs()).join()).toContain('Attempt 2'), PATIENT)
  expect(await percent()).toBeGreaterThanOrEqual(reached)
  await see(statusOf, 'Completed')
  expect(await details().locator('.result p').textContent()).toContain('997 rows imported, 3 skipped, see the log.')
  // Rows 137, 402 and 871 are short. A step that was finished before the crash does not tell of them twice.
  expect((await logs()).filter((line) => line.includes('warn: Row'))).toHaveLength(3)
  await details().locator('.steps summary').click()
  expect(await details().locator('.steps li').count()).toBe(40)
  await shot('after-the-crash')
})

test('a run is cancelled, run again and deleted, in this window and in the other', async () => {
  expectedStatus = '404'
  await choose(people(2000))
  await reach(5)
  const cancelled = page.url()
  const other = await open(cancelled)
  await button('Cancel').dblclick()
  await see(() => statusOf(other), 'Cancelled')
  await shot('cancelled', other)
  expect(await runs().count()).toBe(1)

  await button('Run again').dblclick()
  await page.waitForURL((url) => url.href !== cancelled)
  await see(() => runs(other).locator('.status').allTextContents(), ['Running', 'Cancelled'])
  await button('Cancel').click()
  await see(statusOf, 'Cancelled')

  answer('accept', other)
  await button('Delete', other).click()
  await see(() => runs().count(), 1)
  await see(() => runs(other).count(), 1)
  answer('accept')
  await button('Delete').click()
  await see(() => runs(other).count(), 0)
  await see(() => page.getByText('There are no runs.').count(), 1)
})

test('a run that somebody deletes is not shown any longer', async () => {
  expectedStatus = '404'
  await hurry()
  await choose(people(10))
  await see(statusOf, 'Completed')
  const other = await open(page.url())
  await see(() => statusOf(other), 'Completed')
  answer('accept')
  await button('Delete').click()
  await see(() => other.getByRole('status').textContent(), 'There is no such run (any more).')
})

test('on a narrow page, choosing a run leads to it, and deleting it leads back to the list', async () => {
  expectedStatus = '404'
  await page.setViewportSize({ width: 390, height: 500 })
  await hurry()
  for (const name of ['first.csv', 'second.csv']) {
    await choose({ ...people(10), name })
    await see(() => page.locator('#run-title').textContent(), name)
    await see(focused, 'run-title')
    await see(statusOf, 'Completed')
  }
  const title = page.locator('#run-title')
  const isSeen = () => title.evaluate((element) => element.getBoundingClientRect().top < window.innerHeight)
  for (const name of ['first.csv', 'first.csv', 'second.csv']) {
    await page.evaluate(() => window.scrollTo({ top: 0 }))
    expect(await isSeen()).toBe(false)
    await runs().filter({ hasText: name }).getByRole('link').click()
    await see(() => title.textContent(), name)
    await see(isSeen, true)
  }
  await see(focused, 'run-title')

  answer('dismiss')
  await button('Delete').click()
  expect(await runs().count()).toBe(2)
  answer('accept')
  await button('Delete').click()
  await see(() => runs().count(), 1)
  await see(() => details().count(), 0)
  expect(await focused()).toBe('runs-title')
})

test('a bar says that nothing is known of progress, and is gone when the run has ended without', async () => {
  await hurry()
  await choose(people(10))
  await see(statusOf, 'Completed')
  const goOn = await application.pauseWorker(1)
  try {
    await button('Summarize the columns').click()
    await see(statusOf, 'Waiting')
    expect(await details().locator('progress:indeterminate').count()).toBe(1)
    await shot('waiting')
    await button('Cancel').click()
    await see(statusOf, 'Cancelled')
    expect(await details().locator('progress').count()).toBe(0)
  } finally {
    goOn()
  }
})

test('the log follows its end, unless somebody reads above it', async () => {
  await choose(csv('short.csv', ['name,age', ...Array.from({ length: 500 }, (_, index) => `Person ${index}`)]))
  const box = details().getByRole('log')
  const hidden = () => box.evaluate((log) => log.scrollHeight - log.clientHeight - log.scrollTop)
  await vi.waitFor(async () => expect((await logs()).length).toBeGreaterThan(100), PATIENT)
  expect(await hidden()).toBeLessThan(2)
  await box.evaluate((log) => log.scrollTo({ top: 40 }))
  const read = (await logs()).length
  await vi.waitFor(async () => expect((await logs()).length).toBeGreaterThan(read + 50), PATIENT)
  expect(await box.evaluate((log) => log.scrollTop)).toBe(40)
  await shot('log')
})

test('files are dropped into the zone, one at a time, and nowhere else', async () => {
  const drag = (target: string, type: string, names: string[]) =>
    page.locator(target).evaluate(
      (element, [type, names]) => {
        const dataTransfer = new DataTransfer()
        for (const name of names) dataTransfer.items.add(new File(['name,age\nAda,36'], name))
        const event = new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true })
        element.dispatchEvent(event)
        return event.defaultPrevented
      },
      [type, names] as const,
    )
  await drag('.drop', 'dragover', ['one.csv'])
  await see(() => page.locator('.dragging').count(), 1)
  await shot('dragging')
  await drag('.drop', 'drop', ['one.csv', 'two.csv'])
  await see(() => page.getByRole('alert').textContent(), 'Drop one file at a time.')
  expect(await page.locator('.dragging').count()).toBe(0)
  expect(await drag('body', 'dragover', ['one.csv'])).toBe(true)
  expect(await drag('body', 'drop', ['one.csv'])).toBe(true)
  expect(await runs().count()).toBe(0)
  await drag('.drop', 'drop', ['one.csv'])
  await see(() => runs().count(), 1)
})

test('the list is filtered by status, job and file', async () => {
  await hurry()
  await choose(people(40))
  await see(statusOf, 'Completed')
  await button('Summarize the columns').click()
  await see(() => details().locator('tbody th').allTextContents(), ['name', 'age'])
  await shot('summary')
  await choose(csv('empty.csv', ['only,a,header']))
  await see(() => runs().count(), 3)
  const shown = () => runs().evaluateAll((rows) => rows.map((row) => row.textContent.replace('just now', '|')))

  expect(await page.getByLabel('Status').locator('option').allTextContents()).toEqual([
    'any',
    'Waiting',
    'Running',
    'Completed',
    'Failed',
    'Cancelled',
  ])
  await page.getByLabel('Job').selectOption('summarize-csv')
  await see(shown, ['summarize-csv|Completedpeople.csv'])
  await button('Clear').click()
  await button('people.csv').first().click()
  await see(shown, ['summarize-csv|Completedpeople.csv', 'import-csv|Completedpeople.csv'])
  await page.getByLabel('Status').selectOption('failed')
  await see(() => page.getByText('No run matches the filter.').count(), 1)
})

test('what cannot be imported is refused, and what fails says why', async () => {
  expectedStatus = '400'
  await choose({ name: 'cat.csv', mimeType: 'text/csv', buffer: Buffer.from([0xff, 0xfe, 0x00]) })
  await see(() => page.getByRole('alert').textContent(), 'cat.csv is not UTF-8 text: byte 0 cannot be read.')
  expect(await runs().count()).toBe(0)
  await shot('refused')
})

test('everything can be reached with the keyboard, and the dark theme is one', async () => {
  await page.emulateMedia({ colorScheme: 'dark' })
  await button('Use the sample').focus()
  await page.keyboard.press('Enter')
  await reach(5)
  await runs().getByRole('link').focus()
  await page.keyboard.press('Tab')
  expect(await page.evaluate(() => document.activeElement?.textContent)).toBe('orders.csv')
  await button('Cancel').focus()
  await page.keyboard.press('Enter')
  await see(statusOf, 'Cancelled')
  const lightness = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor)
  expect(lightness).toBe('rgb(20, 22, 27)')
  await shot('dark')
  await page.setViewportSize({ width: 390, height: 844 })
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  expect(overflow).toBe(0)
  await shot('narrow')
})
