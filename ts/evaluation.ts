import type { PerModality } from './events.js'

/** R² or FVU by block (each with the bias); blocks do not add up. */
export interface Reconstruction {
  joint: number
  shared: number
  private?: number
}

/** R² of one direction of cross reconstruction, with what it is without alignment. */
export interface CrossScore {
  shared: number
  joint: number
  controls: { shuffledCaption?: number; uniformPlan: number; mean: number }
  /** What ridge maps reach that were fitted on the pairs of `fitOn`; absent without it. */
  ceiling?: Ceiling
}

/** R² of ridge maps from the states of the source to those of the target: a yardstick, no bound. */
export interface Ceiling {
  /** From the mean state of the pair. */
  pooled: number
  /** From the states averaged by the plan. */
  matched: number
  /** From both. */
  both: number
}

/** A number for each direction, source → target. */
export interface PerDirection<T> {
  /** Text explains patches. */
  t2v: T
  /** Patches explain text. */
  v2t: T
}

/** One heat map against one target. */
export interface GroundingScore {
  /** Share of heat inside the target. */
  massAtObj: number
  /** Share of queries whose hottest cell lies inside. */
  pointAt1: number
  /** Area IoU of the hottest tenth with the target. */
  iouAt10: number
}

/** A grounding score with its controls. */
export interface Grounding extends GroundingScore {
  images: number
  queries: number
  emptyMaps: number
  controls: {
    uniform: GroundingScore
    centre: GroundingScore
    shuffledCaption?: GroundingScore
    oracle: GroundingScore
  }
}

/** A number for each block; models without private latents have none. */
export interface Blocks<T> {
  shared: T
  private?: T
}

/** Quantiles of firing frequencies. */
export interface Quantiles {
  min: number
  p10: number
  p25: number
  p50: number
  p75: number
  p90: number
  p99: number
  max: number
}

/** How sparse the codes of one modality are. */
export interface Sparsity {
  l0: Blocks<number>
  dead: Blocks<number>
  density: Blocks<Quantiles>
}

/** Recovery of the concepts of one kind. */
export interface KindRecovery {
  concepts: number
  identityRate?: number
  correlation?: Partial<PerModality>
  words: number
  transportAccuracy?: number
  transportAccuracyUniform?: number
  planMass?: number
  planMassUniform?: number
}

/** Recovery of known concepts, where the truth is known. */
export interface TruthRecovery {
  /** Share of concepts whose best shared latent is the same in both modalities. */
  identityRate?: number
  /** That share by chance. */
  identityChance?: number
  mcc?: Partial<PerModality>
  transportAccuracy?: number
  transportAccuracyUniform?: number
  planMass?: number
  planMassUniform?: number
  kinds?: Record<string, KindRecovery>
  concepts: {
    name: string
    kind: string
    /** Every word that names it. */
    words: string[]
    vision?: { latent: number; correlation: number }
    text?: { latent: number; correlation: number }
  }[]
  /** What each shared latent stands for: the concept, as a position in `concepts`, that it rises with most. */
  latents?: {
    vision?: { concept: number; correlation: number }
    text?: { concept: number; correlation: number }
  }[]
}

/** How many labels of an atlas are right, where the truth is known. */
export interface LabelScore {
  /** Latents with a label. */
  labels: number
  /** Of these, the latents whose first term is a word for the concept they rise with most over patches. */
  right: number
  /** Concepts that at least one right label names. */
  concepts: string[]
  /** Latents whose label is wrong. */
  wrong: number[]
}

/** Every metric with its controls. What could not be computed is absent and named, with its reason, in `skipped`. */
export interface Evaluation {
  format: number
  pairs: number
  tokens: PerModality
  seed: number
  r2?: Partial<PerModality<Reconstruction>>
  fvu?: Partial<PerModality<Reconstruction>>
  cross?: Partial<PerDirection<CrossScore>>
  deltaLeak?: Partial<PerDirection<number>>
  /** Kind of heat map → target → score. */
  grounding?: Record<string, Record<string, Grounding>>
  maxfreq?: { t2i: number; i2t: number }
  sparsity?: Partial<PerModality<Sparsity>>
  truth?: TruthRecovery
  /** Path of what is absent → why. */
  skipped?: Record<string, string>
}
