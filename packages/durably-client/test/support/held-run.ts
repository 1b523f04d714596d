import { createDurablyClient } from 'durably-client'

/** A run that stays pending until it is released: time to get hold of its stream before anything happens. */
export async function holdRun(api: string, jobName: string, input: unknown) {
  const client = createDurablyClient({ api })
  const concurrencyKey = `hold-${process.pid}-${Date.now()}-${Math.random()}`
  const holder = await client.trigger('slow', { ms: 60_000, steps: 1 }, { concurrencyKey })
  const { runId } = await client.trigger(jobName, input, { concurrencyKey })
  return { runId, release: () => client.cancel(holder.runId) }
}
