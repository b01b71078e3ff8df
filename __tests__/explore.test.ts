import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Explorer, explore, extract, interpret, loadAtlas, loadModel, openStore } from '../ts/index.js'
import { errorOf, shared, temporary } from './support/data.js'
import { picture } from './support/report-atlas.js'

const work = temporary()
let explorer: Explorer

beforeAll(async () => {
  explorer = await explore({ model: shared('run'), activations: shared('train'), atlas: shared('atlas') })
})

/** The mean shared code, slot by slot. */
function pooled(codes: {
  indices: Uint32Array
  values: Float32Array
  k: number
  dShared: number
}): Map<number, number> {
  const sum = new Map<number, number>()
  const tokens = codes.indices.length / codes.k
  codes.indices.forEach((latent, slot) => {
    if (latent < codes.dShared) sum.set(latent, (sum.get(latent) ?? 0) + (codes.values[slot] ?? 0) / tokens)
  })
  return sum
}

const dot = (a: Map<number, number>, b: Map<number, number>): number =>
  [...a].reduce((sum, [latent, value]) => sum + value * (b.get(latent) ?? 0), 0)

test('a phrase finds its latents and the nearest pictures, as brute force does', async () => {
  const store = await openStore(shared('train'))
  const model = await loadModel(shared('run'))
  // The caption of a pair, asked as a phrase, has the states that the store holds of it.
  const { caption, text } = store.pair(4)
  const found = await explorer.search(caption, { top: 5 })
  const code = pooled(model.encode(text, 'text'))
  const weights = [...code].sort((a, b) => b[1] - a[1])
  expect(found.tokens.filter((token) => token !== '').join('')).toBe(caption.replaceAll(' ', ''))
  expect(found.latents[0]?.latent).toBe(weights[0]?.[0])
  // The store holds half-precision states.
  expect(found.latents[0]?.weight).toBeCloseTo(weights[0]?.[1] ?? 0, 2)
  const scores = Array.from({ length: store.pairs }, (_, pair) => {
    const image = pooled(model.encode(store.pair(pair).vision, 'vision'))
    return { pair, score: dot(code, image) / Math.sqrt(dot(code, code) * dot(image, image)) }
  }).sort((a, b) => b.score - a.score)
  expect(found.images).toHaveLength(5)
  expect(found.images[0]?.score).toBeCloseTo(scores[0]?.score ?? 0, 2)
  expect(found.images.map(({ pair }) => pair)).toContain(scores[0]?.pair)
})

test('a picture is explained by concepts, latents and neighbours', async () => {
  const file = join(work, 'picture.png')
  writeFileSync(file, picture(60))
  const found = await explorer.explainImage(file, { top: 6 })
  expect(found).toMatchObject({ grid: [14, 14], size: [112, 112] })
  expect(found.latents.length).toBeGreaterThan(0)
  for (const { heat, peak, activation } of found.latents) {
    expect(heat).toHaveLength(196)
    expect(Math.max(...heat)).toBe(activation)
    expect(heat[peak[0] * 14 + peak[1]]).toBe(activation)
  }
  const atlas = await loadAtlas(shared('atlas'))
  for (const { concept, confidence } of found.concepts) {
    expect(atlas.concepts.map(({ name }) => name)).toContain(concept)
    expect(confidence).toBeGreaterThan(0)
  }
  const falling = found.concepts.map(({ confidence }) => confidence)
  expect(falling).toEqual([...falling].sort((a, b) => b - a))
  expect(found.neighbours).toHaveLength(6)
  // Bytes and file are one picture.
  expect(await explorer.explainImage(picture(60), { top: 6 })).toEqual(found)
})

test('a concept of a stored picture scores as the atlas says', async () => {
  const atlas = await loadAtlas(shared('atlas'))
  const concept = atlas.concepts.find(({ images }) => images.length > 0)
  const hit = concept?.images[0]
  if (!concept || !hit) throw new Error('the atlas shows nothing')
  // The small JPEG is not the picture that was extracted, but near enough to score alike.
  const bytes = atlas.picture(hit.image)
  if (!bytes) throw new Error('no picture')
  const found = await explorer.explainImage(bytes, { top: 200 })
  const own = found.concepts.find(({ concept: name }) => name === concept.name)
  expect(own?.confidence).toBeGreaterThan(0.5 * hit.value)
})

