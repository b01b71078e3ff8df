/** The paper's tables for any pair of stores, beside controls and rivals. */

import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { LucidError, optionError } from '../errors.js'
import { extract } from '../extract.js'
import { type ConceptInput, interpret } from '../interpret.js'
import { type Control, checkOptions, unknownName } from '../options.js'
import { splitStore } from '../split.js'
import { type ActivationStore, openStoreNow, storePath } from '../store.js'
import { type Teller, Work } from '../work.js'
import { table5 } from './meanings.js'
import { modelsFor, type PlannedModel, type Question, questions, recommended, type Scale } from './plan.js'
import { Results } from './results.js'
import { type Measured, measureAll, type ReproduceEvent, type Stores, timeSteps, trainAll } from './runs.js'
import { latex, markdown, type Table } from './table.js'
import { ladderTables, type Material, rivalTables, table2, table3, table4, table6 } from './tables.js'

export type { Question, Scale } from './plan.js'
export type { ReproduceEvent } from './runs.js'
export type { Summary } from './statistics.js'
export type { Cell, Column, Row, Table } from './table.js'

/** Options of {@link reproduce}. */
export interface ReproduceOptions {
  /** What to print: `'table2'` … `'table6'`, `'ladder'`, `'rivals'`, or `'all'` of them. Default `['all']`. */
  tables?: readonly (Question | 'all')[]
  /** The store to train on, or its folder. Scenes rendered for the purpose where absent. */
  activations?: string | ActivationStore
  /** The store to measure on. A fifth of `activations`, chosen by a hash of the keys, where absent. */
  heldOut?: string | ActivationStore
  /** Seeds of training, 0 … `seeds` − 1. Default 5. */
  seeds?: number
  /** `'demo'` (416 latents, 400 steps; default) or `'paper'` (6,144 latents, 200 epochs). */
  presetScale?: Scale
  /** Steps of each run instead of the scale's. */
  steps?: number
  /** Concepts for Table 5, as `interpret` takes them. */
  concepts?: readonly ConceptInput[] | string
  /** The backbone that encodes the concepts of Table 5. Default `'mini'`. */
  backbone?: string
  /** Folder of stores, runs and tables. Default `'runs/reproduce'`. */
  out?: string
}

/** @internal Names for checks and the command line. */
export const reproduceOptionNames = [
  'tables',
  'activations',
  'heldOut',
  'seeds',
  'presetScale',
  'steps',
  'concepts',
  'backbone',
  'out',
] as const

/** What {@link reproduce} found. */
export interface Reproduction {
  readonly tables: readonly Table[]
  readonly markdown: string
  readonly latex: string
  /** Folder with `tables.md`, `tables.tex` and `tables.json`. */
  readonly out: string
}

/** Where a word's state is still that word's (docs/experiments.md). */
const LAYERS = ['vision.post_ln', 'text.block:0']
const SCENES = { train: { pairs: 1200, seed: 1 }, heldOut: { pairs: 300, seed: 2 } }
/** Of all peak scores on scenes, this share is no hit: a scene shows about a quarter of the concepts. */
const QUANTILE = 0.7

/**
 * Trains what the asked tables need, measures it on held-out pairs, and makes the tables: our mean ± standard deviation over seeds, the
 * controls, and the published numbers in columns of their own. Models of an earlier call with the same stores and configuration
 * are used again; the models of a seed are trained on one stream of activations.
 *
 * @example
 * ```ts
 * import { reproduce } from 'lucid-sae'
 *
 * const { markdown } = await reproduce({ tables: ['table4'], activations: 'acts', seeds: 2, steps: 20, out: 'runs/tables' })
 * console.log(markdown)
 * ```
 */
