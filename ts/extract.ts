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
  /**
   * Hook points: `vision.post_ln` (default), `vision.block:N`, `text.final_ln` (default), `text.block:N`. With several of a tower, one
   * pass fills as many stores, in folders of `out` named after their hooks: the i-th holds the i-th hook of each tower, and the shorter
   * list repeats its last.
   */
  layers?: readonly string[]
  /** Seed of random weights in place of the backbone's own: what numbers are worth without any training. */
  untrained?: number
  /** How activations are stored. Default `'f16'`; `'int8'` has a scale for every token. */
  precision?: 'f32' | 'f16' | 'bf16' | 'int8'
  /** Take only the first records. */
  maxPairs?: number
  /** Which captions of an image are extracted, each once; training draws one an epoch. Default `'all'`. */
  captionPolicy?: 'all' | 'first'
  /** Most pixels a picture may have. Default 100 million. */
  maxPixels?: number
  /**
   * Go on with what a killed or failed run of the same options left, to the same bits as in one go; begin where there is nothing.
   * Default false: then what was left is an error, unless `overwrite` is set.
   */
  resume?: boolean
  /** Only part `index` of `of`, from 0: several processes share the work, and {@link mergeStores} puts the parts together. */
  shard?: { index: number; of: number }
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
  'untrained',
  'precision',
  'maxPairs',
  'captionPolicy',
  'maxPixels',
  'resume',
  'shard',
  'keepEos',
  'thumbnails',
  'pairsPerShard',
  'onBad',
  'overwrite',
  'device',
  'threads',
] as const

/** What an extraction did. */
export interface ExtractionSummary {
  /** Folders of the stores; more than one where several hooks of a tower were named. */
  readonly stores: readonly string[]
  readonly pairs: number
  /** Pairs that an earlier run had done. */
  readonly resumed: number
  /** What was left out; also in the store's `skipped.jsonl`. */
  readonly skipped: readonly { readonly key: string; readonly code: string; readonly reason: string }[]
  readonly seconds: number
  readonly imagesPerSecond: number
  /** Seconds in which each stage was at work; they run side by side. */
  readonly stages: { readonly preparing: number; readonly forward: number; readonly writing: number }
  /** The stage that the others wait for. */
  readonly limit: 'preparing' | 'forward' | 'writing'
}

/**
 * Runs a backbone over pictures with captions and keeps the states of patches and tokens. Resolves with the (first) store, whose
 * `extraction` says what was done.
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
    (json) => {
      const extraction = JSON.parse(json) as ExtractionSummary
      return openStoreNow(extraction.stores[0] ?? options.out, extraction)
    },
    control,
  )
}
