import { durably, type Run } from './durably'
import type { Filter } from './filters'
import { ago, percentOf } from './format'
import { Status } from './status'

/** The runs that match, page by page; the first page follows what happens anywhere. */
export function useRunList({ status, job, label }: Filter) {
  return durably.useRuns({
    pageSize: 8,
    ...(status && { status }),
    ...(job && { jobName: job }),
    ...(label && { labels: { file: label } }),
  })
}

interface RunListProps {
  list: ReturnType<typeof useRunList>
  selected: string | null
  onLabel: (label: string) => void
}

export function RunList({ list, selected, onLabel }: RunListProps) {
  const { runs, page, hasMore, isLoading, error, nextPage, prevPage } = list
  return (
    <>
      {error && (
        <p className="problem" role="alert">
          {error}
        </p>
      )}
      {runs.length === 0 && !error && <p className="muted">{isLoading ? 'Loading …' : 'No runs here.'}</p>}
      {runs.length > 0 && (
        <ul className="runs">
          {runs.map((run) => (
            <RunRow key={run.id} run={run} isSelected={run.id === selected} onLabel={onLabel} />
          ))}
        </ul>
      )}
      {(page > 0 || hasMore) && (
        <nav className="pages" aria-label="Pages">
          <button type="button" disabled={page === 0} onClick={prevPage}>
            Newer
          </button>
          <span className="muted">Page {page + 1}</span>
          <button type="button" disabled={!hasMore} onClick={nextPage}>
            Older
          </button>
        </nav>
      )}
    </>
  )
}

interface RunRowProps {
  run: Run
  isSelected: boolean
  onLabel: (label: string) => void
}

function RunRow({ run, isSelected, onLabel }: RunRowProps) {
  const percent = percentOf(run.progress)
  const file = run.labels['file']
  return (
    <li className={isSelected ? 'run selected' : 'run'}>
      <a href={`#${run.id}`} aria-current={isSelected ? 'true' : undefined}>
        <span className="job">{run.jobName}</span>
        <span className="muted">{ago(run.createdAt)}</span>
      </a>
      <Status status={run.status} />
      {file && (
        <button type="button" className="chip" title={`Show only runs of ${file}`} onClick={() => onLabel(file)}>
          {file}
        </button>
      )}
      {run.isActive && percent !== null && (
        <progress value={percent} max={100} aria-label={`Progress of ${run.jobName}`} />
      )}
    </li>
  )
}
