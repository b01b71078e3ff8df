import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import * as kernels from '../ts/kernels.js'
import { errorOf, numbers, readSafetensors, root, type Tensor } from './support/data.js'

const { adamW, adamWState, barycenter, cosineCost, decode, encodeTopK, gcmt, sinkhorn, step, UNUSED } = kernels

const fixtures = join(root, 'crates/lucid-sae/tests/fixtures')
const names = [
  'vision.W_enc',
  'vision.b_enc',
  'vision.W_dec',
  'vision.b_dec',
  'text.W_enc',
  'text.b_enc',
  'text.W_dec',
  'text.b_dec',
] as const

type Kind = typeof Float64Array | typeof Float32Array
const kinds: [string, Kind, number, number][] = [
  ['f64', Float64Array, 1e-9, 1e-8],
  ['f32', Float32Array, 2e-4, 2e-4],
]

function params(tensors: Record<string, Tensor>, prefix: string, Floats: Kind): kernels.Params<kernels.Floats> {
  return Object.fromEntries(
    names.map((name) => [name, Floats.from(numbers(tensors[`${prefix}.${name}`] as Tensor))]),
  ) as kernels.Params<kernels.Floats>
}

/** max |a − b| / max |b|, the measure of the fixtures. */
function relative(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(found.length).toBe(expected.length)
  let difference = 0
  let scale = 0
  for (let i = 0; i < expected.length; i += 1) {
    difference = Math.max(difference, Math.abs((found[i] as number) - (expected[i] as number)))
    scale = Math.max(scale, Math.abs(expected[i] as number))
  }
  return scale === 0 ? difference : difference / scale
}

function load(
  file: string,
  Floats: Kind,
): { tensors: Record<string, Tensor>; options: kernels.StepOptions<kernels.Floats> } {
  const { tensors, metadata } = readSafetensors(join(fixtures, file))
  const array = (name: string): kernels.Floats => Floats.from(numbers(tensors[name] as Tensor))
  const lengths = (name: string): Uint32Array => Uint32Array.from(numbers(tensors[name] as Tensor))
  const flags = (name: string): Uint8Array => Uint8Array.from(numbers(tensors[name] as Tensor))
  const options: kernels.StepOptions<kernels.Floats> = {
    params: params(tensors, 'param', Floats),
    batch: {
      vision: array('batch.vision'),
      visionLengths: lengths('batch.visionLengths'),
      text: array('batch.text'),
      textLengths: lengths('batch.textLengths'),
      ...('batch.admissible' in tensors ? { admissible: array('batch.admissible') } : {}),
    },
    config: JSON.parse(metadata.config as string) as kernels.StepConfig,
    variance: JSON.parse(metadata.variance as string) as { vision: number; text: number },
    ...(metadata.pooledVariance ? { pooledVariance: JSON.parse(metadata.pooledVariance) } : {}),
    ...('dead.vision' in tensors ? { dead: { vision: flags('dead.vision'), text: flags('dead.text') } } : {}),
  }
  return { tensors, options }
}

describe.each(kinds)(
  'the fixtures of an independent implementation in %s',
  (_name, Floats, lossTolerance, tolerance) => {
    const cases = readdirSync(fixtures).filter((file) => file.startsWith('step-'))

    test('there are cases', () => expect(cases.length).toBeGreaterThanOrEqual(12))

    test.each(cases)('%s', (file) => {
      const { tensors, options } = load(file, Floats)
      const result = step(options)
      for (const [name, tensor] of Object.entries(tensors)) {
        if (!name.startsWith('loss.')) continue
        const [expected] = numbers(tensor) as [number]
        const found = result.losses[name.slice(5) as kernels.LossName]
        expect(Math.abs(found - expected)).toBeLessThanOrEqual(lossTolerance * Math.max(1, Math.abs(expected)))
      }
      for (const name of names) {
        expect(relative(result.gradients[name], numbers(tensors[`grad.${name}`] as Tensor))).toBeLessThanOrEqual(
          tolerance,
        )
      }
      expect(relative(result.plan, numbers(tensors.plan as Tensor))).toBeLessThanOrEqual(tolerance)
    })
  },
)

test.each(['train-paper', 'train-unit-norm'])('%s: twelve updates in f64 end where they should', (name) => {
  const { tensors, options } = load(`${name}.safetensors`, Float64Array)
  const state = adamWState(options.params)
  const losses = numbers(tensors.losses as Tensor)
  for (const [at, expected] of losses.entries()) {
    const result = step(options)
    expect(Math.abs(result.losses.total - expected)).toBeLessThanOrEqual(1e-9 * Math.max(1, expected))
    const { lr } = adamW({
      params: options.params,
      gradients: result.gradients,
      state,
      config: options.config,
      step: at,
      steps: losses.length,
    })
    expect(lr).toBeCloseTo(0.5 * (options.config.lr ?? 0) * (1 + Math.cos((Math.PI * at) / losses.length)), 12)
  }
  expect(state.count).toBe(losses.length)
  for (const parameter of names) {
    expect(relative(options.params[parameter], numbers(tensors[`final.${parameter}`] as Tensor))).toBeLessThanOrEqual(
      1e-8,
    )
  }
})

