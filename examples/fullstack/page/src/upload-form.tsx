import { useId, useState, type ChangeEvent } from 'react'
import { DropZone } from './drop-zone'
import { durably } from './durably'
import { upload, uploadSample, type UploadedFile } from './files'
import { Problem } from './problem'
import { useAttempt } from './use-attempt'

const UNHURRIED = { batch_size: 25, pause: 0.25 }

/** Uploads a file and triggers its import. */
export function UploadForm({ onTriggered }: { onTriggered: (runId: string) => void }) {
  // Only for its trigger: which run is shown is decided by the address.
  const { trigger } = durably.importCsv.useJob({ autoResume: false, followLatest: false })
  const { attempt, isBusy, problem } = useAttempt()
  const [isUnhurried, setUnhurried] = useState(true)
  const inputId = useId()

  function start(uploading: () => Promise<UploadedFile>) {
    attempt(async () => {
      const file = await uploading()
      const { runId } = await trigger(
        { file: file.id, ...(isUnhurried && UNHURRIED) },
        // Two imports of one file would write the same rows.
        { labels: { file: file.name }, concurrencyKey: `file:${file.id}` },
      )
      onTriggered(runId)
    })
  }

  function onChange({ target }: ChangeEvent<HTMLInputElement>) {
    const file = target.files?.[0]
    if (file) start(() => upload(file))
    // So that the same file can be chosen again.
    target.value = ''
  }

  return (
    <section className="card" aria-labelledby="upload-title">
      <header>
        <h2 id="upload-title">Import a CSV file</h2>
        <button type="button" className="quiet" disabled={isBusy} onClick={() => start(uploadSample)}>
          Use the sample
        </button>
      </header>
      <DropZone isDisabled={isBusy} onDrop={(files) => start(() => uploadOnly(files))}>
        <input id={inputId} type="file" accept=".csv,text/csv" onChange={onChange} disabled={isBusy} />
        <label htmlFor={inputId} className="button primary">
          {isBusy ? 'Uploading …' : 'Choose a file'}
        </label>
        <span className="muted">or drop it here</span>
      </DropZone>
      <label className="check">
        <input type="checkbox" checked={isUnhurried} onChange={(event) => setUnhurried(event.target.checked)} />
        Pause after each batch, to watch it
      </label>
      <Problem text={problem} />
    </section>
  )
}

async function uploadOnly([file, ...others]: File[]): Promise<UploadedFile> {
  if (!file || others.length > 0) throw new Error('Drop one file at a time.')
  return upload(file)
}
