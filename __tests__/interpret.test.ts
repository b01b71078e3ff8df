import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Atlas, evaluate, interpret, loadAtlas } from '../ts/index.js'
import { errorOf, shared, temporary, tiny } from './support/data.js'

const work = temporary()
let atlas: Atlas

beforeAll(async () => {
  atlas = await interpret({
    model: shared('run'),
    activations: shared('train'),
    concepts: ['red', { name: 'blue', category: 'color' }, 'sky', 'sand'],
    minHits: 1,
    quantile: 0.5,
    topImages: 3,
  })
})

test('an atlas names latents and concepts', () => {
  expect(atlas.latents).toHaveLength(tiny.dShared)
  expect(atlas.concepts.map((concept) => concept.name)).toEqual(['red', 'blue', 'sky', 'sand'])
  expect(atlas.concepts[1]?.category).toBe('color')
  for (const { latent, label } of atlas.latents) expect(atlas.label(latent)).toBe(label)
  expect(atlas.latentsFor('red')).toEqual(atlas.concepts[0]?.latents)
})

test('heat maps: the peak is the maximum, kept and computed ones agree', () => {
  const latent = atlas.latents.find((entry) => entry.images.length > 0)
  const hit = latent?.images[0]
  if (!latent || !hit) throw new Error('no latent shows an image')
  const { pair, key } = atlas.images[hit.image] as { pair: number; key: string }
  const map = atlas.heatmap({ latent: latent.latent, image: pair })
  expect(map.grid).toEqual([14, 14])
  const [row, column] = map.peak
  expect(map.values[row * 14 + column]).toBe(Math.max(...map.values))
  expect(atlas.heatmap({ latent: latent.latent, image: key }).peak).toEqual(map.peak)
  const elsewhere = Array.from({ length: 48 }, (_, i) => i).find(
    (i) => !latent.images.some((kept) => atlas.images[kept.image]?.pair === i),
  ) as number
  expect(atlas.heatmap({ latent: latent.latent, image: elsewhere }).values).toHaveLength(196)
})

test('labels are held against the truth of generated pairs', async () => {
  const evaluation = await evaluate({ model: shared('run'), activations: shared('held-out'), boxes: false })
  const score = atlas.scoreLabels(evaluation)
  const labelled = atlas.latents.filter(({ label }) => label !== null)
  expect(score.labels).toBe(labelled.length)
  expect(score.right + score.wrong.length).toBe(score.labels)
  const { concepts, latents = [] } = evaluation.truth ?? { concepts: [] }
  for (const { latent, label } of labelled) {
    const best = latents[latent]?.vision
    const words = best === undefined ? [] : (concepts[best.concept]?.words ?? [])
    expect(score.wrong.includes(latent)).toBe(!words.includes(label?.split(', ')[0] ?? ''))
  }
  const { truth: _known, ...unknown } = evaluation
  expect((await errorOf(() => atlas.scoreLabels(unknown))).code).toBe('E_OPTION')
})

test('search finds concepts by their words', () => {
  expect(atlas.search('blu')[0]).toMatchObject({ kind: 'concept', text: 'blue' })
  expect(atlas.search('')).toEqual([])
})

test('a saved atlas is the same atlas, without the means to make new maps', async () => {
  const path = join(work, 'atlas')
  await atlas.save(path)
  const copy = await loadAtlas(path)
  expect(copy.data).toEqual(atlas.data)
  expect(copy.picture(0)?.slice(0, 2)).toEqual(atlas.picture(0)?.slice(0, 2))
  const missing = await errorOf(() => copy.heatmap({ concept: 'red', image: 10_000 }))
  expect(missing.code).toBe('E_NOT_IN_ATLAS')
  const file = join(path, 'maps.safetensors')
  const bytes = readFileSync(file)
  bytes[bytes.length - 1] = (bytes[bytes.length - 1] as number) ^ 1
  writeFileSync(file, bytes)
  expect(await errorOf(() => loadAtlas(path))).toMatchObject({ code: 'E_DAMAGED' })
})

test('concepts from files, and from a data set of its own', async () => {
  const tsv = join(work, 'concepts.tsv')
  writeFileSync(tsv, 'red\tcolor\nstar\tshape\n')
  const json = join(work, 'concepts.json')
  writeFileSync(json, '["red", {"name": "grass", "category": "background"}]')
  const base = { model: shared('run'), maxImages: 4, minHits: 1 }
  const first = await interpret({ ...base, activations: shared('train'), concepts: tsv })
  expect(first.concepts.map(({ name, category }) => [name, category])).toEqual([
    ['red', 'color'],
    ['star', 'shape'],
  ])
  const second = await interpret({ ...base, dataset: { scenes: { pairs: 4, seed: 8 } }, concepts: json })
  expect(second.concepts[1]).toMatchObject({ name: 'grass', category: 'background' })
})

test('bad input', async () => {
  const refuse = (change: object) =>
    errorOf(() => interpret({ model: shared('run'), activations: shared('train'), concepts: ['red'], ...change }))
  expect(await refuse({ quantile: 2 })).toMatchObject({ code: 'E_OPTION', details: { option: 'quantile' } })
  expect(await refuse({ concepts: [] })).toMatchObject({ code: 'E_OPTION', details: { option: 'concepts' } })
  expect(await refuse({ concepts: join(work, 'none.txt') })).toMatchObject({ code: 'E_IO' })
  expect(await refuse({ dataset: { scenes: { pairs: 2 } } })).toMatchObject({ code: 'E_OPTION' })
  expect(await refuse({ treshold: 1 })).toMatchObject({
    code: 'E_UNKNOWN_OPTION',
    details: { suggestion: 'threshold' },
  })
  expect(await errorOf(() => atlas.latentsFor('reed'))).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
  expect(await errorOf(() => atlas.label(tiny.dShared))).toMatchObject({ code: 'E_OPTION' })
  expect(await errorOf(() => atlas.heatmap({ image: 0 }))).toMatchObject({ code: 'E_OPTION' })
  expect((await errorOf(() => loadAtlas(join(work, 'none')))).code).toMatch(/^E_/)
})

test('a disposed atlas says so', async () => {
  const copy = join(work, 'copy')
  cpSync(shared('atlas'), copy, { recursive: true })
  const gone = await loadAtlas(copy)
  gone.dispose()
  expect(await errorOf(() => gone.search('red'))).toMatchObject({ code: 'E_DISPOSED' })
})
