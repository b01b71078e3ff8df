/** A trained model over pictures it has never seen: the states it was trained on, whatever the backbone's own defaults are. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type AtlasData, extract, interpret, openStore, train } from '../ts/index.js'
import { errorOf, temporary } from './support/data.js'

const work = temporary()
const at = (name: string): string => join(work, name)
const layers = ['vision.block:1', 'text.block:0']
const concepts = ['red', 'blue', 'sand', 'striped', 'circle', 'star']

beforeAll(async () => {
  await extract({ backbone: 'mini', layers, dataset: { scenes: { pairs: 100, seed: 1 } }, out: at('train') })
  const settings = { dShared: 64, dPrivate: 64, kShared: 4, kPrivate: 4, steps: 80 }
  await train({ ...settings, activations: at('train'), out: at('run') })
}, 120_000)

test('a model knows where its states come from', () => {
  const { store } = JSON.parse(readFileSync(join(at('run'), 'config.json'), 'utf8'))
  expect(store.origin.hooks).toEqual({ vision: 'vision.block:1', text: 'text.block:0' })
  expect(store.origin.backbone.id).toBe('mini')
})

test('a data set is read at the hooks of the model', async () => {
  const options = { model: at('run'), concepts, quantile: 0.5, minHits: 1 }
  const scenes = { scenes: { pairs: 20, seed: 9 } }
  await extract({ backbone: 'mini', layers, dataset: scenes, out: at('other') })
  const stored = await interpret({ ...options, activations: at('other') })
  const given = await interpret({ ...options, dataset: scenes })
  const numbers = ({ latents, threshold }: AtlasData) => ({ threshold, latents })
  expect(numbers(given.data)).toEqual(numbers(stored.data))
  // At the backbone's own hooks the same pictures mean something else.
  await extract({ backbone: 'mini', dataset: scenes, out: at('default') })
  const wrong = await interpret({ ...options, activations: at('default') })
  expect(wrong.data.threshold).not.toEqual(stored.data.threshold)
})

test('a folder of pictures without captions', async () => {
  mkdirSync(at('photos'))
  const store = await openStore(at('train'))
  for (let pair = 0; pair < 8; pair += 1) {
    writeFileSync(join(at('photos'), `IMG_00${pair}.jpg`), store.thumbnail(pair) as Uint8Array)
  }
  const images = at('photos')
  const atlas = await interpret({
    model: at('run'),
    dataset: { folder: { images, captions: false } },
    concepts,
    quantile: 0.5,
    minHits: 1,
    out: at('atlas'),
  })
  expect(atlas.data.store.pairs).toBe(8)
  expect(atlas.images.map(({ key }) => key).every((key) => /^IMG_00\d\.jpg$/.test(key))).toBe(true)
  expect(atlas.images[0]?.caption).toMatch(/^IMG 00\d$/)
  const made = await atlas.figures(at('figures'), { outOfDistribution: atlas })
  expect(made.files).toContain('figure5.svg')
  // File names are no concepts: the words that the backbone knows stand in.
  const { data } = await interpret({ model: at('run'), dataset: { folder: { images, captions: false } }, minHits: 1 })
  expect(data.concepts.map(({ name }) => name)).toEqual(expect.arrayContaining(['red', 'striped', 'star']))
  expect(data.concepts.some(({ name }) => /img|\d/.test(name))).toBe(false)
  const error = await errorOf(() => interpret({ model: at('run'), dataset: { folder: images }, concepts }))
  expect(error.code).toBe('E_NO_CAPTION')
  expect(error.hint).toContain('captions: false')
})