describe('encodeTopK', () => {
  const weights = {
    W_enc: new Float64Array([1, 0, 1, 0, 0, 1, 1, -1]), // d = 2, K = 4
    b_enc: new Float64Array(4),
    b_dec: new Float64Array(2),
    dShared: 2,
  }

  test('blocks, order by value, unused slots', () => {
    const codes = encodeTopK({ ...weights, activations: new Float64Array([2, 3, -1, -1]), kShared: 2, kPrivate: 2 })
    // First token: pre-activations 2, 3, 5, −3; second: −1, −1, −2, 1.
    expect([...codes.indices]).toEqual([1, 0, 2, UNUSED, UNUSED, UNUSED, 3, UNUSED])
    expect([...codes.values]).toEqual([3, 2, 5, 0, 0, 0, 1, 0])
    expect(codes).toMatchObject({ k: 4, dShared: 2 })
  })

  test('ties go to the lower index', () => {
    const codes = encodeTopK({ ...weights, activations: new Float64Array([1, 1]), kShared: 1, kPrivate: 1 })
    expect([...codes.indices]).toEqual([0, 2])
  })

  test('global selection takes from all latents', () => {
    const codes = encodeTopK({
      ...weights,
      activations: new Float64Array([2, 3]),
      kShared: 1,
      kPrivate: 1,
      topk: 'global',
    })
    expect([...codes.indices].sort()).toEqual([1, 2])
  })

  test('bad input is refused by name', async () => {
    const activations = new Float64Array([1, 1])
    const bad = (change: object): Promise<{ code: string; details: object }> =>
      errorOf(() => encodeTopK({ ...weights, activations, kShared: 1, kPrivate: 1, ...change }))
    expect(await bad({ kShared: 3 })).toMatchObject({ code: 'E_OPTION', details: { option: 'kShared' } })
    expect(await bad({ dShared: 9 })).toMatchObject({ code: 'E_OPTION', details: { option: 'dShared' } })
    expect(await bad({ activations: [1, 1] })).toMatchObject({ code: 'E_TYPE', details: { option: 'activations' } })
    expect(await bad({ b_enc: new Float32Array(4) })).toMatchObject({ code: 'E_TYPE', details: { option: 'b_enc' } })
    expect(await bad({ W_enc: new Float64Array(7) })).toMatchObject({ code: 'E_SHAPE' })
    expect(await bad({ activations: new Float64Array(3) })).toMatchObject({ code: 'E_SHAPE' })
    expect(await bad({ kshared: 1 })).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
  })
})

describe('decode and barycenter', () => {
  const W_dec = new Float64Array([1, 0, 0, 1, 2, 2]) // K = 3, d = 2
  const b_dec = new Float64Array([10, 20])
  const codes = {
    indices: new Uint32Array([1, 2, 0, UNUSED]),
    values: new Float64Array([3, 0.5, 4, 0]),
    k: 2,
    dShared: 2,
  }

  test('by block', () => {
    expect([...decode({ codes, W_dec, b_dec })]).toEqual([11, 24, 14, 20])
    expect([...decode({ codes, W_dec, b_dec, block: 'shared' })]).toEqual([10, 23, 14, 20])
    expect([...decode({ codes, W_dec, b_dec, block: 'private' })]).toEqual([11, 21, 10, 20])
  })

  test('decoding then averaging is averaging then decoding', () => {
    const plan = new Float64Array([0.3, 0.1, 0.2, 0.4]) // two patches, two tokens
    const lengths = new Uint32Array([2])
    const found = barycenter({
      plan,
      codes,
      W_dec,
      b_dec,
      direction: 't2v',
      visionLengths: lengths,
      textLengths: lengths,
    })
    const decoded = decode({ codes, W_dec, b_dec, block: 'shared' })
    const rows = [
      [0.75, 0.25],
      [1 / 3, 2 / 3],
    ] as const
    for (const [i, [a, b]] of rows.entries()) {
      for (let x = 0; x < 2; x += 1) {
        const expected = a * (decoded[x] as number) + b * (decoded[2 + x] as number)
        expect(found[i * 2 + x]).toBeCloseTo(expected, 12)
      }
    }
  })

  test('a block without dShared, a latent that does not exist', async () => {
    const { dShared: _, ...anonymous } = codes
    expect(await errorOf(() => decode({ codes: anonymous, W_dec, b_dec, block: 'shared' }))).toMatchObject({
      code: 'E_OPTION',
      details: { option: 'dShared' },
    })
    const beyond = { ...codes, indices: new Uint32Array([7, 2, 0, UNUSED]) }
    expect(await errorOf(() => decode({ codes: beyond, W_dec, b_dec }))).toMatchObject({ code: 'E_SHAPE' })
  })
})

