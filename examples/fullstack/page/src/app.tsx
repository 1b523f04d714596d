import { useRef, useState } from 'react'
import { Filters, NO_FILTER, type Filter } from './filters'
import { RunDetails } from './run-details'
import { RunList, useRunList } from './run-list'
import { UploadForm } from './upload-form'
import { useHash } from './use-hash'

export function App() {
  const [selected, select] = useHash()
  const [filter, setFilter] = useState<Filter>(NO_FILTER)
  const list = useRunList(filter)
  const listTitle = useRef<HTMLHeadingElement>(null)
  const revision = list.runs.map((run) => run.id + run.status).join()

  function onDeleted() {
    select(null)
    // The button that had the focus goes with the run.
    listTitle.current?.focus()
  }

  return (
    <>
      <header className="top">
        <h1>Imports</h1>
        <p>Jobs in Python, in a process of their own. This page follows them live.</p>
      </header>
      <main>
        <div className="column">
          <UploadForm onTriggered={select} />
          <section className="card" aria-labelledby="runs-title">
            <h2 id="runs-title" tabIndex={-1} ref={listTitle}>
              Runs
            </h2>
            <Filters filter={filter} onChange={setFilter} />
            <RunList
              list={list}
              filter={filter}
              selected={selected}
              onLabel={(label) => setFilter({ ...filter, label })}
            />
          </section>
        </div>
        {selected ? (
          <RunDetails key={selected} runId={selected} revision={revision} onTriggered={select} onDeleted={onDeleted} />
        ) : (
          <section className="card placeholder">
            <p>Choose a run to see its progress, steps and logs.</p>
          </section>
        )}
      </main>
    </>
  )
}
