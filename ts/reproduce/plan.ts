/** Which models the tables need: each a preset and what it differs in. */

import type { Config, Preset } from '../config.js'
import type { Rung } from './published.js'

/** A model to train, on every seed. */
export interface PlannedModel {
  /** Name in files and JSON. */
  readonly name: string
  /** Name in the tables. */
  readonly title: string
  readonly preset: Preset
  readonly fields: Partial<Config>
  /** Trained and measured on the states of the untrained backbone. */
  readonly untrained?: true
}

/** What can be asked for. */
export const questions = ['table2', 'table3', 'table4', 'table5', 'table6', 'ladder', 'rivals'] as const

/** A table, the whole ladder, or the rivals. */
export type Question = (typeof questions)[number]

/** How large the models are and how long they are trained. */
export type Scale = 'demo' | 'paper'

/** Shape and budget of every model of a scale, in its shared-and-private form. */
interface Size {
  readonly dShared: number
  readonly dPrivate: number
  readonly kShared: number
  readonly kPrivate: number
  readonly training: Partial<Config>
  /** The model this project recommends at this scale, and its start. */
  readonly recommended: Partial<Config>
}

/**
 * `demo`: a quarter of the latents shared and a third of the entries, as in the paper, and a budget of minutes. `paper`: the
 * paper's sizes and 200 epochs.
 */
const SIZES: Readonly<Record<Scale, Size>> = {
  demo: {
    dShared: 104,
    dPrivate: 312,
    kShared: 7,
    kPrivate: 13,
    training: { batchPairs: 32, lr: 3e-3, steps: 400 },
    // What docs/experiments.md found for the embedded scenes.
    recommended: { initialise: 'coactivation', beta: 0.05, gamma: 1, epsilon: 0.05 },
  },
  paper: { dShared: 1536, dPrivate: 4608, kShared: 16, kPrivate: 32, training: {}, recommended: {} },
}

/** Shape and budget of a scale. */
export function sizeOf(scale: Scale): Size {
  return SIZES[scale]
}

/** The rungs of Tables 3 and 4, from a random start. */
const RUNGS: readonly { rung: Rung; title: string }[] = [
  { rung: 'ot-only', title: 'OT only' },
  { rung: 'share-k', title: 'Share k' },
  { rung: 'share-k-gsl', title: 'Share k + GSL' },
  { rung: 'share-k-gsl-gcmt', title: 'Share k + GSL + GCMT' },
]

/** The ladder; its last rung is also the model with private latents of Tables 2 and 6. */
export function ladder(scale: Scale): readonly (PlannedModel & { preset: Rung })[] {
  const { training, recommended: _, ...shape } = sizeOf(scale)
  return RUNGS.map(({ rung, title }) => ({
    name: rung,
    title,
    preset: rung,
    fields: { ...shape, ...training },
  }))
}

/** r = 1: the same latents and entries, all of them shared, one Top-k over all. */
export function sharedOnly(scale: Scale): PlannedModel {
  const { dShared, dPrivate, kShared, kPrivate, training } = sizeOf(scale)
  return {
    name: 'shared-only',
    title: 'Shared only (r = 1)',
    preset: 'share-k-gsl-gcmt',
    fields: {
      ...training,
      topk: 'global',
      dShared: dShared + dPrivate,
      dPrivate: 0,
      kShared: kShared + kPrivate,
      kPrivate: 0,
    },
  }
}

/** The model this project recommends, from its own start. */
export function recommended(scale: Scale): PlannedModel {
  const { training, recommended: fields, ...shape } = sizeOf(scale)
  return { name: 'lucid', title: 'LUCID', preset: 'default', fields: { ...shape, ...training, ...fields } }
}

/**
 * The methods of the comparison: equal latents, equal entries, equal steps. Rivals have one block, as large as both of LUCID's, and start at
 * random, as one row of LUCID does; separate autoencoders also stand beside LUCID from its own start.
 */
export function rivals(scale: Scale): readonly PlannedModel[] {
  const { training, recommended: _, ...shape } = sizeOf(scale)
  const lucid = recommended(scale)
  const one = {
    ...training,
    dShared: shape.dShared + shape.dPrivate,
    dPrivate: 0,
    kShared: shape.kShared + shape.kPrivate,
    kPrivate: 0,
  }
  // Floors are not trained.
  const floor = { ...one, steps: 1, lr: 0 }
  const rival = (preset: Preset, title: string, fields: Partial<Config> = one): PlannedModel => ({
    name: preset,
    title,
    preset,
    fields,
  })
  return [
    lucid,
    {
      name: 'separate-same-start',
      title: 'Separate, the start of LUCID',
      preset: 'default',
      fields: { ...lucid.fields, method: 'separate' },
    },
    rival('share-k-gsl-gcmt', 'LUCID, random start', { ...shape, ...training }),
    rival('separate', 'Separate, Top-k'),
    rival('separate-batch-topk', 'Separate, BatchTopK'),
    rival('separate-matryoshka', 'Separate, Matryoshka BatchTopK'),
    rival('separate-jump-relu', 'Separate, JumpReLU'),
    rival('sparc', 'SPARC'),
    rival('usae', 'USAE'),
    rival('pooled-concat', 'Pooled concatenation'),
    rival('vl-sae', 'VL-SAE'),
    rival('pca', 'PCA', floor),
    rival('random-dictionary', 'Random dictionary', floor),
    { ...lucid, name: 'lucid-untrained', title: 'LUCID, untrained backbone', untrained: true },
  ]
}

/** Every model the questions need, once each. */
export function modelsFor(asked: ReadonlySet<Question>, scale: Scale): readonly PlannedModel[] {
  const rungs = ladder(scale)
  const last = rungs.at(-1)
  const needed = [
    ...(['table3', 'table4', 'ladder'].some((name) => asked.has(name as Question)) ? rungs : []),
    ...(asked.has('table2') || asked.has('table6') ? [sharedOnly(scale), ...(last ? [last] : [])] : []),
    ...(asked.has('table5') ? [recommended(scale)] : []),
    ...(asked.has('rivals') ? rivals(scale) : []),
  ]
  return [...new Map(needed.map((model) => [model.name, model])).values()]
}