export function reproduce(options: ReproduceOptions = {}, control: Control = {}): Work<Reproduction, ReproduceEvent> {
  return new Work(async (teller) => {
    const checked = checkOptions('reproduce', options, reproduceOptionNames)
    const asked = questionsOf(checked.tables ?? ['all'])
    const scale = checked.presetScale ?? 'demo'
    if (scale !== 'demo' && scale !== 'paper') throw unknownName('presetScale', String(scale), ['demo', 'paper'])
    const count = checked.seeds ?? 5
    if (!Number.isInteger(count) || count < 1 || count > 1000) throw optionError('seeds', count, 'from 1 to 1000')
    const { steps } = checked
    if (steps !== undefined && (!Number.isInteger(steps) || steps < 1)) throw optionError('steps', steps, 'at least 1')
    const out = resolve(checked.out ?? 'runs/reproduce')
    await mkdir(out, { recursive: true })
    const seeds = Array.from({ length: count }, (_, seed) => seed)
    const stores = await storesOf(checked, out, teller)
    const models = modelsFor(asked, scale).map((model) =>
      steps === undefined || isFloor(model) ? model : { ...model, fields: { ...model.fields, steps } },
    )
    const measured = await measuredModels(models, seeds, stores, out, checked, teller)
    const material: Material = { results: new Results(measured), scale, seeds, data: dataLine(stores) }
    const times = asked.has('rivals')
      ? await timeSteps(
          models.filter((model) => inRivals(model) && !isFloor(model)),
          stores.activations,
          teller,
        )
      : new Map<string, number>()
    const tables = [
      ...(asked.has('table2') ? [table2(material)] : []),
      ...(asked.has('table3') ? table3(material) : []),
      ...(asked.has('table4') ? [table4(material)] : []),
      ...(asked.has('table5') ? [await meanings(material, measured, stores, checked, scale, teller)] : []),
      ...(asked.has('table6') ? [table6(material)] : []),
      ...(asked.has('ladder') ? ladderTables(material) : []),
      ...(asked.has('rivals') ? rivalTables(material, times) : []),
    ]
    return publish(tables, out)
  }, control)
}

function questionsOf(tables: readonly string[]): ReadonlySet<Question> {
  if (!Array.isArray(tables) || tables.length === 0) throw optionError('tables', tables, 'a list of tables')
  const known: readonly string[] = questions
  const asked = new Set<Question>()
  for (const name of tables) {
    if (name === 'all') for (const question of questions) asked.add(question)
    else if (known.includes(name)) asked.add(name as Question)
    else throw unknownName('table', name, [...questions, 'all'])
  }
  return asked
}

/** What is not trained has no steps to change, and no time of one. */
const isFloor = ({ preset }: PlannedModel): boolean => preset === 'pca' || preset === 'random-dictionary'

const inRivals = ({ name, untrained }: PlannedModel): boolean =>
  !untrained && name !== 'shared-only' && !['ot-only', 'share-k', 'share-k-gsl'].includes(name)

/** The stores given, or those of the embedded scenes. */
async function storesOf(options: ReproduceOptions, out: string, teller: Teller<ReproduceEvent>): Promise<Stores> {
  const { activations, heldOut } = options
  if (activations === undefined) {
    if (heldOut !== undefined) throw optionError('heldOut', heldOut, 'to be absent without activations')
    return {
      activations: await scenes(join(out, 'scenes'), SCENES.train, undefined, teller),
      heldOut: await scenes(join(out, 'scenes-held-out'), SCENES.heldOut, undefined, teller),
    }
  }
  const store = openStoreNow(storePath('activations', activations))
  if (heldOut !== undefined) {
    const other = openStoreNow(storePath('heldOut', heldOut))
    if (other.dVision !== store.dVision || other.dText !== store.dText) {
      throw new LucidError('E_SHAPE', 'the held-out store is of another width than the store to train on', {
        details: {
          option: 'heldOut',
          found: [other.dVision, other.dText],
          expected: [store.dVision, store.dText],
        },
        hint: 'extract both with the same backbone and layers',
      })
    }
    return { activations: store, heldOut: other }
  }
  const folder = join(out, `split-${store.meta.fingerprint.slice(0, 16)}`)
  const [rest, held] = [join(folder, 'rest'), join(folder, 'held-out')]
  const known = opened(held)
  if (known) return { activations: openStoreNow(rest), heldOut: known }
  await mkdir(folder, { recursive: true })
  const halves = await splitStore(
    { activations: store, rest, heldOut: held, overwrite: true },
    { signal: teller.signal },
  )
  return { activations: halves.rest, heldOut: halves.heldOut }
}

/** The store at `path`, if a complete one is there. */
function opened(path: string): ActivationStore | undefined {
  try {
    return openStoreNow(path)
  } catch (error) {
    if (error instanceof LucidError) return undefined
    throw error
  }
}

