import { optionError } from './errors.js'
import type { WorkEvent } from './events.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'
import { type ActivationStore, openStoreNow, storePath } from './store.js'

/** Options of {@link mergeStores}. */
export interface MergeOptions {
  /** The stores, or their folders, in order; parts of one extraction are put in order by their number. */
  parts: readonly (string | ActivationStore)[]
  /** Folder of the new store. */
  out: string
  /** Pairs in a file of the store. Default: the most that any of the parts was written with. */
  pairsPerShard?: number
  /** Replace an existing store under `out`. Default false. */
  overwrite?: boolean
}

/** @internal Names for checks and the command line. */
export const mergeOptionNames = ['parts', 'out', 'pairsPerShard', 'overwrite'] as const

/**
 * Joins stores of the same backbone, layers and precision to one, as if it had never been divided: states are copied as
 * they are stored, and the fingerprint is that of the undivided store.
 *
 * @example
 * ```ts
 * import { mergeStores } from 'lucid-sae'
 *
 * const store = await mergeStores({ parts: ['part0', 'part1'], out: 'acts' })
 * console.log(store.pairs)
 * ```
 */
export function mergeStores(options: MergeOptions, control: Control = {}): Run<ActivationStore, WorkEvent> {
  return new Run(
    () => {
      const { parts, ...rest } = checkOptions('mergeStores', options, mergeOptionNames, ['parts', 'out'])
      if (!Array.isArray(parts)) throw optionError('parts', parts, 'a list of stores')
      return native.startMerge(toJson({ ...rest, parts: parts.map((part) => storePath('parts', part)) }))
    },
    () => openStoreNow(options.out),
    control,
  )
}
