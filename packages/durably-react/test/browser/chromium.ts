import { existsSync } from 'node:fs'
import { chromium, type Browser } from 'playwright-core'

const EXECUTABLE = process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium'

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

export function launchChromium(): Promise<Browser> {
  if (!existsSync(EXECUTABLE)) {
    throw new Error(
      `These tests need Chromium, but there is none at ${EXECUTABLE}. ` +
        'Install it (Debian: `apt-get install chromium`), or set CHROMIUM_PATH to where it is.',
    )
  }
  return chromium.launch({ executablePath: EXECUTABLE, args: FLAGS })
}
