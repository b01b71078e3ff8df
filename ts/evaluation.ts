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

/** Share of queries whose right answer is among the first 1, 5 and 10. */
export interface RetrievalScore {
  at1: number
  at5: number
  at10: number
}

/** Mean of a score over the shared latents that have one. */
export interface LatentSummary {
  mean: number
  /** The same with halves of different pairs, or with activations of other images. */
  shuffled: number
  latents: number
}

/** What pooled shared codes (mean over the tokens of a pair) tell of pairs and of latents. */
export interface Structure {
  /** Pairs compared, 5000 at most. */
  pairs: number
  /** By the cosine of pooled shared codes. */
  retrieval: { t2i: RetrievalScore; i2t: RetrievalScore; chance: RetrievalScore }
  /** Skewness of how often an answer is among the nearest ones; `random` is that of neighbours drawn at random. */
  hubness: { neighbours: number; t2i: number; i2t: number; random: number }
  /** Overlap of the latents that fire for the two halves of a pair, and of different pairs. */
  support: { jaccard: number; shuffled: number }
  bridge?: LatentSummary
  jaccard?: LatentSummary
  monosemanticity?: LatentSummary
}

/** Scores of one shared latent; absent where it does not fire, or not often enough. */
export interface LatentScore {
  latent: number
  /** E_img / (E_img + E_txt): 1 = fires on patches only. */
  modality?: number
  /** Cosine over pairs of its activations in image and text. */
  bridge?: number
  /** Pairs where it fires in both over pairs where it fires in either. */
  jaccard?: number
  /** Mean cosine of the images that fire it, weighted by activation. */
  monosemanticity?: number
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
  /** The same against the exact masks of what the boxes enclose, where those are known (scenes; stores with masks). */
  maskGrounding?: Record<string, Record<string, Grounding>>
  maxfreq?: { t2i: number; i2t: number }
  sparsity?: Partial<PerModality<Sparsity>>
  truth?: TruthRecovery
  structure?: Structure
  latents?: LatentScore[]
  /**
   * Path of a number → its 95 % interval, by a bootstrap over images (over concepts for what is a mean over concepts). `…aboveShuffled` is
   * the number above that with another pair's caption.
   */
  intervals?: Record<string, [low: number, high: number]>
  /** Path of what is absent → why. */
  skipped?: Record<string, string>
}
