import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Config, checkPreset, configFields, type Preset } from './config.js'
import type { DeviceChoice } from './device.js'
import type { TrainEvent } from './events.js'
import { Model } from './model.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'
import { type ActivationStore, storePath } from './store.js'

/** Options of {@link train} beside the fields of {@link Config}. */
export interface TrainSettings {
  /** The training store, or its folder. */
  activations: string | ActivationStore
  /** A store to evaluate on in between; some training pairs where absent. */
  validation?: string | ActivationStore
  /** Named configuration that the other fields change. Default `'default'`. */
  preset?: Preset
  /** Start from a model folder, or from a `.safetensors` file with the tensors of one. */
  init?: string
  /** Folder of the run: model, `metrics.jsonl` and checkpoints. */
  out: string
  /** Continue the run in `out`. Default false. */
  resume?: boolean
  /** Steps between checkpoints; 0 = only at the end. */
  checkpointEvery?: number
  /** Steps between evaluations; 0 = none. */
  evalEvery?: number
  device?: DeviceChoice
  /** Threads to use; the result does not depend on it. */
  threads?: number
}

/** Options of {@link train}: its settings and any field of {@link Config}. */
export type TrainOptions = TrainSettings & Partial<Config>

/** @internal Names for checks and the command line. */
export const trainSettingNames = [
  'activations',
  'validation',
  'preset',
  'init',
  'out',
  'resume',
  'checkpointEvery',
  'evalEvery',
  'device',
  'threads',
] as const

/** Preset and configuration of the newest checkpoint in the folder of a run. */
function resumable(out: string): { preset?: Preset; config: Record<string, unknown> } | undefined {
  const checkpoints = join(out, 'checkpoints')
  const names = existsSync(checkpoints) ? readdirSync(checkpoints).filter((name) => name.startsWith('step-')) : []
  const newest = names.sort().at(-1)
  if (newest === undefined) return undefined
  try {
    const state = JSON.parse(readFileSync(join(checkpoints, newest, 'state.json'), 'utf8')) as {
      preset: Preset | null
      config: Record<string, unknown>
    }
    return { ...(state.preset === null ? {} : { preset: state.preset }), config: state.config }
  } catch {
    // A damaged checkpoint is the trainer's to judge: it takes an older one, and says so.
    return undefined
  }
}

/** @internal What one run decides for itself, as the addon takes it. */
export function runRequest(options: Omit<TrainOptions, 'activations' | 'validation'>): Record<string, unknown> {
  const fields = configFields()
  const { preset = 'default', ...rest } = options
  checkPreset(preset)
  const config: Record<string, unknown> = {}
  const settings: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(rest)) {
    if (value !== undefined) (fields.includes(name) ? config : settings)[name] = value
  }
  const before = options.resume ? resumable(options.out) : undefined
  // Epochs alone mean epochs, whatever steps a preset names, and the other way round.
  if ('epochs' in config && !('steps' in config)) config.steps = 0
  return {
    ...settings,
    preset: options.preset ?? before?.preset ?? preset,
    // A resumed run keeps its configuration; a field given anew must agree with it, which the trainer checks.
    config: { ...before?.config, ...config },
  }
}

/**
 * Trains a model on a store of activations.
 *
 * The same options, seed and data give the same bits on processors of one kind (`device().cpu`), for any number of threads, also when the
 * run was interrupted and resumed. Cancelling or aborting finishes the step and writes a checkpoint, from which `resume: true` continues.
 *
 * @example
 * ```ts
 * import { train } from 'lucid-sae'
 *
 * const run = train({ activations: 'acts', out: 'runs/a', dShared: 128, dPrivate: 160, kShared: 8, kPrivate: 8, steps: 300 })
 * for await (const event of run) {
 *   if (event.type === 'step') console.log(event.step, event.loss, event.r2.text)
 * }
 * const model = await run.result
 * console.log(model.info().parameters)
 * ```
 */
export function train(options: TrainOptions, control: Control = {}): Run<Model, TrainEvent> {
  return new Run(
    () => {
      checkOptions('train', options, [...trainSettingNames, ...configFields()], ['activations', 'out'])
      const { activations, validation, ...run } = options
      return native.startTrain(
        toJson({
          ...runRequest(run),
          activations: storePath('activations', activations),
          validation: validation === undefined ? undefined : storePath('validation', validation),
        }),
      )
    },
    (_json, job) => new Model(job.takeModel(), options.out),
    control,
  )
}
