/**
 * The kernels of LUCID as pure functions on typed arrays, to build variants of the method from. `Float64Array` runs the
 * scalar reference, `Float32Array` the fast CPU backend. Batches of unequal lengths are concatenated arrays with
 * `lengths`.
 *
 * @packageDocumentation
 */
import { type Config, configFields } from './config.js'
import type { DeviceChoice } from './device.js'
import { call, describe, LucidError, optionError } from './errors.js'
import type { LossName, PerModality } from './events.js'
import type { Block, Codes } from './model.js'
import { native } from './native.js'
import { checkOptions, toJson } from './options.js'

export type { DeviceChoice } from './device.js'
export { LucidError } from './errors.js'
export type { LossName } from './events.js'
export type { Block, Codes } from './model.js'

/** Index of a slot that holds no latent. */
export const UNUSED = 0xffffffff

/** f32 or f64. */
export type Floats = Float32Array | Float64Array

/** Parameters, gradients or moments of both modalities, under the names of a model file. */
export type Params<A extends Floats> = Record<`${'vision' | 'text'}.${'W_enc' | 'b_enc' | 'W_dec' | 'b_dec'}`, A>

const tensorNames = [
  'vision.W_enc',
  'vision.b_enc',
  'vision.W_dec',
  'vision.b_dec',
  'text.W_enc',
  'text.b_enc',
  'text.W_dec',
  'text.b_dec',
] as const

type Exact<A extends Floats> = A extends Float32Array ? Float32Array : Float64Array

/** Whether an array is f32 or f64; by tag, since arrays may come from another realm. */
function kind(option: string, array: unknown): 'F32' | 'F64' {
  const tag = Object.prototype.toString.call(array)
  if (tag === '[object Float32Array]') return 'F32'
  if (tag === '[object Float64Array]') return 'F64'
  throw typeError(option, array, 'a Float32Array or a Float64Array')
}

function typeError(option: string, found: unknown, expected: string): LucidError {
  return new LucidError('E_TYPE', `option '${option}' is ${describe(found)}; expected ${expected}`, {
    details: { option, found: describe(found), expected },
  })
}

/** The kind of the first array; refuses any other that differs. */
function sameKind(arrays: Record<string, unknown>): 'F32' | 'F64' {
  let first: 'F32' | 'F64' | undefined
  for (const [option, array] of Object.entries(arrays)) {
    if (array === undefined) continue
    const found = kind(option, array)
    first ??= found
    if (found !== first) {
      throw typeError(option, array, `a ${first === 'F32' ? 'Float32Array' : 'Float64Array'} like the others`)
    }
  }
  return first ?? 'F32'
}

function lengthsOf(option: string, lengths: Uint32Array | readonly number[]): Uint32Array {
  if (Object.prototype.toString.call(lengths) === '[object Uint32Array]') return lengths as Uint32Array
  if (Array.isArray(lengths) || ArrayBuffer.isView(lengths)) {
    const numbers = Array.from(lengths as ArrayLike<number>)
    if (numbers.every((length) => Number.isInteger(length) && length >= 0)) return Uint32Array.from(numbers)
  }
  throw typeError(option, lengths, 'a Uint32Array')
}

function sum(lengths: Uint32Array): number {
  return lengths.reduce((total, length) => total + length, 0)
}

function checkDevice(device: DeviceChoice | undefined): void {
  if (device !== undefined) call(() => native.checkDevice(device))
}

/** Sizes of codes: their slots a token, and where the shared block ends. */
interface CodeSizes {
  /** Shared latents; taken from the codes where they carry it. */
  dShared?: number
  /** Slots of the shared block of a token. */
  kShared?: number
  /** Slots of the private block of a token. */
  kPrivate?: number
  /** Slots of a token. Default kShared + kPrivate, or what the codes or the lengths tell. */
  k?: number
  device?: DeviceChoice
}

const sizeNames = ['dShared', 'kShared', 'kPrivate', 'k', 'device'] as const

