import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const BEGIN_TO_WRITE = 'import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute("BEGIN IMMEDIATE")'
const REPOSITORY = fileURLToPath(new URL('../../', import.meta.url))

/** The whole example, as its one command starts it, on a database of its own. */
export class Application {
  readonly #process: ChildProcess
  readonly #folder: string
  readonly #python: string
  readonly #lines: string[] = []
  readonly #listeners = new Set<() => void>()

  static async start(): Promise<Application> {
    return new Application(await mkdtemp(join(tmpdir(), 'durably-fullstack-')))
  }

  private constructor(folder: string) {
    const python = process.env['DURABLY_PYTHON'] ?? `${REPOSITORY}.venv/bin/python`
    if (python.includes('/') && !existsSync(python)) {
      throw new Error(
        `These tests need the example's server, but there is no interpreter at ${python}. ` +
          'Set up the virtual environment, or set DURABLY_PYTHON to an interpreter.',
      )
    }
    this.#folder = folder
    this.#python = python
    this.#process = spawn(python, ['-m', 'examples.fullstack', '--port', '0', '--data', folder], {
      cwd: REPOSITORY,
      // Vitest sets it, and the page would be built for development.
      env: { ...process.env, NODE_ENV: undefined },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    if (this.#process.stdout) createInterface(this.#process.stdout).on('line', (line) => this.#hear(line))
    this.#process.on('exit', (code) => this.#hear(`ended with status ${code}`))
  }

  /** Where the page is. */
  async url(): Promise<string> {
    return (await this.#said(/^Open (\S+)$/, 1))[1] ?? ''
  }

  /** The process id of the `nth` worker that was started. */
  async worker(nth: number): Promise<number> {
    return Number((await this.#said(/^Worker (\d+) is running/, nth))[1])
  }

  /** Stops the `nth` worker where it holds up nobody who writes, and returns what lets it go on. */
  async pauseWorker(nth: number): Promise<() => void> {
    const worker = await this.worker(nth)
    for (;;) {
      process.kill(worker, 'SIGSTOP')
      const begun = spawnSync(this.#python, ['-c', BEGIN_TO_WRITE, join(this.#folder, 'app.db')])
      if (begun.status === 0) return () => process.kill(worker, 'SIGCONT')
      process.kill(worker, 'SIGCONT')
    }
  }

  /** Ends all processes, as Ctrl-C does. */
  async stop(): Promise<number | null> {
    const ended = new Promise<number | null>((resolve) => this.#process.once('exit', resolve))
    this.#process.kill('SIGINT')
    const status = this.#process.exitCode ?? (await ended)
    await rm(this.#folder, { recursive: true })
    return status
  }

  #hear(line: string): void {
    this.#lines.push(line)
    for (const listener of this.#listeners) listener()
  }

  async #said(pattern: RegExp, nth: number): Promise<RegExpExecArray> {
    for (;;) {
      const match = this.#lines.map((line) => pattern.exec(line)).filter((found) => found !== null)[nth - 1]
      if (match) return match
      if (this.#process.exitCode !== null) throw new Error(`The example ended:\n${this.#lines.join('\n')}`)
      await new Promise<void>((resolve) => {
        const listener = () => {
          this.#listeners.delete(listener)
          resolve()
        }
        this.#listeners.add(listener)
      })
    }
  }
}
