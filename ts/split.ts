import type { WorkEvent } from './events.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'
import { type ActivationStore, openStoreNow, storePath } from './store.js'

/** Options of {@link splitStore}. */
export interface SplitOptions {
  /** The store to divide, or its folder. */
  activations: string | ActivationStore
  /** Folder for the pairs to learn from. */
  rest: string
  /** Folder for the pairs to measure on. */
  heldOut: string
  /** Share of the pairs to hold out. Default 0.2. */
  share?: number
  /** Another seed holds out other pairs. Default 0. */
  seed?: number
  /** Replace existing stores. Default false. */
  overwrite?: boolean
}

/** @internal Names for checks and the command line. */
export const splitOptionNames = ['activations', 'rest', 'heldOut', 'share', 'seed', 'overwrite'] as const

/** The two halves of a store. */
export interface SplitStores {
  rest: ActivationStore
  heldOut: ActivationStore
}

/**
 * Divides a store into pairs to learn from and pairs to measure on, chosen by a hash of (seed, key of the image). States are copied as
 * they are stored. The truth of generated scenes is not known of a divided store: extract a second one with another seed.
 *
 * @example
 * ```ts
 * import { splitStore } from 'lucid-sae'
 *
 * const { rest, heldOut } = await splitStore({ activations: 'acts', rest: 'acts-train', heldOut: 'acts-test' })
 * console.log(rest.pairs, heldOut.pairs)
 * ```
 */
export function splitStore(options: SplitOptions, control: Control = {}): Run<SplitStores, WorkEvent> {
  return new Run(
    () => {
      const { activations, ...rest } = checkOptions('splitStore', options, splitOptionNames, [
        'activations',
        'rest',
        'heldOut',
      ])
      return native.startSplit(toJson({ ...rest, activations: storePath('activations', activations) }))
    },
    () => ({ rest: openStoreNow(options.rest), heldOut: openStoreNow(options.heldOut) }),
    control,
  )
}
