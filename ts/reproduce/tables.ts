/** The paper's tables, the ladder and the rivals, made from evaluations. */

import type { Modality } from '../model.js'
import { ladder, type PlannedModel, rivals, type Scale, sharedOnly, sizeOf } from './plan.js'
import { LADDER, PUBLISHED_NOTE, RECONSTRUCTION } from './published.js'
import {
  crossControl,
  crossGain,
  crossR2,
  deadShare,
  evenUse,
  type Grounded,
  grounding,
  groundingGain,
  identityChance,
  identityRate,
  l0,
  leak,
  maxfreq,
  mcc,
  type Named,
  planFocus,
  selfR2,
} from './readings.js'
import type { Results } from './results.js'
import { apart, type Summary } from './statistics.js'
import { type Cell, type Column, ours, published, type Row, type Table, words } from './table.js'

/** What tables are made from. */
export interface Material {
  readonly results: Results
  readonly scale: Scale
  readonly seeds: readonly number[]
  /** Lines about the data, for every table. */
  readonly data: string
}

const METRICS = ['massAtObj', 'pointAt1', 'iouAt10'] as const
const METRIC_NAMES = { massAtObj: 'mass@obj', pointAt1: 'point@1', iouAt10: 'IoU@10' } as const
const LAST = 'share-k-gsl-gcmt'

function cell({ results }: Material, model: string, { path, read }: Named): Cell {
  return ours(results.summary(model, read), results.reason(model, path))
}

function notes({ seeds, data }: Material, ...more: readonly string[]): string[] {
  const spread = seeds.length > 1 ? `Mean ± standard deviation over ${seeds.length} seeds of training.` : 'One seed.'
  return [`${data} ${spread}`, ...more]
}

/** A row of Tables 2 and 6: what it reads of the model with r = 1, and of that with r = 0.25. */
type Path = readonly [name: string, single: Named | undefined, split: Named | undefined]

/** The published number at the place of a reading. */
function publishedAt(tree: object, reading: Named | undefined): number | undefined {
  const keys = reading?.path.split('.').slice(1) ?? []
  let node: unknown = tree
  for (const key of keys) node = (node as Readonly<Record<string, unknown>> | undefined)?.[key]
  return typeof node === 'number' ? node : undefined
}

/** Table 2 or 6: R² by code path, all latents shared against a quarter. */
function reconstruction(material: Material, id: string, title: string, paths: readonly Path[]): Table {
  const single = sharedOnly(material.scale).name
  const rows = paths.map(([name, ofSingle, ofSplit]): Row => {
    const direction = /^cross\.(t2v|v2t)/.exec(ofSplit?.path ?? '')?.[1] as 't2v' | 'v2t' | undefined
    const control = (which: 'shuffledCaption' | 'uniformPlan'): Cell =>
      direction === undefined ? words('') : cell(material, LAST, crossControl(direction, which))
    return {
      name,
      cells: [
        ofSingle === undefined ? words('') : cell(material, single, ofSingle),
        published(publishedAt(RECONSTRUCTION.sharedOnly, ofSingle)),
        ofSplit === undefined ? words('') : cell(material, LAST, ofSplit),
        published(publishedAt(RECONSTRUCTION.sharedPrivate, ofSplit)),
        control('shuffledCaption'),
        control('uniformPlan'),
      ],
    }
  })
  const columns: Column[] = [
    { name: 'r = 1' },
    { name: 'r = 1, published' },
    { name: 'r = 0.25' },
    { name: 'r = 0.25, published' },
    { name: "r = 0.25, another pair's caption" },
    { name: 'r = 0.25, uniform plan' },
  ]
  return {
    id,
    title,
    columns,
    rows,
    notes: notes(material, 'The mean predictor has R² 0 in every row.', PUBLISHED_NOTE),
  }
}

