import { call } from './errors.js'
import { native } from './native.js'
import { toJson, unknownName } from './options.js'

/** Every preset: LUCID's, the ladder of the paper, the rivals and floors of docs/rivals.md. */
export const presets = [
  'default',
  'paper',
  'ot-only',
  'share-k',
  'share-k-gsl',
  'share-k-gsl-gcmt',
  'separate',
  'separate-batch-topk',
  'separate-matryoshka',
  'separate-jump-relu',
  'sparc',
  'usae',
  'pooled-concat',
  'vl-sae',
  'pca',
  'random-dictionary',
] as const

/** Named configurations; `'default'` where none is given. */
export type Preset = (typeof presets)[number]

/**
 * Everything that decides what a training run computes, in the names of the method. Defaults are those of the
 * `default` preset; {@link configDefaults} gives those of any other.
 */
export interface Config {
  /** Shared latents of each modality. Default 1536. */
  dShared: number
  /** Private latents of each modality. Default 4608. */
  dPrivate: number
  /** Kept entries of the shared block. Default 16. */
  kShared: number
  /** Kept entries of the private block. Default 32. */
  kPrivate: number
  /** Top-k by block, or over all latents. Default `'split'`. */
  topk: 'split' | 'global'
  /** Weight of self reconstruction. Default 1. */
  alpha: number
  /** Weight of alignment of pooled states (GSL). Default 0.5. */
  beta: number
  /** Weight of cross reconstruction. Default 0.3. */
  gamma: number
  /** Weight of the transport cost. Default 0. */
  wOt: number
  /** Entropic regularisation of Sinkhorn. Default 0.1. */
  epsilon: number
  /** Sinkhorn iterations. Default 10. */
  iterations: number
  /** Stop Sinkhorn once the row-marginal error is below this; 0 = never. Default 0. */
  tolerance: number
  /** Share of a pair's mass that goes to no word, for patches that the caption does not mention; 0 = off. Default 0. */
  sinkMass: number
  /** Column marginals from the image's mean code. Default true. */
  massReweighting: boolean
  /** Cost modulation; absorbed by the column scaling once Sinkhorn has converged. Default 0.5. */
  lambdaGlobal: number
  /** Cost added where a mask forbids; infinite = exact exclusion. Default `Infinity`. */
  maskPenalty: number
  /** Whether the gradient runs through Sinkhorn. Default `'stop'`. */
  planGradient: 'stop' | 'unrolled'
  /** Means or sums of losses. Default `'mean'`. */
  reduction: 'mean' | 'sum'
  /** Divide losses by activation variances. Default true. */
  normalizeLoss: boolean
  /** Variance that divides the align losses. Default `'pooled'`. */
  alignNormalization: 'pooled' | 'tokens'
  /** Where the shared dictionaries start. Default `'paired'`. */
  initialise: 'paired' | 'coactivation' | 'random' | 'pca'
  /** Weight of AuxK; 0 = off. Default 1/32. */
  auxCoefficient: number
  /** Dead latents that reconstruct the residual; 0 = half the width. Default 0. */
  kAux: number
  /** A latent is dead after this many tokens without firing. Default 1,000,000. */
  deadAfterTokens: number
  /** Peak learning rate. Default 3e-4. */
  lr: number
  /** Decoupled weight decay. Default 0.01. */
  weightDecay: number
  /** AdamW β₁. Default 0.9. */
  beta1: number
  /** AdamW β₂. Default 0.999. */
  beta2: number
  /** AdamW ε. Default 1e-8. */
  adamEps: number
  /** Largest global gradient norm; 0 = no clipping. Default 1. */
  gradClip: number
  /** Decoder rows stay on the unit sphere. Default true. */
  unitNormDecoder: boolean
  /** The encoder starts as a copy of the decoder's transpose. Default true. */
  tiedInit: boolean
  /** Subtract the mean of the training activations. Default true. */
  center: boolean
  /** Scale activations to unit mean squared norm. Default true. */
  scale: boolean
  /** The decoder bias starts at the data mean. Default true. */
  biasFromMean: boolean
  /** Linear warm-up steps before the cosine. Default 0. */
  warmupSteps: number
  /** Pairs of a step. Default 256. */
  batchPairs: number
  /** Pairs whose intermediate arrays exist at once; 0: 32 on a CPU, 256 on Hopper, 64 on other GPUs. Default 0. */
  microPairs: number
  /** Passes over the pairs, used when `steps` is 0. Default 200. */
  epochs: number
  /** Steps of the run; 0 = from `epochs`. Default 0. */
  steps: number
  /** Order of pairs within an epoch. Default `'shuffle'`. */
  order: 'shuffle' | 'sequential'
  /** Seed of initialisation, order and caption choice, at most 2^53 − 1. Default 0. */
  seed: number
  /**
   * What operands of products and gathered rows are rounded to; weights, sums and losses never are. `'bf16'` is faster on a GPU and on
   * processors with AMX, and moves codes whose pre-activations nearly tie (docs/gpu.md). Default `'f32'`.
   */
  precision: 'f32' | 'bf16'
  /** Whose objective is minimised; docs/rivals.md says what the others are. Default `'lucid'`. */
  method: 'lucid' | 'separate' | 'sparc' | 'usae' | 'pooled-concat' | 'vl-sae'
  /** The k largest entries of a token, the k·N largest of a batch, or those above learnt thresholds. Default `'topk'`. */
  activation: 'topk' | 'batch-topk' | 'jump-relu'
  /** Nested dictionaries of Matryoshka, each half of the next; 0 = none. Default 0. */
  nested: number
  /** How near its threshold a pre-activation must be for JumpReLU's to learn of it. Default 0.1. */
  bandwidth: number
  /** Weight of (L0 / k − 1)² of each modality, which JumpReLU adds to the loss. Default 3. */
  l0Coefficient: number
}

/** A config as the addon writes it: infinity has no number in JSON. */
type ConfigJson = Omit<Config, 'maskPenalty'> & { maskPenalty: number | 'inf' }

/** A frozen {@link Config} from the addon's JSON. */
export function configFromJson(config: unknown): Readonly<Config> {
  const { maskPenalty, ...rest } = config as ConfigJson
  return Object.freeze({ ...rest, maskPenalty: maskPenalty === 'inf' ? Number.POSITIVE_INFINITY : maskPenalty })
}

/**
 * The resolved configuration of a preset, perhaps with some fields changed.
 *
 * @example
 * ```ts
 * import { configDefaults } from 'lucid-sae'
 *
 * console.log(configDefaults('paper').unitNormDecoder) // false
 * ```
 */
export function configDefaults(preset: Preset = 'default', fields: Partial<Config> = {}): Readonly<Config> {
  checkPreset(preset)
  return configFromJson(JSON.parse(call(() => native.resolveConfig(preset, toJson(fields)))))
}

/** Names of all config fields; they live in the addon, once. */
export function configFields(): readonly string[] {
  return Object.keys(configDefaults())
}

/** Refuses a preset that does not exist. */
export function checkPreset(preset: string): void {
  if (!(presets as readonly string[]).includes(preset)) throw unknownName('preset', preset, presets)
}
