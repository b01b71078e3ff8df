import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { root } from './support/data.js'

/** Every `ts` block of a text, with the line it starts on. Comment stars in front are dropped. */
function blocks(text: string): { line: number; source: string }[] {
  const found: { line: number; source: string }[] = []
  let open: { line: number; lines: string[] } | undefined
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.replace(/^\s*\* ?/, '')
    if (open && line.trim().startsWith('```')) {
      found.push({ line: open.line, source: open.lines.join('\n') })
      open = undefined
    } else if (open) open.lines.push(line)
    else if (/^\s*```(ts|typescript)\s*$/.test(line)) open = { line: index + 1, lines: [] }
  }
  return found
}

function files(): string[] {
  const sources = readdirSync(join(root, 'ts'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  )
  const docs = readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md'))
  return ['README.md', ...sources.map((name) => `ts/${name}`), ...docs.map((name) => `docs/${name}`)]
}

test('the examples of README, docs and public functions compile against the package', () => {
  const examples = files().flatMap((file) =>
    blocks(readFileSync(join(root, file), 'utf8')).map(({ line, source }) => ({ file, line, source })),
  )
  expect(examples.filter(({ file }) => file === 'README.md').length).toBeGreaterThan(0)
  expect(examples.length).toBeGreaterThan(12)
  // Beside package.json, so that `lucid-sae` is the package itself.
  const name = (index: number): string => join(root, `example-${index}.mts`)
  const texts = new Map(examples.map(({ source }, index) => [name(index), `${source}\nexport {}\n`]))
  const options: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
    types: ['node'],
    strict: true,
    noEmit: true,
    skipLibCheck: true,
  }
  const host = ts.createCompilerHost(options)
  const { fileExists, readFile, getSourceFile } = host
  host.fileExists = (file) => texts.has(file) || fileExists(file)
  host.readFile = (file) => texts.get(file) ?? readFile(file)
  host.getSourceFile = (file, version, ...rest) => {
    const text = texts.get(file)
    return text === undefined ? getSourceFile(file, version, ...rest) : ts.createSourceFile(file, text, version)
  }
  const program = ts.createProgram([...texts.keys()], options, host)
  const problems = ts.getPreEmitDiagnostics(program).map((diagnostic) => {
    const at = [...texts.keys()].indexOf(diagnostic.file?.fileName ?? '')
    const line = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start ?? 0).line ?? 0
    const where = examples[at] ? `${examples[at].file}:${examples[at].line + line + 1}` : ''
    return `${where} ${ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n')}`
  })
  expect(problems).toEqual([])
})