/** Table 2: adding private capacity. */
export function table2(material: Material): Table {
  const self = (modality: Modality, name: string): Path[] => [
    [`R² ${name},self`, selfR2(modality, 'joint'), selfR2(modality, 'joint')],
    [`R² ${name},self (shared)`, undefined, selfR2(modality, 'shared')],
    [`R² ${name},self (private)`, undefined, selfR2(modality, 'private')],
  ]
  return reconstruction(material, 'table2', 'Table 2: shared–private decomposition', [
    ...self('vision', 'V'),
    ...self('text', 'T'),
    ['R² T→V,cross (shared)', crossR2('t2v', 'shared'), crossR2('t2v', 'shared')],
    ['R² V→T,cross (shared)', crossR2('v2t', 'shared'), crossR2('v2t', 'shared')],
  ])
}

/** Table 6: every code path. */
export function table6(material: Material): Table {
  const self = (modality: Modality, name: string): Path[] => [
    [`R² ${name},self (full global)`, selfR2(modality, 'joint'), undefined],
    [`R² ${name},self (full joint)`, undefined, selfR2(modality, 'joint')],
    [`R² ${name},self (shared)`, undefined, selfR2(modality, 'shared')],
    [`R² ${name},self (private)`, undefined, selfR2(modality, 'private')],
  ]
  const cross = (direction: 't2v' | 'v2t', name: string): Path[] => [
    [`R² ${name},cross (shared)`, undefined, crossR2(direction, 'shared')],
    [`R² ${name},cross (full global)`, crossR2(direction, 'shared'), undefined],
    [`R² ${name},cross (full joint)`, undefined, crossR2(direction, 'joint')],
  ]
  return reconstruction(material, 'table6', 'Table 6: R² decomposition', [
    ...self('vision', 'V'),
    ...self('text', 'T'),
    ...cross('t2v', 'V'),
    ...cross('v2t', 'T'),
    ['Δ leak T→V', undefined, leak('t2v')],
    ['Δ leak V→T', undefined, leak('v2t')],
  ])
}

/** The targets the evaluations have, the paper's reading first. */
function targets({ results }: Material): string[] {
  const found = new Set(results.of(LAST).flatMap((run) => Object.keys(run.evaluation.grounding?.['plan-max'] ?? {})))
  return ['union', 'largest', 'best', 'category', 'phrase'].filter((target) => found.has(target))
}

/** Table 3 for each target: the ladder's grounding; for phrases (without any, for all boxes) also against exact masks, where they are known. */
export function table3(material: Material): Table[] {
  const found = targets(material)
  const asked = found.length > 0 ? found : ['union']
  const tables = asked.map((target) => groundingTable(material, { map: 'plan-max', target }, target === 'union'))
  const known = material.results
    .of(LAST)
    .flatMap((run) => Object.keys(run.evaluation.maskGrounding?.['plan-max'] ?? {}))
  const masked = ['phrase', 'union'].find((target) => known.includes(target))
  return masked
    ? [...tables, groundingTable(material, { map: 'plan-max', target: masked, masks: true }, false)]
    : tables
}

function groundingTable(material: Material, of: Grounded, isPublished: boolean): Table {
  const columns = METRICS.flatMap((metric): Column[] => {
    const column: Column = { name: METRIC_NAMES[metric], better: 'up' }
    return isPublished ? [column, { name: `${METRIC_NAMES[metric]}, published` }] : [column]
  })
  const line = (name: string, read: (metric: (typeof METRICS)[number]) => Cell, rung?: keyof typeof LADDER): Row => ({
    name,
    ...(rung === undefined ? { control: true } : {}),
    cells: METRICS.flatMap((metric) =>
      isPublished ? [read(metric), published(rung && LADDER[rung][metric])] : [read(metric)],
    ),
  })
  const rungs = ladder(material.scale)
  const rows = [
    ...rungs.map(({ name, title, preset }) =>
      line(title, (metric) => cell(material, name, grounding(of, metric)), preset),
    ),
    ...rungs.map(({ name, title }) =>
      line(`${title}, another pair's caption`, (metric) =>
        cell(material, name, grounding(of, metric, 'shuffledCaption')),
      ),
    ),
    ...(['uniform', 'centre', 'oracle'] as const).map((control) =>
      line(`control: ${control}`, (metric) => cell(material, LAST, grounding(of, metric, control))),
    ),
  ]
  const reading = isPublished
    ? "The paper does not say which boxes; 'union' is the reading its text suggests, and the one a uniform map beats on COCO."
    : `Target '${of.target}'${of.masks ? ', by pixels' : ''}, which the paper does not report.`
  return {
    id: `table3-${of.target}${of.masks ? '-masks' : ''}`,
    title: `Table 3: object-level grounding, ${of.map} against ${of.target}${of.masks ? ', exact masks' : ''}`,
    columns,
    rows,
    notes: notes(material, reading, ...(isPublished ? [PUBLISHED_NOTE] : [])),
  }
}

