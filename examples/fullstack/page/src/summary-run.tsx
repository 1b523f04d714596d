import { durably, type Summary } from './durably'
import { count } from './format'
import { Live, MAX_LOGS } from './live'

export function SummaryRun({ runId }: { runId: string }) {
  const run = durably.summarizeCsv.useRun(runId, { maxLogs: MAX_LOGS })
  return <Live run={run}>{run.output && <Columns summary={run.output} />}</Live>
}

function Columns({ summary }: { summary: Summary }) {
  return (
    // Focusable, so that it can be scrolled with the keyboard.
    <div className="table" role="region" tabIndex={0} aria-labelledby="columns-title">
      <table>
        <caption id="columns-title">
          {count(summary.columns.length, 'column')} of {count(summary.rows, 'row')}
        </caption>
        <thead>
          <tr>
            <th scope="col">Column</th>
            <th scope="col">Kind</th>
            <th scope="col">Filled</th>
            <th scope="col">Distinct</th>
            <th scope="col">Smallest</th>
            <th scope="col">Largest</th>
          </tr>
        </thead>
        <tbody>
          {summary.columns.map((column, index) => (
            <tr key={index}>
              <th scope="row" title={column.name}>
                {column.name}
              </th>
              <td>{column.kind}</td>
              <td className="number">{column.filled.toLocaleString('en')}</td>
              <td className="number">{column.distinct.toLocaleString('en')}</td>
              <td title={column.smallest ?? undefined}>{column.smallest}</td>
              <td title={column.largest ?? undefined}>{column.largest}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
