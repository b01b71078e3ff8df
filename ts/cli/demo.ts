import { existsSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { LucidError, optionError } from '../errors.js'
import { evaluate } from '../evaluate.js'
import type { Evaluation, LabelScore } from '../evaluation.js'
import { extract } from '../extract.js'
import { type Atlas, interpret } from '../interpret.js'
import { bestOf } from '../report/numbers.js'
import { type TrainOptions, train } from '../train.js'
import { action } from './commands.js'
import { addCommonOptions, toInteger } from './options.js'
import { number, type Output, table } from './output.js'
import { scoreLines } from './scores.js'
import { follow } from './work.js'

/** Sizes of the demo. */
const FULL = { pairs: 1200, heldOut: 300, steps: 500 }
const QUICK = { pairs: 160, heldOut: 40, steps: 40 }

/**
 * Both towers' last states: there a patch knows its object and a word its phrase, so that words tell apart what patches of one
 * shape or colour do not share (docs/experiments.md, *Words that know their phrase*).
 */
const LAYERS = ['vision.post_ln', 'text.final_ln']

/** The demo's model: small enough for a laptop; `default` with what docs/experiments.md found. */
const CONFIG = {
  preset: 'default',
  initialise: 'coactivation',
  dShared: 96,
  dPrivate: 320,
  kShared: 4,
  kPrivate: 32,
  beta: 0.05,
  gamma: 1,
  epsilon: 0.03,
  batchPairs: 32,
  lr: 4e-3,
} as const satisfies Partial<TrainOptions>

/** Of all peak scores, this share is not a hit: scenes show about a quarter of the concepts of the library, not one in twenty. */
const QUANTILE = 0.7

/**
 * Concepts of one latent are of one meaning from this cosine on. The paper's 0.78 is made for SigLIP's sentences; between single words of this
 * backbone's text tower synonyms have 0.58 to 0.89, and 0.78 refuses half of the latents of "red, crimson" as impure (docs/experiments.md).
 */
const CLUSTER_COSINE = 0.6

/** What separate autoencoders are: the same start, no term that ties the modalities. */
const SEPARATE = { beta: 0, gamma: 0, wOt: 0 } as const

/** What a reader has to know before the numbers. */
const NOTE =
  'The pictures, the captions and the backbone are generated: small, synthetic, and made for this demo. The numbers are not comparable with the paper.'

/** Latents the report opens on. */
const SHOWN = 16

const MARKER = 'demo.json'

/** `lucid-sae demo`: from generated pictures to a report. */
export function addDemo(root: Command): void {
  const command = root
    .command('demo')
    .description('from generated pictures to a trained model and its report, in under a minute')
    .option('--out <folder>', "folder for everything the demo makes (default: 'demo')")
    .option('--seed <seed>', 'seed of pictures and training', toInteger)
    .option('--quick', 'a few pictures and steps, to see that everything works')
  addCommonOptions(command)
  action(command, async ({ options }, output) => {
    const {
      out = 'demo',
      seed = 0,
      quick = false,
      ...others
    } = options as { out?: string; seed?: number; quick?: boolean }
    const [unknown] = Object.keys(others)
    if (unknown !== undefined) throw optionError(unknown, others[unknown as keyof typeof others], 'out, seed or quick')
    await demo(resolve(out), seed, quick ? QUICK : FULL, output)
  })
}

/** Makes an empty folder, replacing what an earlier demo left; anything else is left alone. */
async function freshFolder(out: string): Promise<void> {
  if (existsSync(out)) {
    if (!existsSync(join(out, MARKER))) {
      throw new LucidError('E_BUSY', `${out} exists and is not a demo's folder`, {
        details: {
          option: 'out',
          file: out,
          found: 'another folder',
          expected: 'a new folder, or that of an earlier demo',
        },
        hint: 'choose another folder with --out',
      })
    }
    await rm(out, { recursive: true })
  }
  await mkdir(out, { recursive: true })
  // First of all, so that a demo that is interrupted can be repeated.
  await writeFile(join(out, MARKER), '{}\n')
}

async function demo(out: string, seed: number, size: typeof FULL, output: Output): Promise<void> {
  await freshFolder(out)
  const stages: { name: string; seconds: number }[] = []
  const stage = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const started = performance.now()
    const result = await work()
    const seconds = (performance.now() - started) / 1000
    stages.push({ name, seconds })
    output.note(`${name}: ${seconds.toFixed(1)} s`)
    return result
  }
  const scenes = (pairs: number, from: number): { scenes: { pairs: number; seed: number; split: string } } => ({
    scenes: { pairs, seed: from, split: 'train' },
  })
  const at = (name: string): string => join(out, name)
  const store = await stage('extract', () =>
    follow(
      extract({ backbone: 'mini', layers: LAYERS, dataset: scenes(size.pairs, 1 + 2 * seed), out: at('activations') }),
      output,
    ),
  )
  // Another seed, so that no picture of training is measured.
  const heldOut = await stage('extract held-out', () =>
    follow(
      extract({ backbone: 'mini', layers: LAYERS, dataset: scenes(size.heldOut, 2 + 2 * seed), out: at('held-out') }),
      output,
    ),
  )
  const options: TrainOptions = { ...CONFIG, activations: store, steps: size.steps, seed, out: at('run') }
  const model = await stage('train', () => follow(train(options), output))
  const separate = await stage('train separate', () =>
    follow(train({ ...options, ...SEPARATE, out: at('separate') }), output),
  )
  const evaluation = await stage('evaluate', () =>
    follow(evaluate({ model, activations: heldOut, fitOn: store, out: at('evaluation') }), output),
  )
  const baseline = await stage('evaluate separate', () =>
    follow(evaluate({ model: separate, activations: heldOut, out: at('evaluation-separate') }), output),
  )
  const atlas = await stage('interpret', () =>
    follow(
      interpret({
        model,
        backbone: 'mini',
        activations: store,
        concepts: 'default',
        quantile: QUANTILE,
        clusterCosine: CLUSTER_COSINE,
        out: at('atlas'),
      }),
      output,
    ),
  )
  const labels = atlas.scoreLabels(evaluation)
  const headline = says(evaluation, baseline, labels)
  await stage('report', () =>
    atlas.report(at('report'), {
      run: at('run'),
      evaluation,
      baseline,
      title: 'LUCID demo',
      notes: [headline, NOTE],
      start: best(evaluation, atlas, labels),
      stages,
    }),
  )
  const seconds = stages.reduce((total, entry) => total + entry.seconds, 0)
  const summary = {
    out,
    seed,
    pairs: size,
    stages,
    seconds,
    latents: atlas.latents.length,
    labels,
    evaluation,
    baseline,
  }
  await writeFile(at(MARKER), `${JSON.stringify(summary, null, 2)}\n`)
  for (const line of scoreLines(evaluation, baseline)) output.line(line)
  output.line()
  for (const line of goals(evaluation, baseline, labels)) output.line(line)
  output.line()
  for (const line of table([
    ...stages.map(({ name, seconds: s }) => [name, `${s.toFixed(1)} s`]),
    ['total', `${seconds.toFixed(1)} s`],
  ])) {
    output.line(line)
  }
  output.line()
  output.line(headline)
  output.line(`Open ${join(at('report'), 'index.html')}`)
  output.result({ ...summary, report: at('report') })
}