function slots(sizes: CodeSizes, codes: Codes<Floats>, tokens?: number): number {
  if (sizes.k !== undefined) return sizes.k
  if (sizes.kShared !== undefined) return sizes.kShared + (sizes.kPrivate ?? 0)
  if (codes.k !== undefined) return codes.k
  if (tokens !== undefined && tokens > 0) return codes.indices.length / tokens
  throw optionError('k', undefined, 'the number of slots of a token (or pass codes that carry k)')
}

/** Without word on dShared every latent of the codes counts as shared. */
function sharedOf(sizes: CodeSizes, codes: Codes<Floats>, latents?: number): number {
  const known = sizes.dShared ?? codes.dShared
  if (known !== undefined) return known
  if (latents !== undefined) return latents
  let highest = 0
  for (const index of codes.indices) if (index !== UNUSED && index >= highest) highest = index + 1
  return highest
}

function checkCodes(option: string, codes: Codes<Floats>): void {
  if (typeof codes !== 'object' || codes === null) throw typeError(option, codes, 'codes { indices, values }')
  if (Object.prototype.toString.call(codes.indices) !== '[object Uint32Array]') {
    throw typeError(`${option}.indices`, codes.indices, 'a Uint32Array')
  }
  kind(`${option}.values`, codes.values)
}

/** Options of {@link encodeTopK}. */
export interface EncodeTopKOptions<A extends Floats> {
  /** [n · d]. */
  activations: A
  /** [d · K], row by row. */
  W_enc: A
  /** [K]. */
  b_enc: A
  /** [d]. */
  b_dec: A
  dShared: number
  kShared: number
  kPrivate: number
  topk?: 'split' | 'global'
  device?: DeviceChoice
}

/**
 * Codes of activations: Top-k of the positive pre-activations W_encᵀ(h − b_dec) + b_enc, ties to the lower index.
 *
 * @example
 * ```ts
 * import { encodeTopK } from 'lucid-sae/kernels'
 *
 * const codes = encodeTopK({
 *   activations: new Float64Array([1, 0, 0, 2]),
 *   W_enc: new Float64Array([1, 0, 0, 1]), // two latents, width 2
 *   b_enc: new Float64Array(2),
 *   b_dec: new Float64Array(2),
 *   dShared: 1,
 *   kShared: 1,
 *   kPrivate: 1,
 * })
 * console.log(codes.indices, codes.values)
 * ```
 */
export function encodeTopK<A extends Floats>(options: EncodeTopKOptions<A>): Required<Codes<Exact<A>>> {
  checkOptions(
    'encodeTopK',
    options,
    ['activations', 'W_enc', 'b_enc', 'b_dec', 'dShared', 'kShared', 'kPrivate', 'topk', 'device'],
    ['activations', 'W_enc', 'b_enc', 'b_dec', 'dShared', 'kShared', 'kPrivate'],
  )
  const { activations, W_enc, b_enc, b_dec, dShared, kShared, kPrivate, topk = 'split', device } = options
  checkDevice(device)
  const type = sameKind({ activations, W_enc, b_enc, b_dec })
  if (!Number.isInteger(dShared) || dShared < 0 || dShared > b_enc.length) {
    throw optionError('dShared', dShared, `an integer from 0 to ${b_enc.length}, the length of b_enc`)
  }
  const dPrivate = b_enc.length - dShared
  for (const [name, k, most] of [
    ['kShared', kShared, topk === 'split' ? dShared : b_enc.length],
    ['kPrivate', kPrivate, topk === 'split' ? dPrivate : b_enc.length],
  ] as const) {
    if (!Number.isInteger(k) || k < 0 || k > most) throw optionError(name, k, `an integer from 0 to ${most}`)
  }
  const json = toJson({ dShared, dPrivate, kShared, kPrivate, topk })
  const result = call(() =>
    native[`encodeTopk${type}`](json, activations as never, W_enc as never, b_enc as never, b_dec as never),
  )
  return { indices: result.indices, values: result.values as Exact<A>, k: kShared + kPrivate, dShared }
}

