import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ExtractOptions, extract, type LucidError } from '../ts/index.js'
import { errorOf, root, temporary } from './support/data.js'

const work = temporary()
const picture = join(root, 'crates/lucid-vlm/tests/fixtures/world-0.png')

/** A folder of two photos; `captions` as lines of captions.jsonl. */
function photos(name: string, captions: object[], more: Record<string, Buffer> = {}): string {
  const folder = join(work, name)
  mkdirSync(folder)
  for (const file of ['a.png', 'b.png']) copyFileSync(picture, join(folder, file))
  for (const [file, bytes] of Object.entries(more)) writeFileSync(join(folder, file), bytes)
  writeFileSync(join(folder, 'captions.jsonl'), captions.map((caption) => JSON.stringify(caption)).join('\n'))
  return folder
}

const both = [
  { file: 'a.png', caption: 'a red star' },
  { file: 'b.png', caption: 'a blue ring on sand' },
]

test('a folder of photos becomes a store, with progress', async () => {
  const run = extract({ dataset: { folder: photos('plain', both) }, out: join(work, 'plain-acts') })
  const stages = new Set<string>()
  for await (const event of run) if (event.type === 'progress') stages.add(event.stage)
  const store = await run
  expect(stages).toContain('extract')
  expect(store.pairs).toBe(2)
  expect(store.pair(1).caption).toBe('a blue ring on sand')
})

test('maxPairs, precision and hooks', async () => {
  const store = await extract({
    dataset: { scenes: { pairs: 5, seed: 3 } },
    out: join(work, 'hooks'),
    maxPairs: 2,
    precision: 'f32',
    layers: ['vision.block:1'],
  })
  expect(store.pairs).toBe(2)
  expect(store.meta.precision).toBe('f32')
  expect(store.meta.provenance).toMatchObject({ hooks: { vision: 'vision.block:1', text: 'text.final_ln' } })
})

describe('bad input', () => {
  const refuse = (options: Partial<ExtractOptions>): Promise<LucidError> =>
    errorOf(() => extract({ dataset: { scenes: { pairs: 2 } }, out: join(work, 'refused'), ...options }))

  test('a truncated image', async () => {
    const half = readFileSync(picture).subarray(0, 300)
    const folder = photos('truncated', [...both, { file: 'c.png', caption: 'a tree' }], { 'c.png': half })
    const error = await refuse({ dataset: { folder } })
    expect(error.code).toBe('E_IMAGE')
    expect(error.message).toContain('c.png')
    const run = extract({ dataset: { folder }, out: join(work, 'skipped'), onBad: 'skip' })
    const warnings: string[] = []
    for await (const event of run) if (event.type === 'warning') warnings.push(event.message)
    expect((await run).pairs).toBe(2)
    expect(warnings.join()).toContain('c.png')
  })

  test('a missing image', async () => {
    const folder = photos('missing', [...both, { file: 'none.png', caption: 'a tree' }])
    expect(await refuse({ dataset: { folder } })).toMatchObject({ code: 'E_IMAGE' })
  })

  test('an image without a caption', async () => {
    const folder = photos('uncaptioned', both.slice(0, 1))
    const error = await refuse({ dataset: { folder } })
    expect(error.code).toBe('E_NO_CAPTION')
    expect(error.message).toContain('b.png')
  })

  test('a caption without a token', async () => {
    const folder = photos('empty', [both[0] as object, { file: 'b.png', caption: '   ' }])
    expect(['E_NO_CAPTION', 'E_EMPTY_TEXT']).toContain((await refuse({ dataset: { folder } })).code)
  })

  test('an occupied out, an unknown hook, option, data set, backbone', async () => {
    mkdirSync(join(work, 'occupied'))
    writeFileSync(join(work, 'occupied', 'mine.txt'), 'keep')
    expect(await refuse({ out: join(work, 'occupied') })).toMatchObject({ code: 'E_EXISTS' })
    expect(await refuse({ layers: ['vision.block:99'] })).toMatchObject({ code: 'E_HOOK' })
    expect(await refuse({ maxpairs: 3 } as object)).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
    expect(await refuse({ dataset: { scene: { pairs: 3 } } as never })).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
    expect(await refuse({ dataset: { parquet: 3 } as never })).toMatchObject({ code: 'E_OPTION' })
    expect((await refuse({ backbone: join(work, 'no-backbone') })).code).toMatch(/^E_/)
    expect(await refuse({ device: 'cuda' })).toMatchObject({ code: 'E_DEVICE' })
    expect(await refuse({ threads: 0 })).toMatchObject({ code: 'E_OPTION', details: { option: 'threads' } })
  })
})