/** Named latents that carry a concept in both modalities, those under a right label first, the kinds in turn. */
function best({ truth }: Evaluation, atlas: Atlas, labels: LabelScore): number[] {
  const right = new Set(labels.concepts)
  const carried = (truth?.concepts ?? [])
    .flatMap(({ name, kind, vision, text }) =>
      vision && vision.latent === text?.latent && atlas.label(vision.latent) !== null
        ? [{ name, kind, latent: vision.latent, at: vision.correlation }]
        : [],
    )
    .sort((a, b) => Number(right.has(b.name)) - Number(right.has(a.name)) || b.at - a.at)
  const turn = (kind: string, latent: number): number =>
    carried.filter((other) => other.kind === kind).findIndex((other) => other.latent === latent)
  const order = carried.map((entry, place) => ({ ...entry, place, turn: turn(entry.kind, entry.latent) }))
  order.sort((a, b) => a.turn - b.turn || a.place - b.place)
  return [...new Set(order.map(({ latent }) => latent))].slice(0, SHOWN)
}

/** How many times as much of its mass a kind's word puts on the patches it speaks of as a blind plan would. */
function focus(evaluation: Evaluation, kind: string): number | undefined {
  const { planMass, planMassUniform } = evaluation.truth?.kinds?.[kind] ?? {}
  return planMass === undefined || planMassUniform === undefined ? undefined : planMass / planMassUniform
}

