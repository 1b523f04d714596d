import { durably, type Run } from './durably'
import { isFiltering, type Filter } from './filters'
import { ago, percentOf } from './format'
import { Problem } from './problem'
import { Status } from './status'
import { useNow } from './use-now'

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
  filter: Filter
  selected: string | null
  onLabel: (label: string) => void
}

export function RunList({ list, filter, selected, onLabel }: RunListProps) {
  const { runs, page, hasMore, isLoading, error, nextPage, prevPage } = list
  const now = useNow(60_000)
  const nothing = isFiltering(filter) ? 'No run matches the filter.' : 'There are no runs.'
  return (
    <>
      <Problem text={error} />
      {runs.length === 0 && !error && <p className="muted">{isLoading ? 'Loading …' : nothing}</p>}
      {runs.length > 0 && (
        <ul className="runs">
          {runs.map((run) => (
            <RunRow key={run.id} run={run} now={now} isSelected={run.id === selected} onLabel={onLabel} />
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
  now: number
  isSelected: boolean
  onLabel: (label: string) => void
}

function RunRow({ run, now, isSelected, onLabel }: RunRowProps) {
  const percent = percentOf(run.progress)
  const file = run.labels['file']
  return (
    <li className={isSelected ? 'run selected' : 'run'}>
      <a href={`#${run.id}`} aria-current={isSelected ? 'true' : undefined}>
        <span className="job">{run.jobName}</span>
        <span className="muted">{ago(run.createdAt, now)}</span>
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
