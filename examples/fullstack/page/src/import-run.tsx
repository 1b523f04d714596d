import type { Labels } from 'durably-react'
import { useState } from 'react'
import { durably } from './durably'
import { count } from './format'
import { Live } from './live'

interface ImportRunProps {
  runId: string
  file: string
  labels: Labels
  onSelect: (runId: string) => void
}

export function ImportRun({ runId, file, labels, onSelect }: ImportRunProps) {
  const run = durably.importCsv.useRun(runId)
  return (
    <Live run={run}>
      {run.output && (
        <div className="result">
          <p>
            <strong>{count(run.output.rows, 'row')}</strong> imported
            {run.output.skipped > 0 && <>, {run.output.skipped} skipped, see the log</>}.
          </p>
          <Summarize file={file} labels={labels} onTriggered={onSelect} />
        </div>
      )}
    </Live>
  )
}

interface SummarizeProps {
  file: string
  labels: Labels
  onTriggered: (runId: string) => void
}

function Summarize({ file, labels, onTriggered }: SummarizeProps) {
  const { trigger } = durably.summarizeCsv.useJob({ autoResume: false, followLatest: false })
  const [problem, setProblem] = useState<string | null>(null)
  async function summarize() {
    try {
      onTriggered((await trigger({ file }, { labels })).runId)
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error))
    }
  }
  return (
    <>
      <button type="button" className="primary" onClick={() => void summarize()}>
        Summarize the columns
      </button>
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </>
  )
}