test('latents near to a latent, by images and by decoders', async () => {
  const model = await loadModel(shared('run'))
  const { dShared } = model.config
  for (const by of ['coactivation', 'decoder-vision', 'decoder-text'] as const) {
    const found = await explorer.nearest(3, { by, top: 1000 })
    expect(found).toHaveLength(dShared - 1)
    expect(found.every(({ latent }) => latent !== 3)).toBe(true)
    for (const { similarity } of found) expect(Math.abs(similarity)).toBeLessThanOrEqual(1 + 1e-6)
    // The other way round it is the same number.
    const [first] = found
    const back = await explorer.nearest(first?.latent ?? 0, { by, top: 1000 })
    expect(back.find(({ latent }) => latent === 3)?.similarity).toBeCloseTo(first?.similarity ?? 0, 6)
  }
})

test('steering moves the decoded states where the latent is, and nothing where nothing changes', async () => {
  const { latents } = await explorer.explainImage(picture(60))
  const latent = latents[0]?.latent ?? 0
  const still = await explorer.steer({ image: picture(60), latent, factor: 1 })
  expect(still).toMatchObject({ latent, change: 0 })
  expect(still.cosine).toBeCloseTo(1, 6)
  expect(still.after).toEqual(still.before)
  const off = await explorer.steer({ image: picture(60), latent, factor: 0 })
  expect(off.change).toBeGreaterThan(0)
  const moved = [...off.heat].filter((value) => value > 1e-6).length
  expect(moved).toBe(off.fired)
  // Twice the activation moves as far as none, the other way: the decoder is linear.
  const twice = await explorer.steer({ image: picture(60), latent, factor: 2 })
  expect(twice.change).toBeCloseTo(off.change, 4)
  const set = await explorer.steer({ image: 2, latent, value: 5 })
  expect([...set.heat].every((value) => value > 0)).toBe(true)
  expect(set.after).toHaveLength(5)
})

test('wrong questions are named', async () => {
  const bad = async (ask: () => unknown) => (await errorOf(ask)).code
  expect(await bad(() => explorer.search('  '))).toBe('E_OPTION')
  expect(await bad(() => explorer.search('red', { top: 0 }))).toBe('E_OPTION')
  expect(await bad(() => explorer.nearest(10_000))).toBe('E_OPTION')
  expect(await bad(() => explorer.nearest(1, { by: 'taste' as never }))).toBe('E_OPTION')
  expect(await bad(() => explorer.steer({ image: 0, latent: 1 }))).toBe('E_OPTION')
  expect(await bad(() => explorer.steer({ image: 0, latent: 1, factor: 1, value: 1 }))).toBe('E_OPTION')
  expect(await bad(() => explorer.steer({ image: 0, latent: 1, factor: -1 }))).toBe('E_OPTION')
  expect(await bad(() => explorer.steer({ image: 1e6, latent: 1, factor: 1 }))).toBe('E_OPTION')
  expect(await bad(() => explorer.explainImage(new Uint8Array([1, 2, 3])))).toBe('E_IMAGE')
  expect(await bad(() => explorer.explainImage(join(work, 'nothing.png')))).toBe('E_IMAGE')
  expect(await bad(() => explore({ model: shared('run'), activations: join(work, 'none') }))).toBe('E_NOT_A_STORE')
})

test('a backbone with other weights than the store is refused by name', async () => {
  const activations = join(work, 'untrained')
  await extract({ dataset: { scenes: { pairs: 3, seed: 5 } }, untrained: 7, out: activations })
  const stranger = await explore({ model: shared('run'), activations })
  for (const ask of [
    () => stranger.search('red'),
    () => stranger.explainImage(picture(60)),
    () => interpret({ model: shared('run'), activations, concepts: ['red'] }),
  ]) {
    const { code, message, details } = await errorOf(ask)
    expect({ code, option: details.option }).toEqual({ code: 'E_OPTION', option: 'backbone' })
    expect(message).toContain('weights')
  }
})
