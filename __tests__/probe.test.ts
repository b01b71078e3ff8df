import { join } from 'node:path'
import { compareModels, extract, type Probing, probe, train } from '../ts/index.js'
import { errorOf, shared, temporary } from './support/data.js'

const work = temporary()
const layers = ['vision.post_ln', 'text.block:0']
const store = (name: string): string => join(work, name)
const scenes = (pairs: number, seed: number, edits: boolean) =>
  extract({ backbone: 'mini', layers, dataset: { scenes: { pairs, seed, edits } }, out: store(`scenes-${seed}`) })

beforeAll(async () => {
  await scenes(120, 1, false)
  await scenes(80, 2, true)
  await scenes(1, 3, false)
  const settings = { activations: store('scenes-1'), dShared: 64, dPrivate: 64, kShared: 4, kPrivate: 4, steps: 60 }
  await train({ ...settings, seed: 1, out: store('one') })
  await train({ ...settings, seed: 2, out: store('two') })
}, 120_000)

/** Every number in a value. */
const numbers = (value: unknown): number[] =>
  typeof value === 'number'
    ? [value]
    : typeof value === 'object' && value !== null
      ? Object.values(value).flatMap(numbers)
      : []

test('a model is asked what it knows of concepts, beside controls', async () => {
  const found: Probing = await probe({
    model: store('one'),
    fitOn: store('scenes-1'),
    activations: store('scenes-2'),
    bootstrap: 100,
  })
  expect(found).toMatchObject({ fitted: 120, tested: 80, labels: 'truth' })
  const { mean, concepts } = found.probes.vision ?? fail()
  expect(mean.states).toBeGreaterThan(mean.shuffled + 0.2)
  expect(mean.one).toBeGreaterThan(mean.oneShuffled + 0.1)
  expect(concepts.length).toBeGreaterThan(25)
  expect(found.classification?.background?.states).toBeGreaterThan(0.8)
  expect(found.edits?.all?.edits).toBe(40)
  expect(numbers(found).every(Number.isFinite)).toBe(true)
  expect(JSON.stringify(found)).not.toContain('null')
  const [low = 1, high = 0] = found.intervals?.['probes.vision.mean.codes'] ?? []
  expect(low <= mean.codes && mean.codes <= high).toBe(true)
  const without = await probe({ model: store('one'), fitOn: store('scenes-2'), activations: store('scenes-1') })
  expect(without.edits).toBeUndefined()
  expect(without.skipped?.edits).toContain('no edited pictures')
})

function fail(): never {
  throw new Error('no probes of pictures')
}

test('categories of boxes stand in for a truth', async () => {
  const found = await probe({
    model: shared('run'),
    fitOn: shared('held-out'),
    activations: shared('held-out'),
    bootstrap: 0,
  })
  expect(['truth', 'categories']).toContain(found.labels)
  expect(found.intervals ?? {}).toEqual({})
})

test('the latents of two seeds are matched one to one', async () => {
  const same = await compareModels({ model: store('one'), other: store('one') })
  expect(same.matched.same).toBe(1)
  expect(same.matched.mean).toBeCloseTo(1, 6)
  expect(same.pairs.every(({ latent, other }) => latent === other)).toBe(true)
  const found = await compareModels({ model: store('one'), other: store('two'), activations: store('scenes-2') })
  expect(found.pairs).toHaveLength(Math.min(...found.latents))
  expect(new Set(found.pairs.map(({ other }) => other)).size).toBe(found.pairs.length)
  expect(found.matched.mean).toBeGreaterThan(found.random.mean)
})

test('what cannot be probed is refused with its reason', async () => {
  const options = { model: store('one'), fitOn: store('scenes-1'), activations: store('scenes-2') }
  expect((await errorOf(() => probe({ ...options, fitOn: store('none') }))).code).toBe('E_NOT_A_STORE')
  expect((await errorOf(() => probe({ ...options, fitOn: store('scenes-3') }))).code).toBe('E_SHAPE')
  expect((await errorOf(() => probe({ model: store('one') } as never))).message).toContain("'activations'")
  expect((await errorOf(() => compareModels({ model: store('one'), other: store('none') }))).code).toMatch(/^E_/)
  const control = new AbortController()
  const run = probe(options, { signal: control.signal })
  control.abort()
  expect((await errorOf(() => run)).name).toBe('AbortError')
})
