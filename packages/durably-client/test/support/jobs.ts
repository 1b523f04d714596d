/** What `durably types` writes for some of the jobs of the test server. */
export interface Jobs {
  importCsv: {
    input: { filename: string }
    output: { count: number }
  }
  failAt: {
    input: { step: number }
    output: unknown
  }
  slow: {
    input: { ms: number; steps: number; fastSteps?: number }
    output: { done: number }
  }
  anything: {
    name: 'echo'
    input: { value: unknown }
    output: unknown
  }
}

export const jobNames = {
  importCsv: 'import-csv',
  failAt: 'fail-at',
  slow: 'slow',
  anything: 'echo',
} as const