/** Table 4: degeneracy against grounding. */
export function table4(material: Material): Table {
  const of: Grounded = { map: 'plan-max', target: 'union' }
  const shared = sizeOf(material.scale).dShared
  const rungs = ladder(material.scale).map(
    ({ name, title, preset }): Row => ({
      name: title,
      cells: [
        cell(material, name, maxfreq('t2i')),
        published(LADDER[preset].t2i),
        cell(material, name, maxfreq('i2t')),
        published(LADDER[preset].i2t),
        cell(material, name, grounding(of, 'pointAt1')),
        published(LADDER[preset].pointAt1),
      ],
    }),
  )
  const none = published(undefined)
  return {
    id: 'table4',
    title: 'Table 4: degeneracy against grounding',
    columns: [
      { name: 'maxfreq t2i', better: 'down' },
      { name: 'maxfreq t2i, published' },
      { name: 'maxfreq i2t', better: 'down' },
      { name: 'maxfreq i2t, published' },
      { name: 'point@1 (union)', better: 'up' },
      { name: 'point@1, published' },
    ],
    rows: [
      ...rungs,
      {
        name: 'control: every shared latent equally often',
        control: true,
        cells: [
          cell(material, LAST, evenUse('text', shared)),
          none,
          cell(material, LAST, evenUse('vision', shared)),
          none,
          cell(material, LAST, grounding(of, 'pointAt1', 'uniform')),
          none,
        ],
      },
    ],
    notes: notes(
      material,
      'maxfreq is the largest share of tokens (t2i: text, i2t: patches) on which one shared latent fires; the paper leaves the set it is taken over open.',
      PUBLISHED_NOTE,
    ),
  }
}

const LADDER_READINGS: readonly [Column, Named][] = [
  [{ name: 'identity rate', better: 'up' }, identityRate],
  [{ name: 'by chance' }, identityChance],
  [{ name: 'cross R² T→V', better: 'up' }, crossR2('t2v', 'shared')],
  [{ name: 'above another caption', better: 'up' }, crossGain('t2v')],
  [{ name: 'cross R² V→T', better: 'up' }, crossR2('v2t', 'shared')],
  [{ name: 'above another caption', better: 'up' }, crossGain('v2t')],
  [
    { name: 'phrase mass@obj above another caption', better: 'up' },
    groundingGain({ map: 'plan-max', target: 'phrase' }, 'massAtObj'),
  ],
  [
    { name: 'phrase point@1 above another caption', better: 'up' },
    groundingGain({ map: 'plan-max', target: 'phrase' }, 'pointAt1'),
  ],
  [{ name: 'plan mass / uniform', better: 'up' }, planFocus],
  [{ name: 'maxfreq t2i', better: 'down' }, maxfreq('t2i')],
  [{ name: 'maxfreq i2t', better: 'down' }, maxfreq('i2t')],
]

/** What each rung of the ladder is worth by the measures the paper does not use, and what each step brings. */
export function ladderTables(material: Material): Table[] {
  const rungs = ladder(material.scale)
  const levels: Table = {
    id: 'ladder',
    title: 'The ladder, judged with controls',
    columns: LADDER_READINGS.map(([column]) => column),
    rows: rungs.map(({ name, title }) => ({
      name: title,
      cells: LADDER_READINGS.map(([, reading]) => cell(material, name, reading)),
    })),
    notes: notes(material, 'Every rung starts at random.'),
  }
  const judged = LADDER_READINGS.filter(([column]) => column.better !== undefined)
  const steps = rungs.slice(1).map((rung, index): Row => {
    const before = rungs[index] as PlannedModel
    return {
      name: `${rung.title} − ${before.title}`,
      cells: judged.map(([, { read, path }]) =>
        difference(material.results.difference(rung.name, before.name, read), material.results.reason(rung.name, path)),
      ),
    }
  })
  return [
    levels,
    {
      id: 'ladder-steps',
      title: 'What each step of the ladder brings',
      columns: judged.map(([{ name }]) => ({ name })),
      rows: steps,
      notes: notes(material, DIFFERENCE_NOTE),
    },
  ]
}