/** Options of {@link decode}. */
export interface DecodeOptions<A extends Floats> extends CodeSizes {
  codes: Codes<A>
  /** [K · d], row by row. */
  W_dec: A
  /** [d]. */
  b_dec: A
  /** Which latents take part; `'shared'` and `'private'` need dShared. Default `'joint'`. */
  block?: Block
}

/** Reconstructions [n · d]: W_decᵀ z + b_dec, from the whole code or one block. */
export function decode<A extends Floats>(options: DecodeOptions<A>): Exact<A> {
  checkOptions('decode', options, ['codes', 'W_dec', 'b_dec', 'block', ...sizeNames], ['codes', 'W_dec', 'b_dec'])
  const { codes, W_dec, b_dec, block = 'joint', device } = options
  checkDevice(device)
  checkCodes('codes', codes)
  const type = sameKind({ 'codes.values': codes.values, W_dec, b_dec })
  if (!['joint', 'shared', 'private'].includes(block)) {
    throw optionError('block', block, "'joint', 'shared' or 'private'")
  }
  const latents = W_dec.length / b_dec.length
  if (block !== 'joint' && options.dShared === undefined && codes.dShared === undefined) {
    throw optionError('dShared', undefined, 'the number of shared latents (or pass codes that carry it)')
  }
  const dShared = sharedOf(options, codes, latents)
  const json = toJson({ dShared, dPrivate: latents - dShared, kShared: slots(options, codes), kPrivate: 0, block })
  return call(() =>
    native[`decode${type}`](json, codes.indices, codes.values as never, W_dec as never, b_dec as never),
  ) as Exact<A>
}

/** Codes of both modalities of a batch. */
export interface CodePair<A extends Floats> extends CodeSizes {
  vision: Codes<A>
  text: Codes<A>
  visionLengths: Uint32Array
  textLengths: Uint32Array
}

const pairNames = ['vision', 'text', 'visionLengths', 'textLengths', ...sizeNames] as const
const pairRequired = ['vision', 'text', 'visionLengths', 'textLengths'] as const

function codePair<A extends Floats>(
  options: CodePair<A>,
): {
  type: 'F32' | 'F64'
  sizes: Record<string, number>
  visionLengths: Uint32Array
  textLengths: Uint32Array
} {
  const { vision, text } = options
  checkDevice(options.device)
  checkCodes('vision', vision)
  checkCodes('text', text)
  const visionLengths = lengthsOf('visionLengths', options.visionLengths)
  const textLengths = lengthsOf('textLengths', options.textLengths)
  const type = sameKind({ 'vision.values': vision.values, 'text.values': text.values })
  const k = slots(options, vision, sum(visionLengths))
  const dShared = Math.max(sharedOf(options, vision), sharedOf(options, text))
  // Latents from dShared on are private, whatever their number.
  return {
    type,
    sizes: { dShared, dPrivate: UNUSED - 1 - dShared, kShared: k, kPrivate: 0 },
    visionLengths,
    textLengths,
  }
}

/** 1 − cosine between the shared codes of every patch and token of a pair, [Σ T_v · T_t], row by row. */
export function cosineCost<A extends Floats>(options: CodePair<A>): Exact<A> {
  checkOptions('cosineCost', options, pairNames, pairRequired)
  const { vision, text } = options
  const { type, sizes, visionLengths, textLengths } = codePair(options)
  return call(() =>
    native[`cosineCost${type}`](
      toJson(sizes),
      vision.indices,
      vision.values as never,
      text.indices,
      text.values as never,
      visionLengths,
      textLengths,
    ),
  ) as Exact<A>
}

/** Plans of a batch; diagnostics have one number a pair. */
export interface Plan<A extends Floats> {
  /** Π [Σ T_v · T_t], row by row. */
  readonly plan: A
  /** Row scaling [Σ T_v]. */
  readonly u: A
  /** Column scaling [Σ T_t]. */
  readonly v: A
  /** Σ_i |Σ_j Π_ij − r_i|. */
  readonly marginalError: Float64Array
  readonly transportCost: Float64Array
  readonly entropy: Float64Array
  /** Rounds made. */
  readonly iterations: Uint32Array
}

