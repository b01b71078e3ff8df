import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Evaluation, evaluate, importActivations, loadModel, openStore } from '../ts/index.js'
import { errorOf, shared, temporary } from './support/data.js'

const work = temporary()

/** Every number in a value, with its path. */
function leaves(value: unknown, path = ''): [string, unknown][] {
  if (typeof value !== 'object' || value === null) return [[path, value]]
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, `${path}.${key}`))
}

test('every metric has its controls, and nothing is NaN or null', async () => {
  const out = join(work, 'evaluation')
  const evaluation = await evaluate({ model: shared('run'), activations: shared('held-out'), out })
  expect(evaluation.pairs).toBe(12)
  expect(evaluation.r2?.vision?.joint).toBeLessThanOrEqual(1)
  expect(evaluation.r2?.vision?.joint).toBeCloseTo(1 - (evaluation.fvu?.vision?.joint as number), 12)
  expect(Object.keys(evaluation.cross?.t2v?.controls ?? {}).sort()).toEqual(['mean', 'shuffledCaption', 'uniformPlan'])
  expect(evaluation.deltaLeak?.v2t).toBeCloseTo(
    (evaluation.cross?.v2t?.joint as number) - (evaluation.cross?.v2t?.shared as number),
    12,
  )
  const grounding = evaluation.grounding?.['plan-max']?.phrase
  expect(Object.keys(grounding?.controls ?? {}).sort()).toEqual(['centre', 'oracle', 'shuffledCaption', 'uniform'])
  expect(evaluation.truth?.identityChance).toBeGreaterThan(0)
  for (const [path, value] of leaves(evaluation)) {
    if (typeof value === 'number' && !Number.isFinite(value)) throw new Error(`${path} is ${value}`)
    if (value === null) throw new Error(`${path} is null`)
  }
  expect(JSON.parse(readFileSync(join(out, 'evaluation.json'), 'utf8'))).toEqual(evaluation)
})

test('with pairs to fit on, what a linear map reaches stands beside cross R²', async () => {
  const options = { model: shared('run'), activations: shared('held-out'), boxes: false }
  const plain = await evaluate(options)
  const { cross } = await evaluate({ ...options, fitOn: shared('train') })
  for (const direction of ['t2v', 'v2t'] as const) {
    const { ceiling, ...rest } = cross?.[direction] ?? {}
    expect(rest).toEqual(plain.cross?.[direction])
    expect(Object.keys(ceiling ?? {}).sort()).toEqual(['both', 'matched', 'pooled'])
    expect(Math.max(...Object.values(ceiling ?? {}))).toBeLessThanOrEqual(1)
  }
  expect((await errorOf(() => evaluate({ ...options, fitOn: join(work, 'none') }))).code).toBe('E_NOT_A_STORE')
})

test('the model may stand in front, and the seed decides the shuffled captions only', async () => {
  const model = await loadModel(shared('run'))
  const options = { activations: shared('held-out'), boxes: false }
  const [a, b] = [await evaluate(model, { ...options, seed: 1 }), await evaluate({ model, ...options, seed: 2 })]
  expect(a.r2).toEqual(b.r2)
  expect(a.cross?.t2v?.controls.shuffledCaption).not.toBe(b.cross?.t2v?.controls.shuffledCaption)
  expect(a.skipped?.grounding).toContain('boxes')
})

test('targets and heat maps are those asked for', async () => {
  const options = {
    model: shared('run'),
    activations: shared('held-out'),
    targets: ['union'],
    heatmaps: ['code'],
  } as const
  const { grounding } = (await evaluate(options)) as Required<Evaluation>
  expect(Object.keys(grounding)).toEqual(['code'])
  expect(Object.keys(grounding.code ?? {})).toEqual(['union'])
})

test('boxes given by key take the place of those in the store', async () => {
  const store = await openStore(shared('held-out'))
  const whole = { x: 0, y: 0, width: 112, height: 112 }
  const boxes = Object.fromEntries(Array.from({ length: store.pairs }, (_, i) => [store.info(i).key, [whole]]))
  const evaluation = await evaluate({ model: shared('run'), activations: store, boxes, targets: ['union'] })
  // A box that covers the image holds all the heat of any map.
  expect(evaluation.grounding?.['plan-max']?.union?.massAtObj).toBeCloseTo(1, 9)
})

test('bad input', async () => {
  const refuse = (change: object) =>
    errorOf(() => evaluate({ model: shared('run'), activations: shared('held-out'), ...change }))
  expect(await refuse({ targets: ['unions'] })).toMatchObject({
    code: 'E_UNKNOWN_OPTION',
    details: { suggestion: 'union' },
  })
  expect(await refuse({ heatmaps: ['plan'] })).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
  expect(await refuse({ sed: 1 })).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
  expect((await refuse({ model: join(work, 'none') })).code).toMatch(/^E_/)
  expect(await refuse({ boxes: { 'no-such-image': [] } })).toMatchObject({
    code: 'E_OPTION',
    details: { option: 'boxes' },
  })
  const width = { data: new Float32Array(2 * 5).fill(1), shape: [2, 1, 5] }
  const text = { data: new Float32Array(2 * 5).fill(1), shape: [2, 5] }
  const other = await importActivations({ vision: width, text, textLengths: [1, 1], out: join(work, 'other') })
  expect(await refuse({ activations: other })).toMatchObject({ code: 'E_SHAPE' })
})