describe('transport', () => {
  const visionLengths = new Uint32Array([2, 1])
  const textLengths = new Uint32Array([3, 2])
  const vision = { indices: new Uint32Array([0, 1, 2]), values: new Float64Array([1, 2, 1]), k: 1, dShared: 3 }
  const text = {
    indices: new Uint32Array([0, 1, 2, 2, 0]),
    values: new Float64Array([1, 1, 1, 3, 1]),
    k: 1,
    dShared: 3,
  }

  test('the cosine cost of equal codes is 0, of disjoint ones 1', () => {
    expect([...cosineCost({ vision, text, visionLengths, textLengths })]).toEqual([0, 1, 1, 1, 0, 1, 0, 1])
  })

  test('columns of the plan are exact, rows nearly', () => {
    const cost = cosineCost({ vision, text, visionLengths, textLengths })
    const { plan, marginalError, iterations } = sinkhorn({
      cost,
      visionLengths,
      textLengths,
      epsilon: 0.1,
      iterations: 500,
      tolerance: 1e-12,
    })
    expect((plan[0] as number) + (plan[3] as number)).toBeCloseTo(1 / 3, 12)
    expect((plan[0] as number) + (plan[1] as number) + (plan[2] as number)).toBeCloseTo(1 / 2, 9)
    expect(marginalError).toHaveLength(2)
    expect(iterations[1]).toBeLessThan(500)
  })

  test('a sink takes its share from every column', async () => {
    const cost = cosineCost({ vision, text, visionLengths, textLengths })
    const options = { cost, visionLengths, textLengths, epsilon: 0.1, iterations: 10 }
    const { plan } = sinkhorn({ ...options, sinkMass: 0.25 })
    expect((plan[0] as number) + (plan[3] as number)).toBeCloseTo(0.75 / 3, 12)
    expect(sinkhorn({ ...options, sinkMass: 0 }).plan).toEqual(sinkhorn(options).plan)
    expect(await errorOf(() => sinkhorn({ ...options, sinkMass: 1 }))).toMatchObject({
      code: 'E_OPTION',
      details: { option: 'sinkMass' },
    })
    const pair = { vision, text, visionLengths, textLengths }
    const total = gcmt({ ...pair, sinkMass: 0.25 }).plan.reduce((sum: number, mass: number) => sum + mass, 0)
    expect(total).toBeCloseTo(2 * 0.75, 9)
  })

  test('mass reweighting gives words the image knows more mass', () => {
    const one = { indices: new Uint32Array([0, 0]), values: new Float64Array([1, 1]), k: 1, dShared: 3 }
    const words = { indices: new Uint32Array([0, 2]), values: new Float64Array([1, 1]), k: 1, dShared: 3 }
    const lengths = new Uint32Array([2])
    const guided = gcmt({ vision: one, text: words, visionLengths: lengths, textLengths: lengths })
    expect([...guided.weights]).toEqual([1, 0])
    expect(guided.columnMarginal[0]).toBeGreaterThan(0.999)
    const plain = gcmt({
      vision: one,
      text: words,
      visionLengths: lengths,
      textLengths: lengths,
      massReweighting: false,
    })
    expect([...plain.columnMarginal]).toEqual([0.5, 0.5])
  })

  test('a hard mask that empties a row is refused; a soft one is not', async () => {
    const cost = new Float64Array(6)
    const lengths = { visionLengths: new Uint32Array([2]), textLengths: new Uint32Array([3]) }
    const mask = new Float64Array([1, 1, 1, 0, 0, 0])
    const options = { cost, ...lengths, epsilon: 0.1, iterations: 10, mask }
    const error = await errorOf(() => sinkhorn(options))
    expect(error).toMatchObject({ code: 'E_EMPTY_MASK', details: { pair: 0, axis: 'row', index: 1 } })
    expect(sinkhorn({ ...options, maskPenalty: 1 }).plan).toHaveLength(6)
  })

  test('a pair without a token is refused', async () => {
    const options = {
      cost: new Float64Array(0),
      visionLengths: new Uint32Array([1]),
      textLengths: new Uint32Array([0]),
    }
    expect(await errorOf(() => sinkhorn({ ...options, epsilon: 0.1, iterations: 1 }))).toMatchObject({
      code: 'E_SHAPE',
    })
  })
})

describe('step refuses', () => {
  const { options } = load('step-model.safetensors', Float64Array)

  test('NaN in activations, by pair', async () => {
    const vision = (options.batch.vision as Float64Array).slice()
    vision[24 * 12] = Number.NaN
    const error = await errorOf(() => step({ ...options, batch: { ...options.batch, vision } }))
    expect(error.code).toBe('E_NON_FINITE')
    expect(error.details).toMatchObject({ pair: expect.any(Number) })
  })

  test('an unknown config field and a missing array', async () => {
    const config = { ...options.config, dshared: 3 } as kernels.StepConfig
    expect(await errorOf(() => step({ ...options, config }))).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
    const { 'text.b_dec': _, ...rest } = options.params
    const error = await errorOf(() => step({ ...options, params: rest as kernels.Params<kernels.Floats> }))
    expect(error.message).toContain('text.b_dec')
  })

  test('pooled align without pooledVariance', async () => {
    const { pooledVariance: _, ...rest } = options
    const config = { ...options.config, alignNormalization: 'pooled' as const }
    expect(await errorOf(() => step({ ...rest, config }))).toMatchObject({ code: 'E_OPTION' })
  })
})
