export interface Jobs {
  importCsv: {
    input: { file: string; batch_size?: number; pause?: number }
    output: { rows: number; skipped: number }
  }
  summarizeCsv: {
    input: { file: string }
    output: {
      rows: number
      columns: {
        name: string
        kind: 'number' | 'text' | 'empty'
        filled: number
        distinct: number
        smallest: string | null
        largest: string | null
      }[]
    }
  }
}

export const jobNames = {
  importCsv: 'import-csv',
  summarizeCsv: 'summarize-csv',
} as const
