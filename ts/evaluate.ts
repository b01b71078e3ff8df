import type { DeviceChoice } from './device.js'
import type { Evaluation } from './evaluation.js'
import type { WorkEvent } from './events.js'
import { type Model, modelOf } from './model.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'
import { type ActivationStore, type Box, storePath } from './store.js'

export type * from './evaluation.js'

/** What a box must be to count as the target of a heat map. */
export type GroundingTarget = 'union' | 'largest' | 'best' | 'category' | 'phrase'

/** How a heat map is made. */
export type HeatMapKind = 'plan-max' | 'code' | 'concept' | 'plan-sum'

/** Options of {@link evaluate}. */
export interface EvaluateOptions {
  /** The model, or its folder. */
  model: string | Model
  /** The store to evaluate on, or its folder. */
  activations: string | ActivationStore
  /** Boxes by key of the image, in place of those in the store; false measures no grounding. */
  boxes?: boolean | Readonly<Record<string, readonly Box[]>>
  /** Targets of grounding; those the boxes allow where absent. */
  targets?: readonly GroundingTarget[]
  /** Heat maps of grounding. Default `plan-max`, `code` and `concept`. */
  heatmaps?: readonly HeatMapKind[]
  /** Seed of the shuffled captions. Default 0. */
  seed?: number
  /** Resamples of the confidence intervals; 0 = none. Default 1000. */
  bootstrap?: number
  /** A store, or its folder, to fit ridge maps on: what a linear map could reach then stands beside cross R². */
  fitOn?: string | ActivationStore
  /** Folder for `evaluation.json`; nothing is written where absent. */
  out?: string
  device?: DeviceChoice
  threads?: number
}

/** @internal Names for checks and the command line. */
export const evaluateOptionNames = [
  'model',
  'activations',
  'boxes',
  'targets',
  'heatmaps',
  'seed',
  'bootstrap',
  'fitOn',
  'out',
  'device',
  'threads',
] as const

/**
 * Measures a model: reconstruction, cross reconstruction, grounding, sparsity, and recovery where the truth is known,
 * each beside its controls.
 *
 * @example
 * ```ts
 * import { evaluate } from 'lucid-sae'
 *
 * const scores = await evaluate({ model: 'runs/a', activations: 'held-out' })
 * console.log(scores.cross?.t2v?.shared, scores.cross?.t2v?.controls.shuffledCaption)
 * ```
 */
export function evaluate(options: EvaluateOptions, control?: Control): Run<Evaluation, WorkEvent>
/** The same with the model in front. */
export function evaluate(
  model: string | Model,
  options: Omit<EvaluateOptions, 'model'>,
  control?: Control,
): Run<Evaluation, WorkEvent>
export function evaluate(
  first: EvaluateOptions | string | Model,
  second: Omit<EvaluateOptions, 'model'> | Control = {},
  third: Control = {},
): Run<Evaluation, WorkEvent> {
  const inFront = typeof first === 'string' || 'encode' in first
  const options: EvaluateOptions = inFront ? { ...(second as Omit<EvaluateOptions, 'model'>), model: first } : first
  return new Run(
    () => {
      const { model, activations, fitOn, ...rest } = checkOptions('evaluate', options, evaluateOptionNames, [
        'model',
        'activations',
      ])
      return native.startEvaluate(
        toJson({
          ...rest,
          activations: storePath('activations', activations),
          ...(fitOn === undefined ? {} : { fitOn: storePath('fitOn', fitOn) }),
        }),
        modelOf(model).native,
      )
    },
    (json) => JSON.parse(json) as Evaluation,
    inFront ? third : (second as Control),
  )
}
