import type { DurablyClient } from 'durably-client'
import { useMemo } from 'react'
import { clientOf, type ServerOptions } from './server.js'

export type UseRunActionsResult = Pick<
  DurablyClient,
  'retrigger' | 'cancel' | 'deleteRun' | 'getRun' | 'getSteps' | 'getLogs'
>

/** What can be done with runs. Every action rejects with the server's words when it refuses. */
export function useRunActions(options: ServerOptions): UseRunActionsResult {
  const client = clientOf(options)
  return useMemo(
    () => ({
      retrigger: (runId) => client.retrigger(runId),
      cancel: (runId) => client.cancel(runId),
      deleteRun: (runId) => client.deleteRun(runId),
      getRun: (runId) => client.getRun(runId),
      getSteps: (runId) => client.getSteps(runId),
      getLogs: (runId) => client.getLogs(runId),
    }),
    [client],
  )
}
