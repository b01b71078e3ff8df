import { checkDataset, type Dataset } from './dataset.js'
import type { DeviceChoice } from './device.js'
import type { WorkEvent } from './events.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'
import { type ActivationStore, openStoreNow } from './store.js'

/** Options of {@link extract}. */
export interface ExtractOptions {
  /**
   * Which vision-language model to use: `'mini'` for the embedded one (default), a folder with a checkpoint in Hugging Face's
   * layout, or a name on the Hugging Face hub such as `google/siglip-base-patch16-224`, with `@revision` for a branch, tag or
   * commit. A model of the hub is downloaded once, into the cache that Python uses too (docs/backbones.md).
   */
  backbone?: string
  dataset: Dataset
  /** Folder of the new store. */
  out: string
  /** Hook points, at most one of each tower: `vision.post_ln` (default), `vision.block:N`, `text.final_ln` (default), `text.block:N`. */
  layers?: readonly string[]
  /** How activations are stored. Default `'f16'`. */
  precision?: 'f32' | 'f16' | 'bf16'
  /** Take only the first pairs. */
  maxPairs?: number
  /** Keep the end-of-sentence token of a caption. Default true. */
  keepEos?: boolean
  /** Keep small JPEGs, so that a report works from the store alone. Default true. */
  thumbnails?: boolean
  /** Pairs in a file of the store. Default 1024. */
  pairsPerShard?: number
  /** `'skip'` leaves out images that cannot be used and counts them; `'stop'` (default) fails on the first one. */
  onBad?: 'stop' | 'skip'
  /** Replace an existing store under `out`. Default false. */
  overwrite?: boolean
  device?: DeviceChoice
  threads?: number
}

/** @internal Names for checks and the command line. */
export const extractOptionNames = [
  'backbone',
  'dataset',
  'out',
  'layers',
  'precision',
  'maxPairs',
  'keepEos',
  'thumbnails',
  'pairsPerShard',
  'onBad',
  'overwrite',
  'device',
  'threads',
] as const

/**
 * Runs a backbone over pictures with captions and keeps the states of patches and tokens.
 *
 * @example
 * ```ts
 * import { extract } from 'lucid-sae'
 *
 * const store = await extract({
 *   backbone: 'mini',
 *   dataset: { scenes: { pairs: 100, seed: 1 } },
 *   out: 'acts',
 * })
 * console.log(store.pairs)
 * ```
 */
export function extract(options: ExtractOptions, control: Control = {}): Run<ActivationStore, WorkEvent> {
  return new Run(
    () => {
      const { dataset, ...rest } = checkOptions('extract', options, extractOptionNames, ['dataset', 'out'])
      return native.startExtract(toJson({ backbone: 'mini', ...rest, dataset: checkDataset(dataset) }))
    },
    () => openStoreNow(options.out),
    control,
  )
}
