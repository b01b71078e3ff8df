import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as lucid from '../ts/index.js'
import * as kernels from '../ts/kernels.js'
import { root } from './support/data.js'

const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  name: string
  type: string
  engines: { node: string }
  bin: Record<string, string>
  exports: Record<string, { types: string; default: string } | string>
  scripts: Record<string, string>
  napi: { binaryName: string }
}

test('the manifest says what the package is', () => {
  expect(manifest).toMatchObject({ name: 'lucid-sae', type: 'module', napi: { binaryName: 'lucid' } })
  expect(manifest.engines.node).toBe('^20.19.0 || >=22.12.0')
  expect(Object.keys(manifest.exports)).toEqual(['.', './kernels', './package.json'])
  for (const entry of Object.values(manifest.exports)) {
    const files = typeof entry === 'string' ? [entry] : [entry.types, entry.default]
    for (const file of files) expect(existsSync(join(root, file))).toBe(true)
  }
  expect(existsSync(join(root, manifest.bin['lucid-sae'] as string))).toBe(true)
})

test('installing runs no script', () => {
  for (const hook of ['preinstall', 'install', 'postinstall', 'prepare'])
    expect(manifest.scripts).not.toHaveProperty(hook)
})

test('the tarball holds the code and no binary', () => {
  const listed = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const [{ files }] = JSON.parse(listed) as [{ files: { path: string }[] }]
  const paths = files.map((file) => file.path)
  for (const needed of [
    'dist/index.js',
    'dist/kernels.d.ts',
    'dist/cli/main.js',
    'dist/report/page/index.html',
    'native/index.cjs',
    'bin/lucid-sae.js',
  ]) {
    expect(paths).toContain(needed)
  }
  expect(
    paths.filter((path) => path.endsWith('.node') || path.startsWith('crates/') || path.startsWith('__tests__/')),
  ).toEqual([])
})

test('the public functions are those of the interface', () => {
  expect(Object.keys(lucid).sort()).toEqual(
    [
      'ActivationStore',
      'Atlas',
      'Explorer',
      'LucidError',
      'Model',
      'Run',
      'Work',
      'bench',
      'checkBackbone',
      'compareModels',
      'compareWithSource',
      'configDefaults',
      'device',
      'evaluate',
      'examineBackbone',
      'explore',
      'exportModel',
      'extract',
      'importActivations',
      'interpret',
      'loadAtlas',
      'loadModel',
      'mergeStores',
      'openStore',
      'presets',
      'probe',
      'reproduce',
      'serve',
      'splitStore',
      'train',
      'trainMany',
      'watchReport',
    ].sort(),
  )
  expect(Object.keys(kernels).sort()).toEqual(
    [
      'LucidError',
      'UNUSED',
      'adamW',
      'adamWState',
      'barycenter',
      'cosineCost',
      'decode',
      'encodeTopK',
      'gcmt',
      'sinkhorn',
      'step',
    ].sort(),
  )
})

test('every command is documented by --help and the addon exports nothing unwrapped', () => {
  const source = readFileSync(join(root, 'native/index.d.cts'), 'utf8')
  expect(source).toContain('export declare class NativeJob')
  const rust = execFileSync('grep', ['-rhE', '#\\[napi\\(', join(root, 'native/src')], { encoding: 'utf8' })
  const functions = rust.split('\n').filter((line) => line !== '' && !line.includes('(object'))
  expect(functions.length).toBeGreaterThan(20)
  for (const line of functions) expect(line).toContain('catch_unwind')
})
