import type { LogEntry, Progress, RunStatus } from 'durably-react'
import { useEffect, useRef, type ReactNode } from 'react'
import { clock, percentOf } from './format'
import { Status } from './status'

interface LiveProps {
  run: {
    status: RunStatus | null
    progress: Progress | null
    error: string | null
    logs: readonly LogEntry[]
  }
  /** What the job returned, once it has. */
  children: ReactNode
}

/** What a run tells while it runs. */
export function Live({ run, children }: LiveProps) {
  const percent = percentOf(run.progress)
  return (
    <>
      <div className="progress" aria-live="polite">
        {run.status && <Status status={run.status} />}
        <progress value={percent ?? 0} max={100} aria-label="Progress" />
        <span className="muted">{run.progress?.message ?? (run.status === 'pending' ? 'Waits for a worker' : '')}</span>
      </div>
      {run.error && (
        <p className="problem" role="alert">
          {run.error}
        </p>
      )}
      {children}
      <Logs logs={run.logs} />
    </>
  )
}

function Logs({ logs }: { logs: readonly LogEntry[] }) {
  const box = useRef<HTMLDivElement>(null)
  useEffect(() => {
    box.current?.scrollTo({ top: box.current.scrollHeight })
  }, [logs])
  return (
    <section aria-labelledby="log-title">
      <h3 id="log-title">Log</h3>
      {/* Focusable, so that it can be scrolled with the keyboard. */}
      <div className="logs" role="log" tabIndex={0} aria-labelledby="log-title" ref={box}>
        {logs.length === 0 && <p className="muted">Nothing yet.</p>}
        {logs.map((log) => (
          <p key={log.id} className={`log ${log.level}`}>
            <time>{clock(log.timestamp)}</time> {log.message}
          </p>
        ))}
      </div>
    </section>
  )
}