/** Plans of a batch, and what guided them. */
export interface GuidedPlan<A extends Floats> extends Plan<A> {
  /** Mass of each token [Σ T_t]. */
  readonly columnMarginal: A
  /** w [Σ T_t]. */
  readonly weights: A
}

/** Options of {@link sinkhorn}. */
export interface SinkhornOptions<A extends Floats> {
  /** [Σ T_v · T_t], row by row. */
  cost: A
  visionLengths: Uint32Array
  textLengths: Uint32Array
  /** Uniform where absent. */
  rowMarginal?: A
  /** Uniform where absent. */
  columnMarginal?: A
  epsilon: number
  iterations: number
  /** Stop once the row-marginal error is below this; 0 = never. Default 0. */
  tolerance?: number
  /** Admissible entries, in [0, 1], [Σ T_v · T_t]. */
  mask?: A
  /** Added where the mask forbids; infinite (default) excludes. */
  maskPenalty?: number
  device?: DeviceChoice
}

function checkSinkhorn(epsilon: number, iterations: number): void {
  if (!Number.isFinite(epsilon) || epsilon <= 0) throw optionError('epsilon', epsilon, 'a number above 0')
  if (!Number.isInteger(iterations) || iterations < 1) throw optionError('iterations', iterations, 'an integer above 0')
}

function penalty(maskPenalty: number | 'inf' | undefined): number | null {
  const value = maskPenalty === 'inf' ? Number.POSITIVE_INFINITY : (maskPenalty ?? Number.POSITIVE_INFINITY)
  if (typeof value !== 'number' || !(value >= 0)) throw optionError('maskPenalty', value, 'at least 0')
  return Number.isFinite(value) ? value : null
}

function freezePlan<A extends Floats>(plan: Record<string, unknown>): GuidedPlan<Exact<A>> {
  return Object.freeze({ ...plan }) as unknown as GuidedPlan<Exact<A>>
}

/**
 * Entropic transport plans: K = exp(−cost/ε), then `iterations` rounds of u = r ⊘ Kv, v = c ⊘ Kᵀu from v = 1.
 *
 * @example
 * ```ts
 * import { sinkhorn } from 'lucid-sae/kernels'
 *
 * const { plan, marginalError } = sinkhorn({
 *   cost: new Float64Array([0, 1, 1, 0]),
 *   visionLengths: new Uint32Array([2]),
 *   textLengths: new Uint32Array([2]),
 *   epsilon: 0.1,
 *   iterations: 10,
 * })
 * console.log(plan, marginalError[0])
 * ```
 */
export function sinkhorn<A extends Floats>(options: SinkhornOptions<A>): Plan<Exact<A>> {
  checkOptions(
    'sinkhorn',
    options,
    [
      'cost',
      'visionLengths',
      'textLengths',
      'rowMarginal',
      'columnMarginal',
      'epsilon',
      'iterations',
      'tolerance',
      'mask',
      'maskPenalty',
      'device',
    ],
    ['cost', 'visionLengths', 'textLengths', 'epsilon', 'iterations'],
  )
  const { cost, rowMarginal, columnMarginal, mask, epsilon, iterations, tolerance = 0, maskPenalty, device } = options
  checkDevice(device)
  checkSinkhorn(epsilon, iterations)
  const type = sameKind({ cost, rowMarginal, columnMarginal, mask })
  const transport = {
    epsilon,
    iterations,
    tolerance,
    massReweighting: false,
    lambdaGlobal: 0,
    maskPenalty: penalty(maskPenalty),
  }
  const result = call(() =>
    native[`sinkhorn${type}`](
      toJson({ transport }),
      cost as never,
      lengthsOf('visionLengths', options.visionLengths),
      lengthsOf('textLengths', options.textLengths),
      rowMarginal as never,
      columnMarginal as never,
      mask as never,
    ),
  )
  const {
    columnMarginal: _none,
    weights: _unused,
    ...plan
  } = freezePlan<A>(result as unknown as Record<string, unknown>)
  return plan
}

