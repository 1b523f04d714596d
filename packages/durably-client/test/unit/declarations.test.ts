import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { expect, test } from 'vitest'

const PACKAGE = fileURLToPath(new URL('../../', import.meta.url))

test('what is public has types where there are none of a browser, as in Node', () => {
  const declarations = declarationsOf(`${PACKAGE}src/index.ts`)
  expect(declarations.has(`${PACKAGE}src/index.d.ts`)).toBe(true)
  expect(problemsIn(declarations)).toEqual([])
}, 60_000)

function declarationsOf(source: string): ReadonlyMap<string, string> {
  const read = (path: string) => ts.sys.readFile(path)
  const { config } = ts.readConfigFile(`${PACKAGE}../tsconfig.base.json`, read) as { config: unknown }
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, PACKAGE)
  const program = ts.createProgram([source], { ...options, emitDeclarationOnly: true, declarationMap: false })
  const written = new Map<string, string>()
  program.emit(undefined, (path, text) => written.set(path, text))
  return written
}

function problemsIn(declarations: ReadonlyMap<string, string>): string[] {
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    lib: ['lib.es2023.d.ts'],
    types: ['node'],
    typeRoots: [`${PACKAGE}../node_modules/@types`],
  }
  const disk = ts.createCompilerHost(options)
  const host: ts.CompilerHost = {
    ...disk,
    readFile: (path) => declarations.get(path) ?? disk.readFile(path),
    // The sources stand beside them, and would be taken instead.
    fileExists: (path) => declarations.has(path) || (!path.startsWith(`${PACKAGE}src/`) && disk.fileExists(path)),
    getSourceFile: (path, ...rest) => {
      const text = declarations.get(path)
      return text === undefined ? disk.getSourceFile(path, ...rest) : ts.createSourceFile(path, text, ts.ScriptTarget.ES2022)
    },
  }
  const program = ts.createProgram([...declarations.keys()], options, host)
  return [...declarations.keys()].flatMap((path) =>
    program
      .getSemanticDiagnostics(program.getSourceFile(path))
      .map(({ messageText }) => `${path}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`),
  )
}
