// `npm run kernels:check`: compiles the CUDA kernels again, in another folder, and compares every byte with what is
// committed. The folder differs so that a path which slips into the result is found too.
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fail, root, run } from './lib/setup.mjs'

const SOURCES = 'crates/lucid-kernels/src/cuda'
const FATBINS = 'crates/lucid-kernels/fatbin'
const TABLE = 'docs/kernels-table.md'

/** The built files of a tree, by their path in it. */
function built(tree) {
  const folder = join(tree, FATBINS)
  const names = existsSync(folder) ? readdirSync(folder).map((name) => `${FATBINS}/${name}`) : []
  const paths = [...names, TABLE].filter((path) => existsSync(join(tree, path)))
  return new Map(paths.map((path) => [path, readFileSync(join(tree, path))]))
}

function differences(committed, fresh) {
  const paths = [...new Set([...committed.keys(), ...fresh.keys()])].sort()
  return paths.flatMap((path) => {
    if (!committed.has(path)) return [`${path} is missing`]
    if (!fresh.has(path)) return [`${path} has no source any more`]
    return committed.get(path).equals(fresh.get(path)) ? [] : [`${path} differs from a fresh build`]
  })
}

const folder = mkdtempSync(join(tmpdir(), 'lucid-kernels-'))
try {
  cpSync(join(root, SOURCES), join(folder, SOURCES), { recursive: true })
  const code = await run('python3', ['scripts/kernels/build.py', '--root', folder]).catch((error) =>
    fail(`Python 3.9 or newer is needed to check the kernels: ${error.message}`),
  )
  if (code === 0) {
    const fresh = built(folder)
    const lines = differences(built(root), fresh)
    for (const line of lines) process.stderr.write(`${line}\n`)
    if (lines.length > 0) process.stderr.write('run `npm run kernels:build` and commit what it writes\n')
    else process.stderr.write(`[kernels] ${fresh.size} files are equal to a fresh build, byte for byte\n`)
    process.exitCode = lines.length > 0 ? 1 : 0
  } else process.exitCode = code
} finally {
  rmSync(folder, { recursive: true, force: true })
}
