/** Trains and measures the models of a plan; what an earlier call left is used again. */

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { configDefaults } from '../config.js'
import { evaluate } from '../evaluate.js'
import type { Evaluation } from '../evaluation.js'
import type { ProgressEvent, WarningEvent } from '../events.js'
import { loadModel, type Model } from '../model.js'
import { toJson } from '../options.js'
import type { ActivationStore } from '../store.js'
import { train } from '../train.js'
import { type OneOfMany, trainMany } from '../train-many.js'
import type { Teller } from '../work.js'
import type { PlannedModel } from './plan.js'

/** Models trained beside each other on one stream. */
const TOGETHER = 8
/** Steps of which the median is the time of a step, after those that warm up. */
const TIMED = { steps: 24, warmUp: 4 }

/** An event of {@link reproduce}. */
export type ReproduceEvent = ProgressEvent | WarningEvent

/** The stores of one plan. */
export interface Stores {
  readonly activations: ActivationStore
  readonly heldOut: ActivationStore
}

/** A model of the plan on one seed. */
export interface Trained {
  readonly planned: PlannedModel
  readonly seed: number
  readonly folder: string
}

/** What a model was worth. */
export interface Measured extends Trained {
  readonly evaluation: Evaluation
}

/** A hash that changes with everything that decides a model: store, preset and every resolved value. */
function hashOf(planned: PlannedModel, seed: number, store: ActivationStore): string {
  const config = configDefaults(planned.preset, { ...planned.fields, seed })
  const key = toJson({ store: store.meta.fingerprint, preset: planned.preset, config })
  return createHash('sha256').update(key).digest('hex').slice(0, 16)
}

/** Whether a run's folder holds the finished model. */
const finished = (folder: string): boolean => existsSync(join(folder, 'model.safetensors'))

/** Trains what is not there yet, the models of a seed beside each other. */
export async function trainAll(
  models: readonly PlannedModel[],
  seeds: readonly number[],
  activations: ActivationStore,
  runs: string,
  { tell, signal }: Teller<ReproduceEvent>,
): Promise<readonly Trained[]> {
  const all = seeds.flatMap((seed) =>
    models.map((planned) => ({
      planned,
      seed,
      folder: join(runs, `${planned.name}-seed${seed}-${hashOf(planned, seed, activations)}`),
    })),
  )
  const missing = all.filter(({ folder }) => !finished(folder))
  const done = new Array<number>(missing.length).fill(0)
  for (let start = 0; start < missing.length; ) {
    const seed = missing[start]?.seed
    const ahead = missing.slice(start, start + TOGETHER)
    const other = ahead.findIndex((run) => run.seed !== seed)
    const group = other === -1 ? ahead : ahead.slice(0, other)
    const options = group.map(
      ({ planned, folder }): OneOfMany => ({
        ...planned.fields,
        preset: planned.preset,
        seed: seed ?? 0,
        out: folder,
        resume: existsSync(join(folder, 'checkpoints')),
      }),
    )
    const run = trainMany({ activations, runs: options }, { signal })
    for await (const event of run) {
      if (event.type === 'step') {
        done[start + event.run] = event.step / event.steps
        const share = done.reduce((sum, part) => sum + part, 0)
        tell({ type: 'progress', stage: 'train', done: Math.floor(share), total: missing.length }, 'train')
      } else if (event.type === 'warning') {
        const message = `${group[event.run]?.planned.title ?? ''}, seed ${seed}: ${event.message}`
        tell({ type: 'warning', code: event.code, message })
      }
    }
    await run
    start += group.length
  }
  return all
}

/** Evaluates every model on the held-out pairs, or takes an evaluation that is there. */
export async function measureAll(
  trained: readonly Trained[],
  heldOut: ActivationStore,
  { tell, signal }: Teller<ReproduceEvent>,
): Promise<readonly Measured[]> {
  const measured: Measured[] = []
  for (const [index, run] of trained.entries()) {
    tell({ type: 'progress', stage: 'evaluate', done: index, total: trained.length }, 'evaluate')
    measured.push({ ...run, evaluation: await measure(run, heldOut, signal) })
  }
  tell({ type: 'progress', stage: 'evaluate', done: trained.length, total: trained.length }, 'evaluate')
  return measured
}

async function measure(run: Trained, heldOut: ActivationStore, signal: AbortSignal): Promise<Evaluation> {
  const out = join(run.folder, `evaluation-${heldOut.meta.fingerprint.slice(0, 16)}`)
  const file = join(out, 'evaluation.json')
  if (existsSync(file)) {
    const kept = JSON.parse(await readFile(file, 'utf8')) as Evaluation
    return kept
  }
  await using model: Model = await loadModel(run.folder)
  return evaluate({ model, activations: heldOut, out }, { signal })
}

/** Median seconds of a step of each model trained alone, with nothing beside it. */
export async function timeSteps(
  models: readonly PlannedModel[],
  activations: ActivationStore,
  { tell, signal }: Teller<ReproduceEvent>,
): Promise<ReadonlyMap<string, number>> {
  const times = new Map<string, number>()
  for (const [index, planned] of models.entries()) {
    tell({ type: 'progress', stage: 'time', done: index, total: models.length }, 'time')
    const folder = await mkdtemp(join(tmpdir(), 'lucid-time-'))
    try {
      const options = { ...planned.fields, preset: planned.preset, steps: TIMED.steps, seed: 0 }
      const seconds: number[] = []
      const run = train({ ...options, activations, out: join(folder, 'run'), checkpointEvery: 0 }, { signal })
      for await (const event of run) {
        if (event.type === 'step' && event.step > TIMED.warmUp) seconds.push(event.secondsStep)
      }
      ;(await run).dispose()
      seconds.sort((a, b) => a - b)
      const median = seconds[Math.floor(seconds.length / 2)]
      if (median !== undefined) times.set(planned.name, median)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }
  return times
}