/** Options of {@link gcmt}: two codes, their lengths, and the parts of the guidance. */
export interface GcmtOptions<A extends Floats> extends CodePair<A> {
  /** Default 0.1. */
  epsilon?: number
  /** Default 10. */
  iterations?: number
  tolerance?: number
  /** Default true. */
  massReweighting?: boolean
  /** Default 0.5. */
  lambdaGlobal?: number
  /** Default infinite. */
  maskPenalty?: number
  /** Admissible entries, in [0, 1]. */
  admissible?: A
}

/**
 * The guided plan between shared codes: cosine cost, mask, mass reweighting, cost modulation, Sinkhorn.
 *
 * @example
 * ```ts
 * import { encodeTopK, gcmt } from 'lucid-sae/kernels'
 *
 * const weights = {
 *   W_enc: new Float32Array([1, 0, 0, 1]), // width 2, two shared latents
 *   b_enc: new Float32Array(2),
 *   b_dec: new Float32Array(2),
 *   dShared: 2,
 *   kShared: 1,
 *   kPrivate: 0,
 * }
 * const patches = encodeTopK({ ...weights, activations: new Float32Array([1, 0, 0, 1]) })
 * const words = encodeTopK({ ...weights, activations: new Float32Array([0, 2]) })
 * const { plan, columnMarginal } = gcmt({
 *   vision: patches,
 *   text: words,
 *   visionLengths: new Uint32Array([2]),
 *   textLengths: new Uint32Array([1]),
 * })
 * console.log(plan, columnMarginal)
 * ```
 */
export function gcmt<A extends Floats>(options: GcmtOptions<A>): GuidedPlan<Exact<A>> {
  const guidance = [
    'epsilon',
    'iterations',
    'tolerance',
    'massReweighting',
    'lambdaGlobal',
    'maskPenalty',
    'admissible',
  ]
  checkOptions('gcmt', options, [...pairNames, ...guidance], pairRequired)
  const { vision, text, epsilon = 0.1, iterations = 10, tolerance = 0, admissible } = options
  const { massReweighting = true, lambdaGlobal = 0.5, maskPenalty } = options
  checkSinkhorn(epsilon, iterations)
  const { type, sizes, visionLengths, textLengths } = codePair(options)
  sameKind({ 'vision.values': vision.values, admissible })
  const transport = { epsilon, iterations, tolerance, massReweighting, lambdaGlobal, maskPenalty: penalty(maskPenalty) }
  const result = call(() =>
    native[`gcmt${type}`](
      toJson({ ...sizes, transport }),
      vision.indices,
      vision.values as never,
      text.indices,
      text.values as never,
      visionLengths,
      textLengths,
      admissible as never,
    ),
  )
  return freezePlan<A>(result as unknown as Record<string, unknown>)
}

/** Options of {@link barycenter}. */
export interface BarycenterOptions<A extends Floats> extends CodeSizes {
  /** Π [Σ T_v · T_t], row by row. */
  plan: A
  /** Codes of the source: of text for `'t2v'`, of vision for `'v2t'`. */
  codes: Codes<A>
  /** Decoder of the target [K · d]. */
  W_dec: A
  /** [d] of the target. */
  b_dec: A
  direction: 't2v' | 'v2t'
  visionLengths: Uint32Array
  textLengths: Uint32Array
}

