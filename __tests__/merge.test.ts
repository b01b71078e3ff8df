import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { importActivations, loadModel, mergeStores, openStore, type StorePrecision } from '../ts/index.js'
import { errorOf, root, shared, temporary } from './support/data.js'

const work = temporary()

function cli(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const bin = join(root, 'bin/lucid-sae.js')
    const child = execFile(process.execPath, [bin, ...args], { cwd: work }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode, stdout, stderr }),
    )
  })
}

/** Pairs `first` to `end` of an endless set: two patches and one token each. */
async function write(out: string, first: number, end: number, precision: StorePrecision = 'int8'): Promise<string> {
  const pairs = end - first
  const values = (width: number): Float32Array =>
    Float32Array.from({ length: pairs * width }, (_, i) => Math.sin(1 + first * width + i) * 3)
  const path = join(work, out)
  const images = Array.from({ length: pairs }, (_, i) => `${first + i}.jpg`)
  await importActivations({
    vision: { data: values(8), shape: [pairs, 2, 4] },
    text: { data: values(4), shape: [pairs, 4] },
    textLengths: images.map(() => 1),
    images,
    out: path,
    precision,
    pairsPerShard: 3,
  })
  return path
}

test('parts become the store that was never divided', async () => {
  const whole = await openStore(await write('whole', 0, 8))
  // Arrays in memory are told by their shape alone, so the parts have the same provenance.
  const parts = [await write('part0', 0, 4), await write('part1', 4, 8)]
  const seen: string[] = []
  const run = mergeStores({ parts: [parts[0] as string, await openStore(parts[1] as string)], out: join(work, 'acts') })
  for await (const event of run) if (event.type === 'progress') seen.push(event.stage)
  const store = await run
  expect(store.meta.fingerprint).toBe(whole.meta.fingerprint)
  expect(store.meta).toMatchObject({ pairs: 8, precision: 'int8', formatVersion: 2, pairsPerShard: 3 })
  expect(store.meta.statistics).toEqual(whole.meta.statistics)
  expect(store.meta.precisionError?.vision.relativeRms).toBeCloseTo(
    whole.meta.precisionError?.vision.relativeRms as number,
    12,
  )
  expect(store.pair(5).vision).toEqual(whole.pair(5).vision)
  expect(new Set(seen)).toEqual(new Set(['verify', 'merge']))

  const outcome = await cli('merge', '--out', 'again', 'part0', 'part1', '--json')
  expect(outcome.code).toBe(0)
  expect(JSON.parse(outcome.stdout)).toMatchObject({ pairs: 8, meta: { fingerprint: whole.meta.fingerprint } })
  const occupied = await cli('merge', '--out', 'again', 'part0', 'part1')
  expect(occupied.code).toBe(1)
  expect(occupied.stderr).toContain('E_EXISTS')
  expect(await cli('merge', '--out', 'again', '--overwrite', 'part0', 'part1')).toMatchObject({ code: 0 })
})

test('stores that do not belong together are refused', async () => {
  const first = await write('a', 0, 4)
  const other = await write('b', 4, 8, 'bf16')
  const refused = await errorOf(() => mergeStores({ parts: [first, other], out: join(work, 'no') }))
  expect(refused).toMatchObject({ code: 'E_MERGE', details: { file: other, option: 'precision', found: 'bf16' } })
  const twice = await errorOf(() => mergeStores({ parts: [first, first], out: join(work, 'no') }))
  expect(twice.message).toContain('"0.jpg"')
  expect(await errorOf(() => mergeStores({ parts: [], out: join(work, 'no') }))).toMatchObject({ code: 'E_OPTION' })
  const text = 'acts' as unknown as string[]
  expect(await errorOf(() => mergeStores({ parts: text, out: 'x' }))).toMatchObject({ details: { option: 'parts' } })
})

test('info describes a store', async () => {
  const path = shared('train')
  const store = await openStore(path)
  const { code, stdout } = await cli('info', path)
  expect(code).toBe(0)
  const lines = stdout.trimEnd().split('\n')
  const told = new Map(lines.map((line) => [line.split(/ {2,}/).at(-2)?.trim(), line.split(/ {2,}/).at(-1)]))
  const backbone = store.meta.provenance?.backbone as { id: string; weightsBlake3: string }
  const bytes = [...store.meta.shards, ...store.meta.files].reduce((sum, file) => sum + file.bytes, 0)
  expect(told.get('pairs')).toBe('48 with 48 captions')
  expect(told.get('patches, tokens')).toContain('9,408')
  expect(told.get('precision')).toBe('f16')
  expect(told.get('error, vision')).toMatch(/^relative RMS [0-9.e-]+, at most .*, cosine 1 − [0-9.e-]+ \(least 1 − /)
  expect(told.get('hooks')).toBe('vision.post_ln, text.final_ln')
  expect(told.get('backbone')).toBe(backbone.id)
  expect(told.get('weights')).toBe(backbone.weightsBlake3)
  expect(told.get('data set')).toContain('"scenes"')
  expect(told.get('shards')).toBe('1 of up to 1,024 pairs')
  expect(told.get('size')).toContain(`(${Math.round(bytes / 48).toLocaleString('en-US')} bytes a pair)`)
  expect(told.get('fingerprint')).toBe(store.meta.fingerprint)
  // The texts stand below each other.
  expect(new Set(lines.map((line) => line.length - (line.split(/ {2,}/).at(-1) as string).length)).size).toBe(1)

  const result = JSON.parse((await cli('info', path, '--json', '--quiet')).stdout)
  expect(result).toMatchObject({ kind: 'store', pairs: 48, bytes, fingerprint: store.meta.fingerprint, shards: 1 })
  expect(result.precisionError).toEqual(store.meta.precisionError)
})

test('info describes a model and an atlas, and refuses another folder', async () => {
  const model = await cli('info', shared('run'))
  expect(model.code).toBe(0)
  const { parameters } = (await loadModel(shared('run'))).info()
  expect(model.stdout).toContain(`parameters         ${parameters.toLocaleString('en-US')}\n`)
  expect(model.stdout).toMatch(/^steps +12$/m)
  const json = JSON.parse((await cli('info', shared('run'), '--json', '--quiet')).stdout)
  expect(json).toMatchObject({ kind: 'model', parameters, steps: 12, config: { dShared: 32 } })
  const atlas = JSON.parse((await cli('info', shared('atlas'), '--json', '--quiet')).stdout)
  expect(atlas).toMatchObject({ kind: 'atlas', latents: 32, store: { pairs: 48 } })
  expect((await cli('info', shared('atlas'))).stdout).toMatch(/^latents +32 shared, \d+ with a label$/m)
  const nothing = await cli('info', work)
  expect(nothing).toMatchObject({ code: 1 })
  expect(nothing.stderr).toContain('E_NOT_FOUND')
})
