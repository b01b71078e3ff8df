import { type ChildProcess, execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { checkBackbone, compareWithSource, type Dataset, extract, mergeStores, openStore } from '../ts/index.js'
import { errorOf, root, temporary } from './support/data.js'

const work = temporary()
const scenes: Dataset = { scenes: { pairs: 30, seed: 4 } }
const flags = ['--dataset', 'scenes', '--pairs', '30', '--seed', '4']

interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

function start(...args: string[]): { child: ChildProcess; outcome: Promise<Outcome> } {
  let child: ChildProcess | undefined
  const outcome = new Promise<Outcome>((resolve) => {
    const bin = join(root, 'bin/lucid-sae.js')
    child = execFile(process.execPath, [bin, ...args], { cwd: work }, (_error, stdout, stderr) =>
      resolve({ code: child?.exitCode ?? null, stdout, stderr }),
    )
  })
  return { child: child as unknown as ChildProcess, outcome }
}

const cli = (...args: string[]): Promise<Outcome> => start(...args).outcome

test('parts extracted apart and merged are the whole', async () => {
  const whole = await extract({ dataset: scenes, out: join(work, 'whole'), pairsPerShard: 4 })
  expect(whole.extraction).toMatchObject({ pairs: 30, resumed: 0, skipped: [], stores: [join(work, 'whole')] })
  expect(['preparing', 'forward', 'writing']).toContain(whole.extraction?.limit)
  const parts: string[] = []
  for (const index of [0, 1, 2]) {
    const { code, stderr } = await cli(
      'extract',
      ...flags,
      '--shard',
      `${index}/3`,
      '--out',
      `part${index}`,
      '--pairs-per-shard',
      '4',
    )
    expect([code, stderr]).toEqual([0, expect.any(String)])
    parts.push(join(work, `part${index}`))
  }
  const merged = await mergeStores({ parts, out: join(work, 'merged') })
  expect(merged.meta.fingerprint).toBe(whole.meta.fingerprint)
  const { code, stderr } = await cli('extract', ...flags, '--shard', '3/3', '--out', 'no')
  expect([code, stderr]).toEqual([2, expect.stringContaining('E_OPTION')])
  expect((await cli('extract', ...flags, '--shard', 'three', '--out', 'no')).code).toBe(2)
})

test('killed three times and resumed, the store has the bytes of an undisturbed run', async () => {
  const many = ['--dataset', 'scenes', '--pairs', '150', '--seed', '9', '--pairs-per-shard', '10']
  const whole = await extract({
    dataset: { scenes: { pairs: 150, seed: 9 } },
    out: join(work, 'quiet'),
    pairsPerShard: 10,
  })
  const journal = join(work, '.killed.partial/journal.jsonl')
  const lines = (): number => (existsSync(journal) ? readFileSync(journal, 'utf8').split('\n').length - 2 : 0)
  for (let kill = 0; kill < 3; kill += 1) {
    const before = Math.max(lines(), 0)
    const { child, outcome } = start('extract', ...many, '--out', 'killed', '--resume')
    while (child.exitCode === null && lines() <= before) await new Promise((resolve) => setTimeout(resolve, 5))
    child.kill('SIGKILL')
    await outcome
    expect(existsSync(join(work, 'killed'))).toBe(false)
  }
  const refused = await cli('extract', ...many, '--out', 'killed')
  expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('E_UNFINISHED') })
  expect(refused.stderr).toContain('resume')
  const done = await cli('extract', ...many, '--out', 'killed', '--resume', '--json')
  expect(done.code).toBe(0)
  expect(JSON.parse(done.stdout).extraction.resumed).toBeGreaterThanOrEqual(30)
  expect((await openStore(join(work, 'killed'))).meta.fingerprint).toBe(whole.meta.fingerprint)
  expect(existsSync(join(work, '.killed.partial'))).toBe(false)
})

test('several hooks fill several stores with the same pairs', async () => {
  const layers = ['vision.block:1', 'vision.post_ln', 'text.block:0']
  const store = await extract({ dataset: scenes, out: join(work, 'layers'), layers, precision: 'int8', maxPairs: 6 })
  expect(store.path).toBe(join(work, 'layers', 'vision.block-1+text.block-0'))
  expect(store.extraction?.stores).toHaveLength(2)
  const other = await openStore(store.extraction?.stores[1] as string)
  expect(other.meta.provenance).toMatchObject({ hooks: { vision: 'vision.post_ln', text: 'text.block:0' } })
  expect(other.pair(3).image).toBe(store.pair(3).image)
  expect(other.meta.precisionError?.vision.relativeRms).toBeGreaterThan(0)
  expect(
    await errorOf(() => extract({ dataset: scenes, out: join(work, 'x'), layers: ['text.block:0', 'text.block:0'] })),
  ).toMatchObject({
    code: 'E_OPTION',
  })
})

test('a store is compared with its source, and a wrong source is told', async () => {
  const store = await extract({ dataset: scenes, out: join(work, 'source') })
  const found = await compareWithSource({ activations: store, dataset: scenes, sample: 5 })
  expect(found).toMatchObject({ sampled: 5, mismatches: [] })
  const good = await cli('verify', 'source', '--deep', ...flags, '--sample', '3')
  expect([good.code, good.stdout]).toEqual([0, expect.stringContaining('3 pairs extracted again')])
  const wrong = await cli('verify', 'source', '--deep', '--dataset', 'scenes', '--pairs', '30', '--seed', '5')
  expect([wrong.code, wrong.stderr]).toEqual([1, expect.stringContaining('E_STORE_MISMATCH')])
})

test('a backbone is looked over', async () => {
  const found = await checkBackbone()
  expect(found.passed).toBe(true)
  expect(found.checks.length).toBeGreaterThan(4)
  const good = await cli('doctor', '--backbone', 'mini')
  expect([good.code, good.stdout]).toEqual([0, expect.stringContaining('ok        image tower')])
  const picture = join(root, 'crates/lucid-vlm/tests/fixtures/world-0.png')
  const wrong = await cli('doctor', '--backbone', 'mini', '--image', picture)
  expect([wrong.code, wrong.stderr]).toEqual([1, expect.stringContaining('E_BACKBONE')])
  expect(await cli('doctor', '--backbone', 'no/such/thing')).toMatchObject({ code: 1 })
})
