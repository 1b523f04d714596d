import type { RunObserver } from 'durably-client'
import { useEffect, useMemo } from 'react'
import { clientOf, type ServerOptions } from './server.js'

export type RunObserverOptions = ServerOptions & {
  runId: string | null | undefined
  maxLogs?: number | undefined
}

/** The same observer as long as server and run are the same. */
export function useRunObserver<TOutput>(options: RunObserverOptions): RunObserver<TOutput> {
  const client = clientOf(options)
  const { maxLogs } = options
  // An address or a form that names no run yet gives an empty text.
  const runId = options.runId || null
  const run = useMemo(() => client.observeRun<TOutput>(runId), [client, runId])
  useEffect(() => run.setMaxLogs(maxLogs), [run, maxLogs])
  return run
}
