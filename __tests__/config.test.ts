import { type Config, configDefaults, configFields, presets } from '../ts/config.js'
import { errorOf } from './support/data.js'

/** Every field of the interface, so that a field added in one place only fails to compile or fails here. */
const fields: Record<keyof Config, true> = {
  dShared: true,
  dPrivate: true,
  kShared: true,
  kPrivate: true,
  topk: true,
  alpha: true,
  beta: true,
  gamma: true,
  wOt: true,
  epsilon: true,
  iterations: true,
  tolerance: true,
  sinkMass: true,
  massReweighting: true,
  lambdaGlobal: true,
  maskPenalty: true,
  planGradient: true,
  reduction: true,
  normalizeLoss: true,
  alignNormalization: true,
  initialise: true,
  auxCoefficient: true,
  kAux: true,
  deadAfterTokens: true,
  lr: true,
  weightDecay: true,
  beta1: true,
  beta2: true,
  adamEps: true,
  gradClip: true,
  unitNormDecoder: true,
  tiedInit: true,
  center: true,
  scale: true,
  biasFromMean: true,
  warmupSteps: true,
  batchPairs: true,
  microPairs: true,
  epochs: true,
  steps: true,
  order: true,
  seed: true,
  precision: true,
  method: true,
  activation: true,
  nested: true,
  bandwidth: true,
  l0Coefficient: true,
}

test('the TypeScript interface names exactly the fields of the addon', () => {
  expect([...configFields()].sort()).toEqual(Object.keys(fields).sort())
})

test('defaults of the documentation are those of the addon', () => {
  expect(configDefaults()).toMatchObject({
    dShared: 1536,
    dPrivate: 4608,
    kShared: 16,
    kPrivate: 32,
    alpha: 1,
    beta: 0.5,
    gamma: 0.3,
    epsilon: 0.1,
    iterations: 10,
    maskPenalty: Number.POSITIVE_INFINITY,
    initialise: 'paired',
    alignNormalization: 'pooled',
    lr: 3e-4,
    weightDecay: 0.01,
    unitNormDecoder: true,
    auxCoefficient: 1 / 32,
  })
  expect(Object.isFrozen(configDefaults())).toBe(true)
})

test('presets differ where the method says so', () => {
  expect(configDefaults('paper')).toMatchObject({
    initialise: 'random',
    unitNormDecoder: false,
    auxCoefficient: 0,
    gradClip: 0,
  })
  expect(configDefaults('ot-only')).toMatchObject({ topk: 'global', wOt: 0.1, beta: 0, massReweighting: false })
  expect(configDefaults('share-k')).toMatchObject({ topk: 'split', wOt: 0.1, beta: 0 })
  expect(configDefaults('share-k-gsl-gcmt')).toMatchObject({ massReweighting: true, initialise: 'random', beta: 0.5 })
  for (const preset of presets) {
    const { kShared, kPrivate } = configDefaults(preset)
    expect(kShared + kPrivate).toBe(48)
  }
})

test('an unknown preset is refused with the nearest', async () => {
  const error = await errorOf(() => configDefaults('papr' as 'paper'))
  expect(error.code).toBe('E_UNKNOWN_OPTION')
  expect(error.message).toContain("did you mean 'paper'?")
})

test('kShared above dShared is refused by name', async () => {
  const error = await errorOf(() => configDefaults('default', { kShared: 9, dShared: 8 }))
  expect(error).toMatchObject({ code: 'E_OPTION', details: { option: 'kShared', found: '9' } })
})

test.each([
  ['epsilon', 0],
  ['lr', Number.NaN],
  ['beta1', 1],
  ['batchPairs', 0],
  ['topk', 'both'],
] as const)('%s = %p is refused by name', async (option, value) => {
  const error = await errorOf(() => configDefaults('default', { [option]: value } as Partial<Config>))
  expect(error.code).toBe('E_OPTION')
  expect(error.details.option).toBe(option)
})
