/** The numbers that stand in the tables, where they are in an evaluation. */

import type { Evaluation, Grounding, GroundingScore } from '../evaluation.js'
import type { Modality } from '../model.js'
import type { Reading } from './results.js'

/** A number with its place in `evaluation.json`, by which a missing one is explained. */
export interface Named {
  readonly path: string
  readonly read: Reading
}

export const selfR2 = (modality: Modality, block: 'joint' | 'shared' | 'private'): Named => ({
  path: `r2.${modality}.${block}`,
  read: ({ r2 }) => r2?.[modality]?.[block],
})

export const crossR2 = (direction: 't2v' | 'v2t', block: 'shared' | 'joint'): Named => ({
  path: `cross.${direction}.${block}`,
  read: ({ cross }) => cross?.[direction]?.[block],
})

export const crossControl = (direction: 't2v' | 'v2t', control: 'shuffledCaption' | 'uniformPlan'): Named => ({
  path: `cross.${direction}.controls.${control}`,
  read: ({ cross }) => cross?.[direction]?.controls[control],
})

export const leak = (direction: 't2v' | 'v2t'): Named => ({
  path: `deltaLeak.${direction}`,
  read: ({ deltaLeak }) => deltaLeak?.[direction],
})

/** Cross R² above that with another pair's caption: what the caption itself explains. */
export const crossGain = (direction: 't2v' | 'v2t'): Named => ({
  path: `cross.${direction}.controls.shuffledCaption`,
  read: ({ cross }) => minus(cross?.[direction]?.shared, cross?.[direction]?.controls.shuffledCaption),
})

export const maxfreq = (way: 't2i' | 'i2t'): Named => ({ path: `maxfreq.${way}`, read: (e) => e.maxfreq?.[way] })

/** What maxfreq would be if every shared latent fired equally often: L0 / dShared. */
export const evenUse = (modality: Modality, dShared: number): Named => ({
  path: `sparsity.${modality}.l0.shared`,
  read: ({ sparsity }) => {
    const l0 = sparsity?.[modality]?.l0.shared
    return l0 === undefined ? undefined : l0 / dShared
  },
})

export const identityRate: Named = { path: 'truth.identityRate', read: ({ truth }) => truth?.identityRate }
export const identityChance: Named = { path: 'truth.identityChance', read: ({ truth }) => truth?.identityChance }

export const mcc = (modality: Modality): Named => ({
  path: `truth.mcc.${modality}`,
  read: ({ truth }) => truth?.mcc?.[modality],
})

/** Plan mass on a word's own patches, in multiples of that of the uniform plan. */
export const planFocus: Named = {
  path: 'truth.planMass',
  read: ({ truth }) =>
    truth?.planMass === undefined || !truth.planMassUniform ? undefined : truth.planMass / truth.planMassUniform,
}

/** Share of latents, of both blocks and modalities, that fire on no held-out token. */
export const deadShare = (latents: number): Named => ({
  path: 'sparsity.vision.dead',
  read: ({ sparsity }) => {
    if (!sparsity?.vision || !sparsity.text) return undefined
    const of = ({ shared, private: own = 0 }: { shared: number; private?: number }): number => shared + own
    return (of(sparsity.vision.dead) + of(sparsity.text.dead)) / (2 * latents)
  },
})

export const l0 = (modality: Modality): Named => ({
  path: `sparsity.${modality}.l0`,
  read: ({ sparsity }) => {
    const found = sparsity?.[modality]?.l0
    return found && found.shared + (found.private ?? 0)
  },
})

/** A target and the map it is scored with. */
export interface Grounded {
  readonly map: string
  readonly target: string
  /** Against exact masks in place of boxes. */
  readonly masks?: boolean
}

const part = ({ masks }: Grounded): 'grounding' | 'maskGrounding' => (masks ? 'maskGrounding' : 'grounding')

type Which = 'own' | keyof Grounding['controls']

const scoreOf = (evaluation: Evaluation, of: Grounded, which: Which): GroundingScore | undefined => {
  const found = evaluation[part(of)]?.[of.map]?.[of.target]
  return which === 'own' ? found : found?.controls[which]
}

export const grounding = (of: Grounded, metric: keyof GroundingScore, which: Which = 'own'): Named => ({
  path: `${part(of)}.${of.map}.${of.target}`,
  read: (evaluation) => scoreOf(evaluation, of, which)?.[metric],
})

/** A grounding score above that of the same kind of map from another pair's caption. */
export const groundingGain = (of: Grounded, metric: keyof GroundingScore): Named => ({
  path: `${part(of)}.${of.map}.${of.target}.controls.shuffledCaption`,
  read: (evaluation) =>
    minus(scoreOf(evaluation, of, 'own')?.[metric], scoreOf(evaluation, of, 'shuffledCaption')?.[metric]),
})

function minus(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a - b
}
