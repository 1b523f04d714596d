import { useState } from 'react'

/** One action at a time, that may fail. While `isBusy`, what starts it is to be disabled. */
export function useAttempt() {
  const [isBusy, setBusy] = useState(false)
  const [problem, setProblem] = useState<string | null>(null)

  function attempt(action: () => Promise<void>) {
    setBusy(true)
    setProblem(null)
    action()
      .catch((error: unknown) => setProblem(messageOf(error)))
      .finally(() => setBusy(false))
  }

  return { attempt, isBusy, problem }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
