/** The overview's table: which numbers of an evaluation are shown, beside which controls, and what they say. */

import type { Ceiling, CrossScore, Evaluation } from '../evaluation.js'
import type { ReportNumber } from './schema.js'

type Control = [name: string, value: number | undefined]

function row(
  name: string,
  value: number | undefined,
  controls: Control[],
  meaning: string,
  interval?: [number, number],
): ReportNumber[] {
  if (value === undefined) return []
  const known = controls.flatMap(([control, number]) =>
    number === undefined ? [] : [{ name: control, value: number }],
  )
  return [{ name, value, ...(interval ? { interval } : {}), controls: known, meaning }]
}

function crossRow(
  name: string,
  meaning: string,
  cross: CrossScore | undefined,
  baseline: CrossScore | undefined,
  interval: [number, number] | undefined,
): ReportNumber[] {
  const controls: Control[] = [
    ['with another pair’s caption', cross?.controls.shuffledCaption],
    ['under a uniform plan', cross?.controls.uniformPlan],
    ['mean predictor', cross?.controls.mean],
    ['a linear map from the states', cross?.ceiling && bestOf(cross.ceiling)],
    ['separate autoencoders', baseline?.shared],
  ]
  return row(name, cross?.shared, controls, meaning, interval)
}

/** The largest R² that the ridge maps reach. */
export function bestOf(ceiling: Ceiling): number {
  return Math.max(ceiling.pooled, ceiling.matched, ceiling.both)
}

