import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { TestProject } from 'vitest/node'

declare module 'vitest' {
  interface ProvidedContext {
    durablyUrl: string
  }
}

const REPOSITORY = fileURLToPath(new URL('../../../../', import.meta.url))
const START_TIMEOUT_MS = 30_000

/** Gives the tests a Durably server: the one at DURABLY_TEST_URL, or one started for this test run. */
export default async function setup(project: TestProject): Promise<() => void> {
  const given = process.env['DURABLY_TEST_URL']
  if (given) {
    project.provide('durablyUrl', given)
    return () => {}
  }
  const server = startServer()
  project.provide('durablyUrl', await baseUrlOf(server))
  return () => void server.kill()
}

function startServer(): ChildProcess {
  const python = process.env['DURABLY_PYTHON'] ?? `${REPOSITORY}.venv/bin/python`
  if (python.includes('/') && !existsSync(python)) {
    throw new Error(
      `These tests need the Python test server, but there is no interpreter at ${python}. ` +
        'Set up the virtual environment, or set DURABLY_PYTHON to an interpreter, ' +
        'or DURABLY_TEST_URL to a server that is already running.',
    )
  }
  return spawn(python, ['-m', 'tests.contract.server', '--port', '0'], {
    cwd: REPOSITORY,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

function baseUrlOf(server: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    const giveUp = setTimeout(() => {
      server.kill()
      reject(new Error('The test server did not say where it listens'))
    }, START_TIMEOUT_MS)
    server.once('error', reject)
    server.once('exit', (code) => reject(new Error(`The test server ended with status ${code}`)))
    if (!server.stdout) return
    createInterface(server.stdout).once('line', (line) => {
      clearTimeout(giveUp)
      const url = /^listening on (\S+)$/.exec(line)?.[1]
      if (url) resolve(url)
      else reject(new Error(`The test server said "${line}" instead of where it listens`))
    })
  })
}
