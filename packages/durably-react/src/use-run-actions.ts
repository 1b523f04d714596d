import type { ClientRun, DurablyClient } from 'durably-client'
import { useMemo } from 'react'
import { clientOf, type ServerOptions } from './server.js'

export interface UseRunActionsResult<TRun extends ClientRun = ClientRun>
  extends Pick<DurablyClient, 'retrigger' | 'cancel' | 'deleteRun' | 'getSteps' | 'getLogs'> {
  getRun: (runId: string) => Promise<TRun | null>
}

/** What can be done with runs. Every action rejects with the server's words when it refuses. */
export function useRunActions<TRun extends ClientRun = ClientRun>(
  options: ServerOptions,
): UseRunActionsResult<TRun> {
  const client = clientOf(options)
  return useMemo(
    () => ({
      retrigger: (runId) => client.retrigger(runId),
      cancel: (runId) => client.cancel(runId),
      deleteRun: (runId) => client.deleteRun(runId),
      getRun: (runId) => client.getRun<TRun>(runId),
      getSteps: (runId) => client.getSteps(runId),
      getLogs: (runId) => client.getLogs(runId),
    }),
    [client],
  )
}
