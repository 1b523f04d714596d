import { useId, useState, type ChangeEvent, type DragEvent } from 'react'
import { durably } from './durably'
import { upload, uploadSample, type UploadedFile } from './files'

const UNHURRIED = { batch_size: 25, pause: 0.25 }

/** Uploads a file and triggers its import. */
export function UploadForm({ onTriggered }: { onTriggered: (runId: string) => void }) {
  // Only for its trigger: which run is shown is decided by the address.
  const { trigger } = durably.importCsv.useJob({ autoResume: false, followLatest: false })
  const [isUnhurried, setUnhurried] = useState(true)
  const [isBusy, setBusy] = useState(false)
  const [problem, setProblem] = useState<string | null>(null)
  const inputId = useId()

  async function start(uploading: () => Promise<UploadedFile>) {
    setBusy(true)
    setProblem(null)
    try {
      const file = await uploading()
      const { runId } = await trigger(
        { file: file.id, ...(isUnhurried && UNHURRIED) },
        // Two imports of one file would write the same rows.
        { labels: { file: file.name }, concurrencyKey: `file:${file.id}` },
      )
      onTriggered(runId)
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error))
    } finally {
      setBusy(false)
    }
  }

  function onChange({ target }: ChangeEvent<HTMLInputElement>) {
    const file = target.files?.[0]
    if (file) void start(() => upload(file))
    // So that the same file can be chosen again.
    target.value = ''
  }

  function onDrop(event: DragEvent) {
    event.preventDefault()
    const file = event.dataTransfer.files[0]
    if (file && !isBusy) void start(() => upload(file))
  }

  return (
    <section className="card" aria-labelledby="upload-title">
      <header>
        <h2 id="upload-title">Import a CSV file</h2>
        <button type="button" className="quiet" disabled={isBusy} onClick={() => void start(uploadSample)}>
          Use the sample
        </button>
      </header>
      <div className="drop" onDragOver={(event) => event.preventDefault()} onDrop={onDrop}>
        <input id={inputId} type="file" accept=".csv,text/csv" onChange={onChange} disabled={isBusy} />
        <label htmlFor={inputId} className="button primary">
          {isBusy ? 'Uploading …' : 'Choose a file'}
        </label>
        <span className="muted">or drop it here</span>
      </div>
      <label className="check">
        <input type="checkbox" checked={isUnhurried} onChange={(event) => setUnhurried(event.target.checked)} />
        Pause after each batch, to watch it
      </label>
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </section>
  )
}
