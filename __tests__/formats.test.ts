/**
 * The files as docs/formats.md, formats-model.md and formats-atlas.md describe them, read with code written from those
 * pages alone and compared with what the package says.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { loadAtlas, loadModel, openStore } from '../ts/index.js'
import { numbers, readSafetensors, shared, type Tensor } from './support/data.js'

const json = (...path: string[]): Record<string, never> => JSON.parse(readFileSync(join(...path), 'utf8'))

test('an activation store', async () => {
  const store = shared('train')
  const manifest = json(store, 'manifest.json') as unknown as {
    format: string
    formatVersion: number
    dVision: number
    dText: number
    pairs: number
    shards: { name: string; firstPair: number }[]
  }
  expect(manifest).toMatchObject({ format: 'lucid-sae activation store', formatVersion: 1, pairs: 48 })
  const i = 17
  const shard = manifest.shards.filter((entry) => entry.firstPair <= i).at(-1) as { name: string; firstPair: number }
  const { tensors } = readSafetensors(join(store, shard.name))
  const rows = (name: string, offsets: string, k: number, width: number): number[] => {
    const at = numbers64(tensors[offsets] as Tensor)
    return numbers(tensors[name] as Tensor).slice((at[k] as number) * width, (at[k + 1] as number) * width)
  }
  const k = i - shard.firstPair
  const caption = numbers64(tensors.caption_offsets as Tensor)[k] as number
  const line = JSON.parse(readFileSync(join(store, 'pairs.jsonl'), 'utf8').split('\n')[i] as string)
  const pair = (await openStore(store)).pair(i)
  expect([...pair.vision]).toEqual(rows('vision', 'vision_offsets', k, manifest.dVision))
  expect([...pair.text]).toEqual(rows('text', 'text_offsets', caption, manifest.dText))
  expect([...pair.textIds]).toEqual(rows('token_ids', 'text_offsets', caption, 1))
  expect(line).toMatchObject({ key: pair.image, captions: [pair.caption], visionGrid: [14, 14] })
  const spans = rows('token_spans', 'text_offsets', caption, 2)
  const [start, end] = spans as [number, number]
  expect(pair.caption.slice(start, end).trim().length).toBeGreaterThan(0)
})

/** Offsets are 64-bit integers. */
function numbers64(tensor: Tensor): number[] {
  expect(tensor.dtype).toBe('I64')
  return Array.from({ length: tensor.bytes.length / 8 }, (_, i) => Number(tensor.bytes.readBigInt64LE(i * 8)))
}

test('a model folder: codes and reconstructions from the weights alone', async () => {
  const folder = shared('run')
  const config = json(folder, 'config.json') as unknown as {
    format: string
    formatVersion: number
    dShared: number
    dPrivate: number
    kShared: number
    kPrivate: number
    dVision: number
    weights: { bytes: number }
  }
  expect(config).toMatchObject({ format: 'lucid-sae-model', formatVersion: 1, dShared: 32, maskPenalty: 'inf' })
  expect(readFileSync(join(folder, 'model.safetensors'))).toHaveLength(config.weights.bytes)
  const { tensors } = readSafetensors(join(folder, 'model.safetensors'))
  const w = Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, numbers(tensor)]))
  const get = (name: string): number[] => w[`vision.${name}`] as number[]
  const { dVision: d, dShared } = config
  const K = dShared + config.dPrivate
  expect(tensors['vision.W_enc']?.shape).toEqual([d, K])
  expect(tensors['vision.W_dec']?.shape).toEqual([K, d])
  const raw = (await openStore(shared('train'))).pair(2).vision.subarray(0, d)
  const [mean, scale] = [get('mean'), get('scale')[0] as number]
  const x = Array.from(raw, (h, i) => (h - (mean[i] as number)) * scale)
  const a = Array.from({ length: K }, (_, latent) =>
    x.reduce(
      (sum, value, i) => sum + (value - (get('b_dec')[i] as number)) * (get('W_enc')[i * K + latent] as number),
      get('b_enc')[latent] as number,
    ),
  )
  const top = (from: number, to: number, k: number): [number, number][] =>
    a
      .map((value, latent) => [latent, value] as [number, number])
      .slice(from, to)
      .filter(([, value]) => value > 0)
      .sort(([p, u], [q, v]) => v - u || p - q)
      .slice(0, k)
  const code = [...top(0, dShared, config.kShared), ...top(dShared, K, config.kPrivate)]
  const model = await loadModel(folder)
  const codes = model.encode(raw, 'vision')
  const used = [...codes.indices].filter((index) => index !== 0xffffffff)
  expect(used).toEqual(code.map(([latent]) => latent))
  const decoded = model.decode(codes, 'vision')
  for (let i = 0; i < d; i += 1) {
    const inside = code.reduce(
      (sum, [latent, value]) => sum + value * (get('W_dec')[latent * d + i] as number),
      get('b_dec')[i] as number,
    )
    expect(decoded[i]).toBeCloseTo(inside / scale + (mean[i] as number), 3)
  }
})

test('a run folder logs every step', () => {
  const lines = readFileSync(join(shared('run'), 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
  const steps = lines.map((line) => JSON.parse(line)).filter((event) => event.type === 'step')
  expect(steps.map((event) => event.step)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1))
  expect(Object.keys(steps[0].losses)).toEqual(
    expect.arrayContaining(['self_vision', 'cross_text', 'align_vision', 'total']),
  )
})

test('an atlas: a heat map from the file alone', async () => {
  const folder = shared('atlas')
  const index = json(folder, 'atlas.json') as unknown as {
    format: string
    formatVersion: number
    images: { grid: [number, number]; file: string }[]
    latents: { latent: number; images: { image: number; map: number; value: number; peak: [number, number] }[] }[]
  }
  expect(index).toMatchObject({ format: 'lucid-atlas', formatVersion: 1 })
  const latent = index.latents.find((entry) => entry.images.length > 0)
  const hit = latent?.images[0]
  if (!latent || !hit) throw new Error('no latent shows an image')
  const { tensors } = readSafetensors(join(folder, 'maps.safetensors'))
  const image = index.images[hit.image] as { grid: [number, number]; file: string }
  const map = numbers(tensors.heat as Tensor).slice(hit.map, hit.map + image.grid[0] * image.grid[1])
  expect(Math.max(...map)).toBe(Math.fround(hit.value))
  expect(map[hit.peak[0] * image.grid[1] + hit.peak[1]]).toBe(Math.fround(hit.value))
  const atlas = await loadAtlas(folder)
  const kept = atlas.latents[latent.latent]?.images[0]
  if (!kept) throw new Error('the atlas lost an image')
  expect([...atlas.heat(kept)]).toEqual(map)
  expect([...readFileSync(join(folder, image.file)).subarray(0, 2)]).toEqual([0xff, 0xd8])
})
