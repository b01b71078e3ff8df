import { configFields } from './config.js'
import { optionError } from './errors.js'
import type { DoneEvent, TrainEvent } from './events.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'
import { type ActivationStore, storePath } from './store.js'
import { runRequest, type TrainOptions, trainSettingNames } from './train.js'

/** Options of one of several runs: those of {@link train} without the stores. */
export type OneOfMany = Omit<TrainOptions, 'activations' | 'validation'>

/** Options of {@link trainMany}. */
export interface TrainManyOptions {
  /** The training store of every run, or its folder. */
  activations: string | ActivationStore
  /** A store to evaluate on in between. */
  validation?: string | ActivationStore
  /** The runs, each with a folder `out` of its own. */
  runs: readonly OneOfMany[]
}

/** An event of a run, with the run's position in the list. */
export type ManyEvent = (Exclude<TrainEvent, DoneEvent> & { readonly run: number }) | DoneEvent

/**
 * Trains several models on one stream of activations: what one run has read, the others take over. Each model has the bits that
 * {@link train} alone gives. A run that fails stops no other; the result then rejects with the first failure once all
 * have ended.
 *
 * @returns the folders of the models, in the order of `runs`
 *
 * @example
 * ```ts
 * import { loadModel, trainMany } from 'lucid-sae'
 *
 * const shape = { dShared: 64, dPrivate: 192, kShared: 6, kPrivate: 12, batchPairs: 32, lr: 3e-3, steps: 60 }
 * const [lucid, plain] = await trainMany({
 *   activations: 'acts',
 *   runs: [
 *     { ...shape, out: 'runs/lucid' },
 *     { ...shape, preset: 'ot-only', out: 'runs/ot-only' },
 *   ],
 * })
 * console.log((await loadModel(lucid ?? '')).info().steps, plain)
 * ```
 */
export function trainMany(options: TrainManyOptions, control: Control = {}): Run<readonly string[], ManyEvent> {
  return new Run(
    () => {
      const { activations, validation, runs } = checkOptions(
        'trainMany',
        options,
        ['activations', 'validation', 'runs'],
        ['activations', 'runs'],
      )
      if (!Array.isArray(runs) || runs.length === 0) throw optionError('runs', runs, 'a list of at least one run')
      const known = [...trainSettingNames, ...configFields()].filter((n) => n !== 'activations' && n !== 'validation')
      for (const run of runs as readonly OneOfMany[]) checkOptions('a run of trainMany', run, known, ['out'])
      return native.startTrainMany(
        toJson({
          activations: storePath('activations', activations),
          validation: validation === undefined ? undefined : storePath('validation', validation),
          runs: (runs as readonly OneOfMany[]).map(runRequest),
        }),
      )
    },
    () => options.runs.map((run) => run.out),
    control,
  )
}
