import { createDurably } from 'durably-react'
import { StrictMode, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { jobNames, type Jobs } from '../../../durably-client/test/support/jobs.js'

// The label of the test that opened the page: its list shows nobody else's runs.
const labels = { tag: new URLSearchParams(location.search).get('tag') ?? 'none' }
const durably = createDurably<Jobs>({ api: '/keep/api/durably', names: jobNames })

function Import() {
  const { trigger, progress, logs, output, isCompleted, isActive } = durably.importCsv.useJob({
    autoResume: false,
    followLatest: false,
  })
  return (
    <section id="import">
      <button disabled={isActive} onClick={() => void trigger({ filename: '3.csv' }, { labels })}>
        Import
      </button>
      {progress && (
        <progress value={progress.current} max={progress.total} aria-label={progress.message} />
      )}
      {isCompleted && <p className="output">Imported {output?.count} rows</p>}
      <ol>
        {logs.map((log) => (
          <li key={log.id}>{log.message}</li>
        ))}
      </ol>
    </section>
  )
}

function Slow() {
  const job = durably.slow.useJob({ autoResume: false, followLatest: false })
  const { cancel } = durably.useRunActions()
  return (
    <section id="slow">
      <button onClick={() => void job.trigger({ ms: 400, steps: 8 }, { labels })}>Start</button>
      <button onClick={() => void (job.currentRunId && cancel(job.currentRunId))}>Cancel</button>
      <p className="status">{job.status ?? 'none'}</p>
      <p className="progress">{job.progress?.current ?? 0}</p>
    </section>
  )
}

function Runs() {
  const { runs, isLoading, error } = durably.useRuns({ labels })
  if (error) return <p id="error">{error}</p>
  return (
    <ul id="runs" aria-busy={isLoading}>
      {runs.map((run) => (
        <li key={run.id}>{`${run.jobName} ${run.status}`}</li>
      ))}
    </ul>
  )
}

function App() {
  const [showsRuns, setShowsRuns] = useState(true)
  return (
    <>
      <Import />
      <Slow />
      <button id="toggle" onClick={() => setShowsRuns(!showsRuns)}>
        Toggle runs
      </button>
      {showsRuns && <Runs />}
    </>
  )
}

const root = document.getElementById('root')
if (root) {
  createRoot(root).render(
    <StrictMode>
      <App />
    </StrictMode>,
  )
}
