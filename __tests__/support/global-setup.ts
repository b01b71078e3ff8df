import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Makes the small store, run and atlas that the tests share, with the compiled command line. */
export default function setup(): void {
  const root = join(__dirname, '..', '..')
  const needed = ['native/index.cjs', 'dist/cli/main.js']
  const missing = needed.filter((file) => !existsSync(join(root, file)))
  if (missing.length > 0) throw new Error(`${missing.join(' and ')} missing: run npm run build first`)
  const folder = mkdtempSync(join(tmpdir(), 'lucid-jest-'))
  process.env.LUCID_TEST_DATA = folder
  const run = (...args: string[]): void => {
    execFileSync(process.execPath, [join(root, 'bin/lucid-sae.js'), ...args, '--quiet'], { cwd: folder, stdio: 'pipe' })
  }
  const scenes = (pairs: number, seed: number, out: string): void =>
    run('extract', '--dataset', 'scenes', '--pairs', String(pairs), '--seed', String(seed), '--out', out)
  scenes(48, 1, 'train')
  scenes(12, 2, 'held-out')
  const shape = [
    '--d-shared',
    '32',
    '--d-private',
    '32',
    '--k-shared',
    '4',
    '--k-private',
    '4',
    '--batch-pairs',
    '16',
    '--lr',
    '0.003',
  ]
  run('train', '--activations', 'train', '--out', 'run', '--steps', '12', ...shape)
  run('interpret', '--model', 'run', '--activations', 'train', '--min-hits', '2', '--out', 'atlas')
}
