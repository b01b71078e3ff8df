import type { Evaluation } from '../evaluation.js'
import { bestOf } from '../report/numbers.js'
import { number, table } from './output.js'

/** The main numbers beside their controls, as lines of a table. `baseline` is that of separate autoencoders. */
export function scoreLines(evaluation: Evaluation, baseline?: Evaluation): string[] {
  const rows: string[][] = []
  const add = (name: string, value: number | undefined, controls: string[]): void => {
    if (value !== undefined) rows.push([name, number(value), controls.filter((text) => text !== '').join(', ')])
  }
  const control = (name: string, value: number | undefined): string =>
    value === undefined ? '' : `${name} ${number(value)}`
  for (const modality of ['vision', 'text'] as const) {
    const r2 = evaluation.r2?.[modality]
    add(`R² ${modality}, joint code`, r2?.joint, [
      control('shared', r2?.shared),
      control('private', r2?.private),
      control('separate', baseline?.r2?.[modality]?.joint),
    ])
  }
  for (const [direction, name] of [
    ['t2v', 'cross R² text → vision'],
    ['v2t', 'cross R² vision → text'],
  ] as const) {
    const cross = evaluation.cross?.[direction]
    add(name, cross?.shared, [
      control('shuffled captions', cross?.controls.shuffledCaption),
      control('uniform plan', cross?.controls.uniformPlan),
      control('ridge from states', cross?.ceiling && bestOf(cross.ceiling)),
      control('separate', baseline?.cross?.[direction]?.shared),
    ])
  }
  const truth = evaluation.truth
  add('identity rate', truth?.identityRate, [
    control('chance', truth?.identityChance),
    control('separate', baseline?.truth?.identityRate),
  ])
  add('plan mass on the right patches', truth?.planMass, [
    control('uniform', truth?.planMassUniform),
    control('separate', baseline?.truth?.planMass),
  ])
  for (const [kind, recovery] of Object.entries(truth?.kinds ?? {})) {
    add(`  plan mass, ${kind} words`, recovery.planMass, [
      control('uniform', recovery.planMassUniform),
      control('separate', baseline?.truth?.kinds?.[kind]?.planMass),
    ])
  }
  for (const [map, targets] of Object.entries(evaluation.grounding ?? {})) {
    for (const [target, score] of Object.entries(targets)) {
      if (map !== 'plan-max' || !['phrase', 'union'].includes(target)) continue
      add(`mass@obj, ${map}, ${target}`, score.massAtObj, [
        control('uniform', score.controls.uniform.massAtObj),
        control('shuffled captions', score.controls.shuffledCaption?.massAtObj),
        control('oracle', score.controls.oracle.massAtObj),
      ])
    }
  }
  add('maxfreq t2i', evaluation.maxfreq?.t2i, [control('i2t', evaluation.maxfreq?.i2t)])
  return rows.length === 0 ? [] : leftAligned([['', 'value', 'controls'], ...rows])
}

function leftAligned(rows: string[][]): string[] {
  const lines = table(rows.map(([name = '', value = '']) => [name, value]))
  return lines.map((line, i) => `${line}   ${rows[i]?.[2] ?? ''}`.trimEnd())
}
