/**
 * The data that the report page reads: written by {@link writeReport} as classic scripts (a page opened from disk may
 * not fetch JSON) and, for machines, as the same objects in JSON.
 *
 * Everything here is plain data from the user's files. The page shows it as text nodes only.
 */

import type { Evaluation } from '../evaluation.js'

/** A picture of the report and the captions it came with. */
export interface ReportImage {
  /** Path below the report folder, e.g. `images/0007.jpg`. */
  file: string
  /** File name or key in the data set. */
  key: string
  caption: string
  /** Patches of the backbone: rows, columns. */
  grid: [number, number]
}

/** One picture under one latent or concept. */
export interface ReportHit {
  /** Index into {@link ReportData.images}. */
  image: number
  /** Row and column of the strongest patch. */
  peak: [number, number]
  /** Activation or score of that patch. */
  value: number
  /** Heat map, row-major over the grid, 0–255 relative to its own maximum, base64. */
  heat: string
}

/** A word of the captions that fires a latent. */
export interface ReportWord {
  word: string
  /** Mean activation over the word's occurrences. */
  activation: number
  /** Occurrences in the captions looked at. */
  count: number
}

/** A row of the latents table. */
export interface ReportLatent {
  latent: number
  /** `null` where the evidence is too thin for a name. */
  label: string | null
  terms: string[]
  /** Share of the largest cluster of hit concepts; `null` without hits. */
  purity: number | null
  /** Share of patches and of tokens that fire it. */
  density: { vision: number; text: number }
  /** (image, concept) pairs that chose it. */
  hits: number
  /** Why it has no name. */
  reason: string | null
  /** Cosine over pairs of its activations in image and caption; `null` where it does not fire or was not measured. */
  bridge: number | null
  /** Share of its activation that images have: 1 = patches only, 0 = words only. */
  modality: number | null
  /** Mean cosine of the pictures that fire it, weighted by activation. */
  monosemanticity: number | null
}

/** What a latent's own page adds; loaded in chunks on demand. */
export interface ReportLatentDetail {
  latent: number
  words: ReportWord[]
  hits: ReportHit[]
  /** Counts of its activations by half octaves from 2⁻⁸, over patches and tokens; `null` in atlases of older versions. */
  histogram: { vision: number[]; text: number[] } | null
}

/** A token of a caption and where its mass lies. */
export interface ReportToken {
  /** Byte-exact text in the caption; empty for the end of the sentence. */
  text: string
  /** Where it starts and ends in the caption, in UTF-16 units. */
  span: [number, number]
  /** Its column of the plan over its mass, row-major over the grid, 0–255 relative to its largest, base64. */
  heat: string
  /** Its share of the pair's mass. */
  mass: number
  /** Shared latents it fires, strongest first. */
  latents: { latent: number; value: number }[]
}

/** A picture and its caption under the transport plan. */
export interface ReportPair {
  /** Position in the store. */
  pair: number
  file: string
  key: string
  caption: string
  grid: [number, number]
  tokens: ReportToken[]
  /** For each patch the shared latents it fires, strongest first. */
  patches: { latent: number; value: number }[][]
  /** For each patch the share of every token in its row of the plan, 0–100. */
  shares: number[][]
}

/** A row of the concepts table. */
export interface ReportConcept {
  concept: string
  category: string | null
  /** Latents that carry it, strongest first. */
  latents: { latent: number; weight: number }[]
  /** Largest score over the images looked at. */
  confidence: number
}

/** What a concept's own page adds; loaded in chunks on demand. */
export interface ReportConceptDetail {
  concept: string
  hits: ReportHit[]
}

/** One point of the training curves. */
export interface ReportStep {
  step: number
  [name: string]: number
}

/** A measured value beside its goal-free controls, shown on the overview. */
export interface ReportNumber {
  name: string
  value: number
  /** 95 % interval over images. */
  interval?: [number, number]
  controls: { name: string; value: number }[]
  /** One sentence: what the number means and which direction is good. */
  meaning: string
}

/** Another run beside this one. */
export interface ReportComparison {
  title: string
  numbers: ReportNumber[]
  config: { [name: string]: unknown }
}

/** How far a run in training is; the page looks again every so many seconds until it is done. */
export interface ReportWatching {
  run: string
  step: number
  /** 0 until the run says how many it will take. */
  steps: number
  done: boolean
  every: number
  /** When this was written, ISO 8601. */
  at: string
}

/** Everything the first paint needs. */
export interface ReportData {
  format: 2
  title: string
  created: string
  version: string
  /** Sentences a reader has to know before the numbers, e.g. that a backbone is synthetic. */
  notes: string[]
  facts: { name: string; value: string }[]
  /** Set where the report follows a run in training. */
  watching?: ReportWatching
  numbers: ReportNumber[]
  evaluation: Evaluation | null
  curves: ReportStep[]
  stages: { name: string; seconds: number }[]
  config: { [name: string]: unknown }
  images: ReportImage[]
  latents: ReportLatent[]
  concepts: ReportConcept[]
  /** Pairs to look into, by picture and caption; or why there are none. */
  pairs: { list: { file: string; caption: string }[] } | { reason: string }
  /** Another run; or why there is none. */
  compare: ReportComparison | { reason: string }
  /** What every field of `config` means. */
  meanings: { [name: string]: string }
  /** Details per script in `data/latents-000.js`, `data/concepts-000.js` and `data/pairs-000.js`. */
  chunk: { latents: number; concepts: number; pairs: number }
  /** The latents to look at first. */
  start: { latents: number[]; concepts: string[] }
}
