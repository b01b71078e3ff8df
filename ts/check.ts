import { checkDataset, type Dataset } from './dataset.js'
import type { WorkEvent } from './events.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'
import { type ActivationStore, storePath } from './store.js'

/** Options of {@link checkBackbone}. */
export interface CheckBackboneOptions {
  /** A folder, `'mini'`, or a name on the Hugging Face hub. Default `'mini'`. */
  backbone?: string
  /** COCO's 000000039769.jpg, for the one checkpoint whose logits are published (google/siglip-base-patch16-224). */
  image?: string
  threads?: number
}

/** What {@link checkBackbone} found. */
export interface BackboneCheckup {
  /** What identifies the backbone in the files made with it. */
  readonly backbone: Readonly<Record<string, unknown>>
  /** Shapes of both towers, in the names of `config.json`. */
  readonly config: Readonly<Record<string, unknown>>
  readonly parameters: number
  readonly hooks: readonly string[]
  /** Logit of the built-in picture, a red disc, with each text. */
  readonly logits: readonly (readonly [text: string, logit: number])[]
  readonly checks: readonly {
    readonly name: string
    readonly passed: boolean
    readonly found: string
    readonly expected: string
  }[]
  readonly passed: boolean
}

/** @internal Names for checks and the command line. */
export const checkOptionNames = ['backbone', 'image', 'threads'] as const

/**
 * Looks a backbone over: its files and shapes, finite states at every hook, the first blocks of both towers against 64-bit arithmetic.
 *
 * @example
 * ```ts
 * import { checkBackbone } from 'lucid-sae'
 *
 * const found = await checkBackbone({ backbone: 'mini' })
 * console.log(found.passed, found.checks.length)
 * ```
 */
export function checkBackbone(
  options: CheckBackboneOptions = {},
  control: Control = {},
): Run<BackboneCheckup, WorkEvent> {
  return new Run(
    () => {
      const checked = checkOptions('checkBackbone', options, checkOptionNames)
      return native.startCheckBackbone(toJson({ backbone: 'mini', ...checked }))
    },
    (json) => JSON.parse(json) as BackboneCheckup,
    control,
  )
}

/** Options of {@link compareWithSource}. */
export interface CompareOptions {
  activations: string | ActivationStore
  /** The backbone that the store was made with. Default `'mini'`. */
  backbone?: string
  /** The data set that the store was made from. */
  dataset: Dataset
  /** Pairs to extract again. Default 16. */
  sample?: number
  /** Draws them. Default 0. */
  seed?: number
  threads?: number
}

/** What {@link compareWithSource} found. */
export interface Comparison {
  readonly sampled: number
  /** Largest difference of a number over the largest of its token. */
  readonly largestDifference: number
  /** Pairs whose captions, ids, grid or states are not those of the source. */
  readonly mismatches: readonly { readonly key: string; readonly what: string }[]
}

/**
 * Extracts some pairs of a store again and compares them with what is stored: captions, ids and grids exactly, states within the
 * store's precision and a processor's rounding.
 *
 * @example
 * ```ts
 * import { compareWithSource, extract } from 'lucid-sae'
 *
 * const dataset = { scenes: { pairs: 20, seed: 1 } }
 * const store = await extract({ dataset, out: 'acts' })
 * const { mismatches } = await compareWithSource({ activations: store, dataset, sample: 4 })
 * console.log(mismatches.length)
 * ```
 */
export function compareWithSource(options: CompareOptions, control: Control = {}): Run<Comparison, WorkEvent> {
  return new Run(
    () => {
      const names = ['activations', 'backbone', 'dataset', 'sample', 'seed', 'threads'] as const
      const { activations, dataset, ...rest } = checkOptions('compareWithSource', options, names, [
        'activations',
        'dataset',
      ])
      const source = { activations: storePath('activations', activations), dataset: checkDataset(dataset) }
      return native.startCompare(toJson({ backbone: 'mini', sample: 16, seed: 0, ...rest, ...source }))
    },
    (json) => JSON.parse(json) as Comparison,
    control,
  )
}
