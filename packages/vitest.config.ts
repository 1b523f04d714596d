import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const sources = {
  'durably-client': fileURLToPath(new URL('durably-client/src/index.ts', import.meta.url)),
  'durably-react': fileURLToPath(new URL('durably-react/src/index.ts', import.meta.url)),
}

const resolve = { alias: sources }

export default defineConfig({
  test: {
    projects: [
      {
        resolve,
        test: { name: 'unit', include: ['*/test/unit/**/*.test.{ts,tsx}'] },
      },
      {
        resolve,
        test: {
          name: 'server',
          include: ['*/test/server/**/*.test.{ts,tsx}'],
          globalSetup: ['durably-client/test/support/start-server.ts'],
          // All files share one server: a hook that looks for active runs would find those of other files.
          fileParallelism: false,
          testTimeout: 20_000,
        },
      },
      {
        resolve,
        test: {
          name: 'browser',
          include: ['*/test/browser/**/*.test.{ts,tsx}'],
          globalSetup: ['durably-client/test/support/start-server.ts'],
          // All files share one server: a hook that looks for active runs would find those of other files.
          fileParallelism: false,
          testTimeout: 30_000,
          hookTimeout: 60_000,
        },
      },
      {
        // The tests stand outside of this folder, and use what is installed in it.
        resolve: { alias: { 'playwright-core': fileURLToPath(import.meta.resolve('playwright-core')) } },
        test: {
          name: 'fullstack',
          include: ['../tests/fullstack/*.test.ts'],
          testTimeout: 60_000,
          // Building the page may mean installing what it is made of.
          hookTimeout: 300_000,
        },
      },
    ],
  },
})
