// @vitest-environment jsdom
import { act } from '@testing-library/react'
import { createDurably } from 'durably-react'
import { hydrateRoot } from 'react-dom/client'
import { renderToString } from 'react-dom/server'
import { expect, test } from 'vitest'
import { FakeTransport } from '../../../durably-client/test/support/fake-transport.js'
import { anEvent } from '../../../durably-client/test/support/samples.js'

test('what the server rendered is taken over as it is, and then follows the run', () => {
  const transport = new FakeTransport()
  const durably = createDurably({ transport })
  const Page = () => <p>{durably['importCsv']!.useRun('run-1').status}</p>
  const container = document.createElement('div')
  container.innerHTML = renderToString(<Page />)
  const errors: unknown[] = []
  act(() => void hydrateRoot(container, <Page />, { onRecoverableError: (error) => errors.push(error) }))
  expect([container.textContent, errors]).toEqual(['pending', []])
  act(() => transport.stream('/subscribe').send(anEvent('run:leased')))
  expect(container.textContent).toBe('leased')
})
