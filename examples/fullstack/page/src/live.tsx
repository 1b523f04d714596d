import type { LogEntry, Progress, RunStatus } from 'durably-react'
import { memo, useLayoutEffect, useRef, type ReactNode, type UIEvent } from 'react'
import { clock, percentOf } from './format'
import { Problem } from './problem'
import { Status } from './status'

/** How many log lines a page keeps and draws of a run, which may write any number. */
export const MAX_LOGS = 500

interface LiveProps {
  run: {
    status: RunStatus | null
    isActive: boolean
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
      <div className="progress">
        {/* Only the status is read aloud: progress comes many times a second. */}
        <span aria-live="polite">{run.status && <Status status={run.status} />}</span>
        {(run.isActive || percent !== null) && (
          <progress value={percent ?? undefined} max={100} aria-label="Progress" />
        )}
        <span className="muted">{run.progress?.message ?? (run.status === 'pending' ? 'Waits for a worker' : '')}</span>
      </div>
      <Problem text={run.error} />
      {children}
      <Logs logs={run.logs} />
    </>
  )
}

function Logs({ logs }: { logs: readonly LogEntry[] }) {
  const box = useRef<HTMLDivElement>(null)
  const isAtEnd = useRef(true)

  // Before the next frame: the scroll event of earlier lines comes with it, and would find the end out of sight.
  useLayoutEffect(() => {
    if (isAtEnd.current) box.current?.scrollTo({ top: box.current.scrollHeight })
  }, [logs])

  function onScroll({ currentTarget: { scrollHeight, scrollTop, clientHeight } }: UIEvent) {
    // A zoomed page scrolls to fractions of a pixel.
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < 2
  }

  return (
    <section aria-labelledby="log-title">
      <h3 id="log-title">Log</h3>
      {/* Focusable, so that it can be scrolled with the keyboard. */}
      <div className="logs" role="log" tabIndex={0} aria-labelledby="log-title" ref={box} onScroll={onScroll}>
        {logs.length === 0 && <p className="muted">Nothing yet.</p>}
        {logs.length === MAX_LOGS && <p className="muted">The last {MAX_LOGS} lines:</p>}
        {logs.map((log) => (
          <LogLine key={log.id} log={log} />
        ))}
      </div>
    </section>
  )
}

// Memoized, for each new line would draw hundreds of old ones again.
const LogLine = memo(function LogLine({ log }: { log: LogEntry }) {
  return (
    <p className={`log ${log.level}`}>
      <time>{clock(log.timestamp)}</time> {log.level !== 'info' && `${log.level}: `}
      {log.message}
    </p>
  )
})
