import type { RunStatus } from 'durably-react'

export const WORDS: Record<RunStatus, string> = {
  pending: 'Waiting',
  leased: 'Running',
  completed: 'Completed',
  failed: 'Failed',
  cancelled: 'Cancelled',
}

export function Status({ status }: { status: RunStatus }) {
  return <span className={`status ${status}`}>{WORDS[status]}</span>
}
