import type { WorkEvent } from './events.js'
import { type Model, modelOf } from './model.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'
import { type ActivationStore, storePath } from './store.js'

/** Options of {@link probe}. */
export interface ProbeOptions {
  /** The model, or its folder. */
  model: string | Model
  /** Store that the readouts are tested on, or its folder. */
  activations: string | ActivationStore
  /** Store that they are fitted on, or its folder. */
  fitOn: string | ActivationStore
  /** Seed of shuffled labels and of the bootstrap. Default 0. */
  seed?: number
  /** Resamples of the confidence intervals; 0 = none. Default 1000. */
  bootstrap?: number
  threads?: number
}

/** @internal Names for checks and the command line. */
export const probeOptionNames = ['model', 'activations', 'fitOn', 'seed', 'bootstrap', 'threads'] as const

/** Areas under the ROC curve of readouts of concepts; chance is 0.5. */
export interface ReadoutAreas {
  /** Ridge readout of the mean state: what the backbone knows. */
  states: number
  /** Ridge readout of the mean shared code. */
  codes: number
  /** The same, fitted to the labels of other pictures. */
  shuffled: number
  /** Readout of the one latent that goes with the concept most. */
  one: number
  /** Readout of the five latents that do. */
  five: number
  /** The best single latent by the labels of other pictures. */
  oneShuffled: number
}

/** Feature absorption of a concept, over tested pairs that hold it and whose states say so. */
export interface Absorption {
  pairs: number
  /** Share in which none of the concept's latents fires. */
  silent: number
  /** Share in which none fires, and another latent carries at least 0.4 of what the codes say along the concept's direction. */
  absorbed: number
  /** `silent` with the latents of another concept. */
  silentShuffled: number
}

/** One concept in one modality. */
export interface ConceptProbe {
  name: string
  kind: string
  /** Share of the tested pairs that hold it. */
  share: number
  auc: ReadoutAreas
  /** Latents by falling |correlation| with it, at most five. */
  latents: number[]
  /** Feature splitting: the least number of those after which one more adds less than 0.03 to the area. 1 = not split. */
  split: number
  absorption?: Absorption
}

/** Probes of all concepts in one modality; means over concepts. */
export interface ModalityProbes {
  mean: ReadoutAreas
  split: number
  silent?: number
  absorbed?: number
  silentShuffled?: number
  concepts: ConceptProbe[]
}

/** Which of the concepts of a kind a picture shows, where it shows exactly one: shares of right answers. */
export interface Classification {
  classes: number
  pictures: number
  chance: number
  /** Always the class most frequent among the fitted pictures. */
  majority: number
  /** Linear readout of the mean state. */
  states: number
  /** Linear readout of the mean shared code. */
  codes: number
  /** Concept bottleneck: linear readout of nothing but the one best latent of every concept. */
  bottleneck: number
  /** The class whose words' mean shared code is nearest to the picture's. */
  zeroShot?: number
  /** Zero-shot with the words of another class. */
  zeroShotShuffled?: number
}

/** What latents do when one concept of a picture is put in the place of another. */
export interface EditScore {
  edits: number
  /** Share in which, of all latents, the new concept's rises most. */
  rises: number
  /** Share in which, of all latents, the old concept's falls most. */
  falls: number
  /** Share of all movement Σ|Δz| that is that of the two. */
  onTarget: number
  /** The same with the two concepts of another edit of the kind. */
  shuffled: { rises: number; falls: number; onTarget: number }
}

/** What shared codes know of concepts. What could not be computed is absent and named, with its reason, in `skipped`. */
export interface Probing {
  format: number
  fitted: number
  tested: number
  /** Where the labels come from: the truth of scenes, or categories of boxes. */
  labels: 'truth' | 'categories'
  probes: { vision?: ModalityProbes; text?: ModalityProbes }
  /** Kind of concepts → which of them a picture shows. */
  classification?: Record<string, Classification>
  /** Detection of concepts by the cosine of a picture's code with that of their words; areas under the ROC curve. */
  zeroShot?: { concepts: number; auc: number; shuffled: number }
  /** Kind of concepts, or `all` → edits of it. */
  edits?: Record<string, EditScore>
  /** Path of a number → its 95 % interval, by a bootstrap over pictures (edits). */
  intervals?: Record<string, [low: number, high: number]>
  skipped?: Record<string, string>
}

/**
 * Asks what shared codes know of concepts: linear and k-sparse probes, splitting and absorption, classification through a concept
 * bottleneck and zero-shot through the words' codes, and causal edits, each beside chance. Labels are the truth of scenes, or the
 * categories of boxes. For edits, extract scenes with `edits: true`.
 *
 * @example
 * ```ts
 * import { probe } from 'lucid-sae'
 *
 * const found = await probe({ model: 'runs/a', fitOn: 'acts', activations: 'held-out' })
 * console.log(found.probes.vision?.mean, found.classification?.background, found.zeroShot)
 * ```
 */
export function probe(options: ProbeOptions, control: Control = {}): Run<Probing, WorkEvent> {
  return new Run(
    () => {
      const { model, activations, fitOn, ...rest } = checkOptions('probe', options, probeOptionNames, [
        'model',
        'activations',
        'fitOn',
      ])
      const stores = { activations: storePath('activations', activations), fitOn: storePath('fitOn', fitOn) }
      return native.startProbe(toJson({ ...rest, ...stores }), modelOf(model).native)
    },
    (json) => JSON.parse(json) as Probing,
    control,
  )
}

/** Options of {@link compareModels}. */
export interface CompareModelsOptions {
  /** A model, or its folder. */
  model: string | Model
  /** Another one of the same widths. */
  other: string | Model
  /** Store whose pairs decide which latents fire; all shared latents are matched where absent, dead ones included. */
  activations?: string | ActivationStore
  threads?: number
}

/** @internal Names for checks and the command line. */
export const compareModelsOptionNames = ['model', 'other', 'activations', 'threads'] as const

/** How alike matched latents are. */
export interface Likeness {
  /** Mean of the mean cosine of both modalities. */
  mean: number
  /** Share with a mean cosine of at least 0.7. */
  same: number
}

/** How far two models found the same shared latents. */
export interface Stability {
  /** Latents of either model that were matched. */
  latents: [number, number]
  /** Under the one-to-one matching of largest total cosine of decoder rows. */
  matched: Likeness
  /** With directions drawn at random: what chance gives for this many latents of this width. */
  random: Likeness
  /** Matched latents with their cosines. */
  pairs: { latent: number; other: number; vision: number; text: number }[]
}

/**
 * Matches the shared latents of two models one to one (Hungarian method) by their decoder rows in both modalities: what another seed
 * leaves of the latents.
 *
 * @example
 * ```ts
 * import { compareModels } from 'lucid-sae'
 *
 * const { matched, random } = await compareModels({ model: 'runs/seed-0', other: 'runs/seed-1', activations: 'held-out' })
 * console.log(`${matched.same} of the latents found again; ${random.same} by chance`)
 * ```
 */
export function compareModels(options: CompareModelsOptions, control: Control = {}): Run<Stability, WorkEvent> {
  return new Run(
    () => {
      const { model, other, activations, ...rest } = checkOptions('compareModels', options, compareModelsOptionNames, [
        'model',
        'other',
      ])
      const store = activations === undefined ? {} : { activations: storePath('activations', activations) }
      return native.startCompareModels(toJson({ ...rest, ...store }), modelOf(model).native, modelOf(other).native)
    },
    (json) => JSON.parse(json) as Stability,
    control,
  )
}
