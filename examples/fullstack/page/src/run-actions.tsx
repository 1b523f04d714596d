import type { ClientRun } from 'durably-react'
import { useState } from 'react'
import { durably } from './durably'

interface RunActionsProps {
  run: ClientRun
  onSelect: (runId: string | null) => void
}

export function RunActions({ run, onSelect }: RunActionsProps) {
  const { cancel, retrigger, deleteRun } = durably.useRunActions()
  const [problem, setProblem] = useState<string | null>(null)

  async function attempt(action: () => Promise<void>) {
    setProblem(null)
    try {
      await action()
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error))
    }
  }

  const runAgain = async () => onSelect(await retrigger(run.id))
  const remove = async () => {
    await deleteRun(run.id)
    onSelect(null)
  }

  return (
    <div className="actions">
      {run.isActive ? (
        <button type="button" onClick={() => void attempt(() => cancel(run.id))}>
          Cancel
        </button>
      ) : (
        <>
          <button type="button" onClick={() => void attempt(runAgain)}>
            Run again
          </button>
          <button type="button" className="danger" onClick={() => void attempt(remove)}>
            Delete
          </button>
        </>
      )}
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </div>
  )
}
