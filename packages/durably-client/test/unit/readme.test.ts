import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { expect, test } from 'vitest'

const PACKAGES = fileURLToPath(new URL('../../../', import.meta.url))
const EXAMPLE = /^```(tsx?)\n(.*?)^```$/gms

test.each(['durably-client', 'durably-react'])('the examples in the README of %s type-check', (name) => {
  const readme = readFileSync(`${PACKAGES}${name}/README.md`, 'utf8')
  const files = new Map<string, string>()
  for (const [, extension = '', code = ''] of readme.matchAll(EXAMPLE)) {
    files.set(`${PACKAGES}durably-react/example-${files.size}.${extension}`, code)
  }
  expect(files.size).toBeGreaterThan(2)
  files.set(`${PACKAGES}durably-react/durably.gen.ts`, generatedExample())
  expect(problemsIn(files)).toEqual([])
}, 60_000)

test.each(['durably-client', 'durably-react'])('everything public of %s is in its README', (name) => {
  const readme = readFileSync(`${PACKAGES}${name}/README.md`, 'utf8')
  const prose = readme.replace(EXAMPLE, '')
  const missing = exportsOf(`${PACKAGES}${name}/src/index.ts`).filter((word) => !new RegExp(`\\b${word}\\b`).test(prose))
  expect(missing).toEqual([])
}, 60_000)

test('the page of docs/fullstack.md type-checks', () => {
  const guide = readFileSync(`${PACKAGES}../docs/fullstack.md`, 'utf8')
  const [hooks = '', component = '', ...more] = [...guide.matchAll(EXAMPLE)].map(([, , code = '']) => code)
  expect(more).toEqual([])
  const folder = `${PACKAGES}durably-react/`
  const files = new Map([
    [`${folder}durably.gen.ts`, GENERATED_IN_GUIDE],
    [`${folder}durably.ts`, hooks],
    [`${folder}import.tsx`, component],
  ])
  // As Vite resolves: names of modules without an extension.
  const bundled = { module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler }
  expect(problemsIn(files, bundled)).toEqual([])
  files.set(`${folder}import.tsx`, component.replace('{ filename }', '{ fileName: filename }'))
  expect(problemsIn(files, bundled)).not.toEqual([])
}, 60_000)

const GENERATED_IN_GUIDE = `
  export interface Jobs {
    importCsv: { input: { filename: string; batch_size?: number }; output: { rows: number } }
  }
  export const jobNames = { importCsv: 'import-csv' } as const
`

/** The example of a generated file, which the others import. */
function generatedExample(): string {
  const readme = readFileSync(`${PACKAGES}durably-client/README.md`, 'utf8')
  const examples = [...readme.matchAll(EXAMPLE)].map(([, , code = '']) => code)
  return examples.find((code) => code.includes('export interface Jobs')) ?? ''
}

function problemsIn(files: ReadonlyMap<string, string>, more: ts.CompilerOptions = {}): string[] {
  const options = { ...compilerOptions(), ...more }
  const disk = ts.createCompilerHost(options)
  const host: ts.CompilerHost = {
    ...disk,
    readFile: (path) => files.get(path) ?? disk.readFile(path),
    fileExists: (path) => files.has(path) || disk.fileExists(path),
    getSourceFile: (path, ...rest) => {
      const code = files.get(path)
      return code === undefined
        ? disk.getSourceFile(path, ...rest)
        : ts.createSourceFile(path, code, ts.ScriptTarget.ES2022)
    },
  }
  const program = ts.createProgram([...files.keys()], options, host)
  return ts
    .getPreEmitDiagnostics(program)
    .map(({ file, messageText }) => `${file?.fileName ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`)
}

function exportsOf(file: string): string[] {
  const program = ts.createProgram([file], compilerOptions())
  const source = program.getSourceFile(file)
  const checker = program.getTypeChecker()
  const module = source && checker.getSymbolAtLocation(source)
  return module ? checker.getExportsOfModule(module).map((symbol) => symbol.name) : ['a module']
}

function compilerOptions(): ts.CompilerOptions {
  const read = (path: string) => ts.sys.readFile(path)
  const { config } = ts.readConfigFile(`${PACKAGES}tsconfig.base.json`, read) as { config: unknown }
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, PACKAGES)
  const source = (name: string) => [`${PACKAGES}${name}/src/index.ts`]
  const paths = { 'durably-client': source('durably-client'), 'durably-react': source('durably-react') }
  return { ...options, paths, noEmit: true, declaration: false, declarationMap: false }
}