async function scenes(
  path: string,
  { pairs, seed }: { pairs: number; seed: number },
  untrained: number | undefined,
  { tell, signal }: Teller<ReproduceEvent>,
): Promise<ActivationStore> {
  const known = opened(path)
  if (known) return known
  const run = extract(
    {
      dataset: { scenes: { pairs, seed } },
      layers: LAYERS,
      out: path,
      resume: true,
      ...(untrained === undefined ? {} : { untrained }),
    },
    { signal },
  )
  for await (const event of run) if (event.type === 'progress') tell(event, event.stage)
  return run
}

/** Every model of the plan, trained and measured; those of the untrained backbone on its own states. */
async function measuredModels(
  models: readonly PlannedModel[],
  seeds: readonly number[],
  stores: Stores,
  out: string,
  options: ReproduceOptions,
  teller: Teller<ReproduceEvent>,
): Promise<readonly Measured[]> {
  const runs = join(out, 'models')
  const trained = models.filter(({ untrained }) => !untrained)
  const measured = [
    ...(await measureAll(await trainAll(trained, seeds, stores.activations, runs, teller), stores.heldOut, teller)),
  ]
  const floors = models.filter(({ untrained }) => untrained)
  // The untrained twin of a backbone is known for the scenes rendered here; stores that were given come with their own states.
  if (floors.length > 0 && options.activations === undefined) {
    const twin: Stores = {
      activations: await scenes(join(out, 'scenes-untrained'), SCENES.train, 0, teller),
      heldOut: await scenes(join(out, 'scenes-held-out-untrained'), SCENES.heldOut, 0, teller),
    }
    const run = await trainAll(floors, seeds, twin.activations, runs, teller)
    measured.push(...(await measureAll(run, twin.heldOut, teller)))
  }
  return measured
}

/** Table 5 from the recommended model of the first seed. */
async function meanings(
  material: Material,
  measured: readonly Measured[],
  stores: Stores,
  options: ReproduceOptions,
  scale: Scale,
  { tell, signal }: Teller<ReproduceEvent>,
): Promise<Table> {
  const name = recommended(scale).name
  const run = measured.find(({ planned, seed }) => planned.name === name && seed === 0)
  if (!run) throw new LucidError('E_INTERNAL', 'the model of Table 5 was not trained', { hint: 'report this' })
  const work = interpret(
    {
      model: run.folder,
      backbone: options.backbone ?? 'mini',
      activations: stores.activations,
      concepts: options.concepts ?? 'default',
      ...(options.activations === undefined ? { quantile: QUANTILE } : {}),
    },
    { signal },
  )
  for await (const event of work) if (event.type === 'progress') tell(event, event.stage)
  const atlas = await work
  try {
    const { evaluation } = run
    return table5(material, atlas, evaluation.truth === undefined ? undefined : atlas.scoreLabels(evaluation))
  } finally {
    atlas.dispose()
  }
}

/** What the numbers were measured on, in a sentence. */
function dataLine({ activations, heldOut }: Stores): string {
  const { provenance } = activations.meta
  const backbone = (provenance?.backbone as { id?: unknown } | undefined)?.id
  const of = typeof backbone === 'string' ? `states of '${backbone}'` : 'imported states'
  const dataset = (provenance?.dataset ?? (provenance?.split as { dataset?: unknown } | undefined)?.dataset) as
    | Record<string, unknown>
    | undefined
  const kind = dataset ? Object.keys(dataset)[0] : undefined
  return `Trained on ${activations.pairs} and measured on ${heldOut.pairs} held-out pairs${kind === undefined ? '' : ` of ${kind}`}, ${of}.`
}

/** Writes the tables in three forms, each complete or not at all. */
async function publish(tables: readonly Table[], out: string): Promise<Reproduction> {
  const forms = { markdown: tables.map(markdown).join('\n'), latex: tables.map(latex).join('\n') }
  const write = async (name: string, content: string): Promise<void> => {
    const work = join(out, `.${name}.part`)
    await writeFile(work, content)
    await rename(work, join(out, name))
  }
  await write('tables.md', forms.markdown)
  await write('tables.tex', forms.latex)
  await write('tables.json', `${JSON.stringify({ format: 'lucid-tables', formatVersion: 1, tables }, null, 2)}\n`)
  return { tables, ...forms, out }
}