/** Cross reconstructions of the target's tokens: the source's shared codes, decoded by the target, averaged by the plan. */
export function barycenter<A extends Floats>(options: BarycenterOptions<A>): Exact<A> {
  const required = ['plan', 'codes', 'W_dec', 'b_dec', 'direction', 'visionLengths', 'textLengths'] as const
  checkOptions('barycenter', options, [...required, ...sizeNames], required)
  const { plan, codes, W_dec, b_dec, direction, device } = options
  checkDevice(device)
  checkCodes('codes', codes)
  if (direction !== 't2v' && direction !== 'v2t') throw optionError('direction', direction, "'t2v' or 'v2t'")
  const type = sameKind({ plan, 'codes.values': codes.values, W_dec, b_dec })
  const visionLengths = lengthsOf('visionLengths', options.visionLengths)
  const textLengths = lengthsOf('textLengths', options.textLengths)
  const latents = W_dec.length / b_dec.length
  const dShared = sharedOf(options, codes, latents)
  const k = slots(options, codes, sum(direction === 't2v' ? textLengths : visionLengths))
  const json = toJson({ dShared, dPrivate: latents - dShared, kShared: k, kPrivate: 0, direction })
  return call(() =>
    native[`barycenter${type}`](
      json,
      plan as never,
      codes.indices,
      codes.values as never,
      W_dec as never,
      b_dec as never,
      visionLengths,
      textLengths,
    ),
  ) as Exact<A>
}

/** A config as it may come from a file, where infinity is written `'inf'`. */
export type StepConfig = Partial<Omit<Config, 'maskPenalty'>> & { maskPenalty?: number | 'inf' }

/** Options of {@link step}. */
export interface StepOptions<A extends Floats> {
  params: Params<A>
  batch: {
    /** [Σ T_v · d_v]. */
    vision: A
    visionLengths: Uint32Array
    /** [Σ T_t · d_t]. */
    text: A
    textLengths: Uint32Array
    /** [Σ T_v · T_t], in [0, 1]. */
    admissible?: A
  }
  /** Fields of the config; what is missing takes the value of the `default` preset. */
  config: StepConfig
  /** V of each modality. */
  variance: PerModality
  /** Variance of the pooled states, for `alignNormalization: 'pooled'`. */
  pooledVariance?: PerModality
  /** One flag a latent, for AuxK. */
  dead?: Partial<PerModality<Uint8Array>>
  device?: DeviceChoice
}

/** Losses and gradients of a step. */
export interface StepResult<A extends Floats> {
  readonly losses: Readonly<Record<LossName, number>>
  readonly gradients: Params<A>
  /** Π [Σ T_v · T_t], row by row. */
  readonly plan: A
}

function checkParams<A extends Floats>(option: string, params: Params<A>): A[] {
  if (typeof params !== 'object' || params === null) throw typeError(option, params, 'an object of arrays')
  return tensorNames.map((name) => {
    if (params[name] === undefined) {
      throw new LucidError('E_OPTION', `${option} lacks '${name}'`, {
        details: { option, found: Object.keys(params), expected: tensorNames },
      })
    }
    return params[name]
  })
}

function named<A extends Floats>(arrays: A[]): Params<A> {
  return Object.fromEntries(tensorNames.map((name, index) => [name, arrays[index]])) as Params<A>
}

function checkConfig(config: StepConfig): StepConfig {
  return checkOptions('config', config, configFields())
}

/**
 * Losses of one batch and their gradients by every parameter.
 *
 * @example
 * ```ts
 * import { adamW, adamWState, type Params, step } from 'lucid-sae/kernels'
 *
 * const random = (length: number): Float64Array => Float64Array.from({ length }, () => Math.random() - 0.5)
 * const [d, K] = [4, 6]
 * const params: Params<Float64Array> = {
 *   'vision.W_enc': random(d * K), 'vision.b_enc': random(K), 'vision.W_dec': random(K * d), 'vision.b_dec': random(d),
 *   'text.W_enc': random(d * K), 'text.b_enc': random(K), 'text.W_dec': random(K * d), 'text.b_dec': random(d),
 * }
 * const batch = {
 *   vision: random(3 * d), visionLengths: new Uint32Array([3]),
 *   text: random(2 * d), textLengths: new Uint32Array([2]),
 * }
 * const config = { dShared: 3, dPrivate: 3, kShared: 1, kPrivate: 1, alignNormalization: 'tokens' } as const
 * const state = adamWState(params)
 * for (let at = 0; at < 10; at += 1) {
 *   const { losses, gradients } = step({ params, batch, config, variance: { vision: 1, text: 1 } })
 *   adamW({ params, gradients, state, config, step: at, steps: 10 })
 *   console.log(losses.total)
 * }
 * ```
 */