/** The rows for an evaluation; `baseline` is that of separate autoencoders from the same start. */
export function reportNumbers(evaluation: Evaluation, baseline?: Evaluation): ReportNumber[] {
  const { r2, cross, truth, grounding, structure, intervals } = evaluation
  const self = (modality: 'vision' | 'text', subject: string): ReportNumber[] =>
    row(
      `R² of ${subject}`,
      r2?.[modality]?.joint,
      [
        ['shared latents alone', r2?.[modality]?.shared],
        ['private latents alone', r2?.[modality]?.private],
        ['mean predictor', 0],
      ],
      `Share of the variance of ${subject} that their own sparse code explains; 1 is all of it.`,
      intervals?.[`r2.${modality}.joint`],
    )
  const phrase = grounding?.['plan-max']?.phrase
  const masked = evaluation.maskGrounding?.['plan-max']
  const mask = masked?.phrase ?? masked?.union
  const union = grounding?.['plan-max']?.union
  const ground = phrase ?? union
  const kinds = Object.entries(truth?.kinds ?? {}).flatMap(([kind, recovery]) =>
    row(
      `plan mass of ${kind} words`,
      recovery.planMass,
      [
        ['uniform plan', recovery.planMassUniform],
        ['separate autoencoders', baseline?.truth?.kinds?.[kind]?.planMass],
      ],
      `Share of a ${kind} word’s transport mass that lies on the patches it speaks of.`,
      intervals?.[`truth.kinds.${kind}.planMass`],
    ),
  )
  return [
    ...self('vision', 'patches'),
    ...self('text', 'tokens'),
    ...crossRow(
      'cross R², text → patches',
      'Variance of patches explained by the codes of the matched words alone. The gap to another caption is what alignment adds.',
      cross?.t2v,
      baseline?.cross?.t2v,
      intervals?.['cross.t2v.shared'],
    ),
    ...crossRow(
      'cross R², patches → text',
      'Variance of tokens explained by the codes of the matched patches alone.',
      cross?.v2t,
      baseline?.cross?.v2t,
      intervals?.['cross.v2t.shared'],
    ),
    ...row(
      'identity rate',
      truth?.identityRate,
      [
        ['by chance', truth?.identityChance],
        ['separate autoencoders', baseline?.truth?.identityRate],
      ],
      'Share of known concepts whose best latent is the same in pictures and in words.',
      intervals?.['truth.identityRate'],
    ),
    ...row(
      'recovered concepts, patches',
      truth?.mcc?.vision,
      [
        ['tokens', truth?.mcc?.text],
        ['separate autoencoders', baseline?.truth?.mcc?.vision],
      ],
      'Mean correlation of the known concepts with latents of their own, one for each.',
      intervals?.['truth.mcc.vision'],
    ),
    ...row(
      'transport accuracy',
      truth?.transportAccuracy,
      [
        ['random patch', truth?.transportAccuracyUniform],
        ['separate autoencoders', baseline?.truth?.transportAccuracy],
      ],
      'Share of words whose heaviest patch is one they speak of.',
      intervals?.['truth.transportAccuracy'],
    ),
    ...kinds,
    ...row(
      `heat on the object (${phrase ? 'phrases' : 'all boxes'})`,
      ground?.massAtObj,
      [
        ['uniform heat', ground?.controls.uniform.massAtObj],
        ['centre of the picture', ground?.controls.centre.massAtObj],
        ['with another pair’s caption', ground?.controls.shuffledCaption?.massAtObj],
        ['best possible', ground?.controls.oracle.massAtObj],
      ],
      'Share of the caption’s heat inside the boxes of what it names.',
      intervals?.[`grounding.plan-max.${phrase ? 'phrase' : 'union'}.massAtObj`],
    ),
    ...row(
      `heat on the object’s very pixels (${masked?.phrase ? 'phrases' : 'all masks'})`,
      mask?.massAtObj,
      [
        ['uniform heat', mask?.controls.uniform.massAtObj],
        ['with another pair’s caption', mask?.controls.shuffledCaption?.massAtObj],
        ['best possible', mask?.controls.oracle.massAtObj],
      ],
      'The same against the exact masks of what the boxes enclose.',
      intervals?.[`maskGrounding.plan-max.${masked?.phrase ? 'phrase' : 'union'}.massAtObj`],
    ),
    ...row(
      'the right picture first, of its caption',
      structure?.retrieval.t2i.at1,
      [
        ['by chance', structure?.retrieval.chance.at1],
        ['the right caption, of its picture', structure?.retrieval.i2t.at1],
        ['separate autoencoders', baseline?.structure?.retrieval.t2i.at1],
      ],
      'Share of captions whose own picture has the nearest shared code, among all pictures of the set.',
      intervals?.['structure.retrieval.t2i.at1'],
    ),
    ...row(
      'hubness of pictures',
      structure?.hubness.t2i,
      [
        ['neighbours drawn at random', structure?.hubness.random],
        ['of captions', structure?.hubness.i2t],
        ['separate autoencoders', baseline?.structure?.hubness.t2i],
      ],
      'Skewness of how often a picture is among the ten nearest of a caption; large where a few pictures are near to everything.',
      intervals?.['structure.hubness.t2i'],
    ),
    ...row(
      'bridge score, mean over latents',
      structure?.bridge?.mean,
      [
        ['halves of different pairs', structure?.bridge?.shuffled],
        ['separate autoencoders', baseline?.structure?.bridge?.mean],
      ],
      'Cosine over pairs of a latent’s activations in picture and caption; 1 where it fires alike in both.',
      intervals?.['structure.bridge.mean'],
    ),
    ...row(
      'monosemanticity, mean over latents',
      structure?.monosemanticity?.mean,
      [
        ['activations of other pictures', structure?.monosemanticity?.shuffled],
        ['separate autoencoders', baseline?.structure?.monosemanticity?.mean],
      ],
      'How alike the pictures are that fire a latent.',
      intervals?.['structure.monosemanticity.mean'],
    ),
    ...row(
      'largest firing frequency, tokens',
      evaluation.maxfreq?.t2i,
      [['patches', evaluation.maxfreq?.i2t]],
      'How often the busiest shared latent fires; near 1 means that one latent has swallowed the rest.',
      intervals?.['maxfreq.t2i'],
    ),
  ]
}
