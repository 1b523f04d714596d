import type { ClientRun, StepRecord } from 'durably-react'
import { useEffect, useState } from 'react'
import { durably } from './durably'
import { jobNames } from './durably.gen'
import { clock, count, duration } from './format'
import { ImportRun } from './import-run'
import { RunActions } from './run-actions'
import { SummaryRun } from './summary-run'
import { messageOf } from './use-attempt'

interface RunDetailsProps {
  runId: string
  /** Changes when something happened to any run of the list. */
  revision: string
  onTriggered: (runId: string) => void
  onDeleted: () => void
}

/** Everything about one run. What changes while it runs comes from the hooks inside. */
export function RunDetails({ runId, revision, onTriggered, onDeleted }: RunDetailsProps) {
  // A run of any job has a status; what it returned is for the hooks of its own job, inside.
  const { status } = durably.importCsv.useRun(runId, { maxLogs: 0 })
  const { run, steps, problem } = useStoredRun(runId, `${revision} ${status ?? ''}`)
  if (problem !== null) return <Placeholder text={problem} />
  if (run === null) return <Placeholder text="Loading …" />

  const file = (run.input as { file: string }).file
  return (
    // The id is what the address ends in: choosing the same run again scrolls to it.
    <section id={runId} className="card details" aria-labelledby="run-title">
      <header>
        <div>
          <h2 id="run-title" tabIndex={-1} ref={focus}>
            {run.labels['file'] ?? run.jobName}
          </h2>
          <p className="muted">
            {run.jobName} · triggered at {clock(run.createdAt)}
          </p>
          <p className="muted">
            <code>{run.id}</code>
          </p>
        </div>
        <RunActions run={run} onTriggered={onTriggered} onDeleted={onDeleted} />
      </header>
      {run.jobName === jobNames.summarizeCsv ? (
        <SummaryRun runId={runId} />
      ) : (
        <ImportRun runId={runId} file={file} labels={run.labels} onTriggered={onTriggered} />
      )}
      {run.isTerminal && steps.length > 0 && <Steps steps={steps} />}
    </section>
  )
}

/** Brings the reader here, in particular on a narrow page, where the details stand under the list. */
const focus = (element: HTMLElement | null) => element?.focus()

function Placeholder({ text }: { text: string }) {
  return (
    <section className="card placeholder">
      <p role="status">{text}</p>
    </section>
  )
}

function Steps({ steps }: { steps: StepRecord[] }) {
  return (
    <details className="steps">
      <summary>{count(steps.length, 'step')}</summary>
      <ol>
        {steps.map((step) => (
          <li key={step.id}>
            <code>{step.name}</code>
            <span className="muted">{step.completedAt && duration(step.startedAt, step.completedAt)}</span>
            {step.status !== 'completed' && <span className="muted">{step.error ?? step.status}</span>}
          </li>
        ))}
      </ol>
    </details>
  )
}

interface StoredRun {
  run: ClientRun | null
  steps: StepRecord[]
  problem: string | null
}

/** The run as it is stored; asked for again with every revision, for a run that has ended sends no more events. */
function useStoredRun(runId: string, revision: string): StoredRun {
  const { getRun, getSteps } = durably.useRunActions()
  const [stored, setStored] = useState<StoredRun>({ run: null, steps: [], problem: null })
  useEffect(() => {
    let isCurrent = true
    async function load(): Promise<StoredRun> {
      const run = await getRun(runId)
      if (run === null) return { run, steps: [], problem: 'There is no such run (any more).' }
      return { run, steps: run.isTerminal ? await getSteps(runId) : [], problem: null }
    }
    load().then(
      (loaded) => isCurrent && setStored(loaded),
      // What is shown stays; the next revision asks again.
      (error: unknown) =>
        isCurrent && setStored((shown) => (shown.run ? shown : { ...shown, problem: messageOf(error) })),
    )
    return () => {
      isCurrent = false
    }
  }, [runId, revision, getRun, getSteps])
  return stored
}
