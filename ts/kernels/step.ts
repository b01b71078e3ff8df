/** One training step, and one update of the optimiser. */
import { type Config, configFields } from '../config.js'
import type { DeviceChoice } from '../device.js'
import { call, LucidError } from '../errors.js'
import type { LossName, PerModality } from '../events.js'
import { native } from '../native.js'
import { checkOptions, toJson } from '../options.js'
import { checkDevice, type Exact, type Floats, kind, lengthsOf, sameKind, typeError } from './arrays.js'

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