export function step<A extends Floats>(options: StepOptions<A>): StepResult<Exact<A>> {
  checkOptions(
    'step',
    options,
    ['params', 'batch', 'config', 'variance', 'pooledVariance', 'dead', 'device'],
    ['params', 'batch', 'config', 'variance'],
  )
  const { params, batch, config, variance, pooledVariance, dead, device } = options
  checkDevice(device)
  const batchNames = ['vision', 'visionLengths', 'text', 'textLengths'] as const
  checkOptions('batch', batch, [...batchNames, 'admissible'], batchNames)
  const arrays = checkParams('params', params)
  const { vision, text, admissible } = batch
  const type = sameKind({ ...params, vision, text, admissible })
  const json = toJson({ config: checkConfig(config), variance, pooledVariance })
  const result = call(() =>
    native[`step${type}`](
      json,
      arrays as never,
      vision as never,
      lengthsOf('visionLengths', batch.visionLengths),
      text as never,
      lengthsOf('textLengths', batch.textLengths),
      admissible as never,
      dead?.vision,
      dead?.text,
    ),
  )
  return Object.freeze({
    losses: Object.freeze(JSON.parse(result.losses) as Record<LossName, number>),
    gradients: named(result.gradients as Exact<A>[]),
    plan: result.plan as Exact<A>,
  })
}

/** Moments of {@link adamW}; start with {@link adamWState}. */
export interface AdamWState<A extends Floats> {
  first: Params<A>
  second: Params<A>
  /** Updates made. */
  count: number
}

/** Zero moments of the shape of `params`. */
export function adamWState<A extends Floats>(params: Params<A>): AdamWState<A> {
  const zeros = (): Params<A> =>
    named(
      checkParams('params', params).map(
        (array) =>
          (kind('params', array) === 'F32' ? new Float32Array(array.length) : new Float64Array(array.length)) as A,
      ),
    )
  return { first: zeros(), second: zeros(), count: 0 }
}

/** Options of {@link adamW}. */
export interface AdamWOptions<A extends Floats> {
  /** Updated in place. */
  params: Params<A>
  gradients: Params<A>
  /** Updated in place. */
  state: AdamWState<A>
  /** Uses lr, weightDecay, beta1, beta2, adamEps, gradClip, unitNormDecoder, warmupSteps and the sizes. */
  config: StepConfig
  /** Step of the run, from 0. */
  step: number
  /** Steps of the run, for the learning rate. */
  steps: number
  device?: DeviceChoice
}

/** One AdamW update with clipping and, for a unit-norm decoder, projection and normalisation of its rows; in place. */
export function adamW<A extends Floats>(options: AdamWOptions<A>): { lr: number; gradientNorm: number } {
  const required = ['params', 'gradients', 'state', 'config', 'step', 'steps'] as const
  checkOptions('adamW', options, [...required, 'device'], required)
  const { params, gradients, state, config, step: at, steps, device } = options
  checkDevice(device)
  const arrays = {
    params: checkParams('params', params),
    gradients: checkParams('gradients', gradients),
    first: checkParams('state.first', state.first),
    second: checkParams('state.second', state.second),
  }
  const type = sameKind(
    Object.fromEntries(Object.values(arrays).flatMap((list, i) => list.map((a, j) => [`${i}.${j}`, a]))),
  )
  const json = toJson({ config: checkConfig(config), step: at, steps, count: state.count })
  const update = call(() =>
    native[`adamw${type}`](
      json,
      arrays.params as never,
      arrays.gradients as never,
      arrays.first as never,
      arrays.second as never,
    ),
  )
  for (const part of ['params', 'first', 'second'] as const) {
    for (const [index, array] of arrays[part].entries()) array.set(update[part][index] as Floats)
  }
  state.count += 1
  return { lr: update.lr, gradientNorm: update.gradientNorm }
}
