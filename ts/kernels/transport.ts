/** Which patches and tokens belong together, and what one modality says of the other. */
import type { DeviceChoice } from '../device.js'
import { call, optionError } from '../errors.js'
import type { Codes } from '../model.js'
import { native } from '../native.js'
import { checkOptions, toJson } from '../options.js'
import {
  type CodeSizes,
  checkCodes,
  checkDevice,
  type Exact,
  type Floats,
  lengthsOf,
  sameKind,
  sharedOf,
  sizeNames,
  slots,
  sum,
  UNUSED,
} from './arrays.js'

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
  /** Share of the mass that an extra column of cost 1 takes, a word nobody said; below 1. Default 0. */
  sinkMass?: number
  /** Admissible entries, in [0, 1], [Σ T_v · T_t]. */
  mask?: A
  /** Added where the mask forbids; infinite (default) excludes. */
  maskPenalty?: number
  device?: DeviceChoice
}

function checkSinkhorn(epsilon: number, iterations: number, sinkMass: number): void {
  if (!Number.isFinite(epsilon) || epsilon <= 0) throw optionError('epsilon', epsilon, 'a number above 0')
  if (!Number.isInteger(iterations) || iterations < 1) throw optionError('iterations', iterations, 'an integer above 0')
  if (!(sinkMass >= 0 && sinkMass < 1)) throw optionError('sinkMass', sinkMass, 'a number in [0, 1)')
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
      'sinkMass',
      'mask',
      'maskPenalty',
      'device',
    ],
    ['cost', 'visionLengths', 'textLengths', 'epsilon', 'iterations'],
  )
  const { cost, rowMarginal, columnMarginal, mask, epsilon, iterations, maskPenalty, device } = options
  const { tolerance = 0, sinkMass = 0 } = options
  checkDevice(device)
  checkSinkhorn(epsilon, iterations, sinkMass)
  const type = sameKind({ cost, rowMarginal, columnMarginal, mask })
  const transport = {
    epsilon,
    iterations,
    tolerance,
    sinkMass,
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
  /** Share of the mass that goes to no token. Default 0. */
  sinkMass?: number
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
    'sinkMass',
    'massReweighting',
    'lambdaGlobal',
    'maskPenalty',
    'admissible',
  ]
  checkOptions('gcmt', options, [...pairNames, ...guidance], pairRequired)
  const { vision, text, epsilon = 0.1, iterations = 10, tolerance = 0, sinkMass = 0, admissible } = options
  const { massReweighting = true, lambdaGlobal = 0.5, maskPenalty } = options
  checkSinkhorn(epsilon, iterations, sinkMass)
  const { type, sizes, visionLengths, textLengths } = codePair(options)
  sameKind({ 'vision.values': vision.values, admissible })
  const guided = { massReweighting, lambdaGlobal, maskPenalty: penalty(maskPenalty) }
  const transport = { epsilon, iterations, tolerance, sinkMass, ...guided }
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
