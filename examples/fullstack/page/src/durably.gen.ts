// Written by `durably types`: change the jobs, not this file.

export interface ColumnSummary {
  name: string
  kind: 'number' | 'text' | 'empty'
  filled: number
  distinct: number
  smallest: string | null
  largest: string | null
}

/** `pause` is seconds of rest after each batch, so that a small file can be watched, too. */
export interface ImportCsv {
  file: string
  batch_size?: number
  pause?: number
}

export interface Imported {
  rows: number
  skipped: number
}

export interface SummarizeCsv {
  file: string
}

export interface Summary {
  rows: number
  columns: ColumnSummary[]
}

export interface Jobs {
  importCsv: {
    input: ImportCsv
    output: Imported
  }
  summarizeCsv: {
    input: SummarizeCsv
    output: Summary
  }
}

export const jobNames = {
  importCsv: 'import-csv',
  summarizeCsv: 'summarize-csv',
} as const
