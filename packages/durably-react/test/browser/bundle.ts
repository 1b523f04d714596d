import { fileURLToPath } from 'node:url'
import { build, type Rolldown } from 'vite'

/** The page as one script, built from the sources of both packages. */
export async function bundlePage(): Promise<string> {
  const entry = fileURLToPath(new URL('page.tsx', import.meta.url))
  const output = (await build({
    configFile: false,
    logLevel: 'warn',
    mode: 'development',
    define: { 'process.env.NODE_ENV': '"development"' },
    resolve: { alias: { 'durably-client': source('client'), 'durably-react': source('react') } },
    build: { write: false, minify: false, rolldownOptions: { input: entry } },
  })) as Rolldown.RolldownOutput
  return output.output[0].code
}

function source(name: string): string {
  return fileURLToPath(new URL(`../../../durably-${name}/src/index.ts`, import.meta.url))
}
