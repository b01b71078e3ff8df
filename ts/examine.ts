import type { WorkEvent } from './events.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'

/** Options of {@link examineBackbone}. */
export interface ExamineBackboneOptions {
  /**
   * Which vision-language model to use: `'mini'` for the embedded one (default), a folder with a checkpoint in Hugging Face's
   * layout, or a name on the Hugging Face hub such as `google/siglip-base-patch16-224`, with `@revision` for a branch, tag or
   * commit. A model of the hub is downloaded once, into the cache that Python uses too (docs/backbones.md).
   */
  backbone?: string
  /** Scenes of each of the two sets that words are swapped in. Default 1000. */
  scenes?: number
  /** Scenes of each of the three sets whose pictures are probed; four times as many captions. Default 240. */
  probeScenes?: number
  /** Seed of the scenes; not that of the backbone's training (1 for the mini backbone). Default 0xe8a3. */
  seed?: number
  threads?: number
}

/** @internal Names for checks and the command line. */
export const examineOptionNames = ['backbone', 'scenes', 'probeScenes', 'seed', 'threads'] as const

/** A kind of thing that scenes show or captions say. */
export type SceneKind = 'background' | 'color' | 'size' | 'pattern' | 'shape' | 'count' | 'relation'

/** A share of pictures, and how many there were. */
export interface SwapShare {
  readonly accuracy: number
  readonly count: number
}

/** Share of the pictures whose true caption scores above the one with a wrong word. Equal scores count as wrong. */
export interface SwapScore extends SwapShare {
  readonly kind: SceneKind
  /** The accuracy when every scene is given the next scene's picture: what the captions alone give away. */
  readonly otherPicture?: number
  /** Where the wrong word fits nothing in the picture; for attributes of objects only. */
  readonly absent?: SwapShare
  /** Where the wrong word is true of another object. */
  readonly elsewhere?: SwapShare
}

/** One-word swaps of one kind. */
export interface SwapRow extends SwapScore {
  /** 0.5 */
  readonly chance: number
  readonly goal: number
  /** The same captions, scored by the untrained backbone. */
  readonly untrained: SwapScore
}

/** Share of 256 pictures whose own caption has the highest cosine. */
export interface RetrievalRow {
  /** Among the captions of 256 independent scenes, of 32 families of 8 alike, or of its own family. */
  readonly among: 'independent' | 'families' | 'withinFamily'
  readonly recall: number
  readonly chance: number
  readonly untrained: number
}

/** Accuracy of a linear probe on one set of scenes. */
export interface ProbeScore {
  readonly accuracy: number
  /** Share of the most frequent value of this set. */
  readonly chance: number
  /** The same probe of the untrained backbone. */
  readonly untrained: number
  /** Number of states. */
  readonly count: number
}

/** A linear probe at one hook. */
export interface Probe {
  /**
   * Which states it reads: patches of an object or of the background; tokens of a word that names the value; tokens of the
   * same phrase that name something else; tokens that name nothing (for the background that the caption states).
   */
  readonly of: 'patch' | 'ownWord' | 'restOfPhrase' | 'filler'
  readonly hook: string
  /** What it tells. */
  readonly kind: SceneKind
  /** States it was fitted on. */
  readonly fitted: number
  /** On scenes of another seed; absent where none of them has such a state. */
  readonly unseen?: ProbeScore
  /** On scenes that each hold a combination of shape and colour never seen in training. */
  readonly heldOut?: ProbeScore
  /** What the best hook is meant to reach on unseen scenes. */
  readonly goal?: number
}

/** Of the patches called object, the share that is; of the object patches, the share called so. Absent without any. */
export interface Detection {
  readonly precision?: number
  readonly recall?: number
}

/** Whether a patch's state tells that it shows an object, at one hook, on unseen scenes. */
export interface LocalityRow extends Detection {
  readonly hook: string
  /** Precision at random: the share of object patches. */
  readonly chance: number
  readonly untrained: Detection
  /** Number of patches. */
  readonly count: number
  /** What the best precision is meant to reach. */
  readonly goal: number
}

/** What a backbone knows of generated scenes; `docs/examination.md` defines every number. */
export interface BackboneExamination {
  /** What identifies the backbone: its name and hashes. */
  readonly backbone: Readonly<Record<string, unknown>>
  readonly options: { readonly scenes: number; readonly probeScenes: number; readonly seed: number }
  readonly swaps: { readonly unseen: readonly SwapRow[]; readonly heldOut: readonly SwapRow[] }
  readonly retrieval: readonly RetrievalRow[]
  readonly patchProbes: readonly Probe[]
  readonly locality: readonly LocalityRow[]
  readonly tokenProbes: readonly Probe[]
  /** All of it as Markdown tables. */
  readonly markdown: string
}

/**
 * Finds out what a backbone knows of generated scenes, each number beside chance and beside a backbone of the same shape that
 * was never trained: whether a caption with one wrong word scores below the true one, whether pictures find their captions,
 * and what the states of patches and tokens tell at every hook.
 *
 * @example
 * ```ts
 * import { examineBackbone } from 'lucid-sae'
 *
 * const found = await examineBackbone({ backbone: 'mini', scenes: 20, probeScenes: 4 })
 * console.log(found.markdown)
 * ```
 */
export function examineBackbone(
  options: ExamineBackboneOptions = {},
  control: Control = {},
): Run<BackboneExamination, WorkEvent> {
  return new Run(
    () => {
      const checked = checkOptions('examineBackbone', options, examineOptionNames)
      return native.startExamineBackbone(toJson({ backbone: 'mini', ...checked }))
    },
    (json) => JSON.parse(json) as BackboneExamination,
    control,
  )
}
