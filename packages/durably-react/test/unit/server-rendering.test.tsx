import { createDurably } from 'durably-react'
import { renderToString } from 'react-dom/server'
import { expect, test } from 'vitest'
import { FakeTransport } from '../../../durably-client/test/support/fake-transport.js'

test('on the server the hooks render their first state, and ask for nothing', () => {
  const transport = new FakeTransport()
  const durably = createDurably({ transport })
  function Page() {
    const job = durably['importCsv']!.useJob()
    const run = durably['importCsv']!.useRun('run-1')
    const { logs } = durably['importCsv']!.useLogs('run-1')
    const { isLoading } = durably.useRuns()
    return <p>{JSON.stringify([job.status, run.status, logs.length, isLoading])}</p>
  }
  expect(renderToString(<Page />)).toBe('<p>[null,&quot;pending&quot;,0,true]</p>')
  expect([transport.requests, transport.connections]).toEqual([[], []])
})