/** What the numbers mean, in one line. */
function says(evaluation: Evaluation, baseline: Evaluation, labels: LabelScore): string {
  const { truth, cross } = evaluation
  const shared = (truth?.concepts ?? []).filter(({ vision, text }) => vision && vision.latent === text?.latent).length
  const control = (baseline.truth?.concepts ?? []).filter((c) => c.vision && c.vision.latent === c.text?.latent).length
  const color = focus(evaluation, 'color')
  return (
    `One latent stands for the word and for the patches of ${shared} of ${truth?.concepts.length ?? 0} concepts (separate autoencoders: ${control}); ` +
    `${labels.right} of ${labels.labels} labels are true; a colour word puts ${number(color)} times as much of its mass on its patches as a blind plan; ` +
    `and words explain ${percent(cross?.t2v?.shared)} of what varies between patches, another picture's words ${percent(cross?.t2v?.controls.shuffledCaption)}.`
  )
}

const percent = (share: number | undefined): string => (share === undefined ? '–' : `${(100 * share).toFixed(0)} %`)

/** The table of what the demo aims at, with what it reached. */
function goals(evaluation: Evaluation, baseline: Evaluation, labels: LabelScore): string[] {
  const { truth, cross, r2 } = evaluation
  const rows: string[][] = []
  const add = (name: string, value: number | undefined, goal: string, met: boolean): void => {
    rows.push([name, number(value), goal, met ? 'met' : 'not met'])
  }
  // Of all concepts: the embedded backbone passes its examination in every kind (docs/mini-backbone.md).
  const [identity, separate] = [truth?.identityRate ?? 0, baseline.truth?.identityRate ?? 0]
  add(`identity rate, ${truth?.concepts.length ?? 0} concepts`, identity, '≥ 0.7', identity >= 0.7)
  add('  separate autoencoders from the same start', separate, '≤ 0.4', separate <= 0.4)
  for (const kind of Object.keys(truth?.kinds ?? {}).filter((name) => name !== 'background')) {
    const times = focus(evaluation, kind)
    add(`plan mass of ${kind} words, times uniform`, times, '≥ 3', (times ?? 0) >= 3)
  }
  const t2v = cross?.t2v
  const gap = (t2v?.shared ?? 0) - (t2v?.controls.shuffledCaption ?? 0)
  add('cross R² text → patches above another caption', gap, '≥ 0.4', gap >= 0.4)
  const v2t = cross?.v2t
  const reached = v2t?.ceiling ? v2t.shared / bestOf(v2t.ceiling) : undefined
  add('cross R² patches → text, share of its ceiling', reached, '≥ 0.6', (reached ?? 0) >= 0.6)
  add('concepts named by a right label', labels.concepts.length, '≥ 20', labels.concepts.length >= 20)
  const right = labels.labels > 0 ? labels.right / labels.labels : 0
  add('labels that are right', right, '≥ 0.8', right >= 0.8)
  const joint = Math.min(r2?.vision?.joint ?? 0, r2?.text?.joint ?? 0)
  add('joint R², the lower of both modalities', joint, '≥ 0.9', joint >= 0.9)
  return table([['goal', 'reached', 'aim', ''], ...rows])
}
