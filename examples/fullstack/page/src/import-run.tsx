import type { Labels } from 'durably-react'
import { durably } from './durably'
import { count } from './format'
import { Live, MAX_LOGS } from './live'
import { Problem } from './problem'
import { useAttempt } from './use-attempt'

interface ImportRunProps {
  runId: string
  file: string
  labels: Labels
  onTriggered: (runId: string) => void
}

export function ImportRun({ runId, file, labels, onTriggered }: ImportRunProps) {
  const run = durably.importCsv.useRun(runId, { maxLogs: MAX_LOGS })
  return (
    <Live run={run}>
      {run.output && (
        <div className="result">
          <p>
            <strong>{count(run.output.rows, 'row')}</strong> imported
            {run.output.skipped > 0 && <>, {run.output.skipped} skipped, see the log</>}.
          </p>
          <Summarize file={file} labels={labels} onTriggered={onTriggered} />
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
  const { attempt, isBusy, problem } = useAttempt()
  const summarize = async () => onTriggered((await trigger({ file }, { labels })).runId)
  return (
    <>
      <button type="button" className="primary" disabled={isBusy} onClick={() => attempt(summarize)}>
        Summarize the columns
      </button>
      <Problem text={problem} />
    </>
  )
}
