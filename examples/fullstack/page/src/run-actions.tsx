import type { ClientRun } from 'durably-react'
import { durably } from './durably'
import { Problem } from './problem'
import { useAttempt } from './use-attempt'

interface RunActionsProps {
  run: ClientRun
  onTriggered: (runId: string) => void
  onDeleted: () => void
}

export function RunActions({ run, onTriggered, onDeleted }: RunActionsProps) {
  const { cancel, retrigger, deleteRun } = durably.useRunActions()
  const { attempt, isBusy, problem } = useAttempt()

  const runAgain = async () => onTriggered(await retrigger(run.id))
  const remove = async () => {
    if (!window.confirm('Delete this run, its steps and its log? This cannot be undone.')) return
    await deleteRun(run.id)
    onDeleted()
  }

  return (
    <div className="actions">
      {/* Each in its place for good: a second click on "Cancel" must not be the first one on "Run again". */}
      <button type="button" disabled={isBusy || !run.isActive} onClick={() => attempt(() => cancel(run.id))}>
        Cancel
      </button>
      <button type="button" disabled={isBusy || run.isActive} onClick={() => attempt(runAgain)}>
        Run again
      </button>
      <button type="button" className="danger" disabled={isBusy || run.isActive} onClick={() => attempt(remove)}>
        Delete
      </button>
      <Problem text={problem} />
    </div>
  )
}