const DIFFERENCE_NOTE =
  "Differences seed by seed with the 95 % interval of their mean (Student's t); ● where it leaves zero out, ○ where it does not."

const signed = (value: number): string => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(3)}`

function difference(found: Summary | undefined, reason: string): Cell {
  if (found === undefined) return { kind: 'absent', reason }
  const { mean, interval } = found
  if (interval === undefined) return words(signed(mean))
  return words(`${apart(found) ? '●' : '○'} ${signed(mean)} (${signed(interval[0])} … ${signed(interval[1])})`)
}

const PHRASE: Grounded = { map: 'plan-max', target: 'phrase' }

/** Every method in one harness, and how far LUCID is from each. */
export function rivalTables(material: Material, times: ReadonlyMap<string, number>): Table[] {
  const models = rivals(material.scale).filter(({ name }) => material.results.of(name).length > 0)
  const { dShared, dPrivate } = sizeOf(material.scale)
  const readings: [Column, Named][] = [
    [{ name: 'self R² V', better: 'up' }, selfR2('vision', 'joint')],
    [{ name: 'self R² T', better: 'up' }, selfR2('text', 'joint')],
    [{ name: 'cross R² T→V', better: 'up' }, crossR2('t2v', 'shared')],
    [{ name: 'cross R² V→T', better: 'up' }, crossR2('v2t', 'shared')],
    [{ name: 'identity rate', better: 'up' }, identityRate],
    [{ name: 'by chance' }, identityChance],
    [{ name: 'MCC V', better: 'up' }, mcc('vision')],
    [{ name: 'MCC T', better: 'up' }, mcc('text')],
    [{ name: 'phrase point@1', better: 'up' }, grounding(PHRASE, 'pointAt1')],
    [{ name: 'above another caption', better: 'up' }, groundingGain(PHRASE, 'pointAt1')],
    [{ name: 'maxfreq t2i', better: 'down' }, maxfreq('t2i')],
    [{ name: 'dead', better: 'down' }, deadShare(dShared + dPrivate)],
    [{ name: 'L0 V' }, l0('vision')],
    [{ name: 'L0 T' }, l0('text')],
  ]
  const rows = models.map(({ name, title, untrained }): Row => {
    const seconds = times.get(name)
    const floor = untrained || name === 'pca' || name === 'random-dictionary'
    return {
      name: title,
      ...(floor ? { control: true } : {}),
      cells: [
        ...readings.map(([, reading]) => cell(material, name, reading)),
        seconds === undefined ? { kind: 'absent', reason: 'ms a step: not timed' } : words((1000 * seconds).toFixed(0)),
      ],
    }
  })
  const judged = readings.filter(([{ better }]) => better !== undefined)
  const apartRows = models.slice(1).map(({ name, title }): Row => {
    // From the same start where there is a choice.
    const lucid = name === 'separate-same-start' || name === 'lucid-untrained' ? 'lucid' : LAST
    return {
      name: `LUCID${lucid === LAST ? ' (random start)' : ''} − ${title}`,
      cells: judged.map(([, { read, path }]) =>
        difference(material.results.difference(lucid, name, read), material.results.reason(name, path)),
      ),
    }
  })
  const isLast = (row: Row): boolean => row.name.endsWith('− LUCID, random start')
  return [
    {
      id: 'rivals',
      title: 'Methods beside each other',
      columns: [...readings.map(([column]) => column), { name: 'ms a step' }],
      rows,
      notes: notes(
        material,
        "Equal latents, equal steps, and the same k unless L0 says otherwise. docs/rivals.md says what each method is and where it differs from its authors' code.",
      ),
    },
    {
      id: 'rivals-difference',
      title: 'How far LUCID is from each',
      columns: judged.map(([{ name }]) => ({ name })),
      rows: apartRows.filter((row) => !isLast(row)),
      notes: notes(material, DIFFERENCE_NOTE),
    },
  ]
}
