import { existsSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { LucidError, optionError } from '../errors.js'
import { evaluate } from '../evaluate.js'
import { extract } from '../extract.js'
import { interpret } from '../interpret.js'
import { type TrainOptions, train } from '../train.js'
import { action } from './commands.js'
import { addCommonOptions, toInteger } from './options.js'
import { type Output, table } from './output.js'
import { scoreLines } from './scores.js'
import { follow } from './work.js'

/** Sizes of the demo. */
const FULL = { pairs: 1200, heldOut: 300, steps: 500 }
const QUICK = { pairs: 160, heldOut: 40, steps: 40 }

/**
 * Where a word's state is still that word's and a patch's still that patch's: the last layers of this small backbone
 * spread the picture over the caption's filler words, and their latents then share it (docs/demo.md).
 */
const LAYERS = ['vision.block:2', 'text.block:0']

/** The demo's model: small enough for a laptop; `default` with the weights that docs/demo.md compares. */
const CONFIG = {
  preset: 'default',
  dShared: 128,
  dPrivate: 160,
  kShared: 10,
  kPrivate: 8,
  beta: 0.2,
  gamma: 1,
  epsilon: 0.06,
  batchPairs: 32,
  lr: 3e-3,
} as const satisfies Partial<TrainOptions>

/** Of all peak scores, this share is not a hit: scenes show one in five concepts of the library, not one in twenty. */
const QUANTILE = 0.8

/** What separate autoencoders are: the same start, no term that ties the modalities. */
const SEPARATE = { beta: 0, gamma: 0, wOt: 0 } as const

/** Sentences a reader has to know before the numbers. */
const NOTES = [
  'The pictures, the captions and the backbone are generated: small, synthetic, and made for this demo. The numbers are not comparable with the paper.',
  'Paired initialisation already aligns much of what there is to align, so every number stands beside the same number for separate autoencoders from the same start.',
]

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
    follow(evaluate({ model, activations: heldOut, out: at('evaluation') }), output),
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
        out: at('atlas'),
      }),
      output,
    ),
  )
  await stage('report', () =>
    atlas.report(at('report'), { run: at('run'), evaluation, baseline, title: 'LUCID demo', notes: NOTES, stages }),
  )
  const seconds = stages.reduce((total, entry) => total + entry.seconds, 0)
  const labelled = atlas.latents.filter((latent) => latent.label !== null).length
  const summary = {
    out,
    seed,
    pairs: size,
    stages,
    seconds,
    labelled,
    latents: atlas.latents.length,
    evaluation,
    baseline,
  }
  await writeFile(at(MARKER), `${JSON.stringify(summary, null, 2)}\n`)
  for (const line of scoreLines(evaluation, baseline)) output.line(line)
  output.line()
  for (const line of table([
    ...stages.map(({ name, seconds: s }) => [name, `${s.toFixed(1)} s`]),
    ['total', `${seconds.toFixed(1)} s`],
  ])) {
    output.line(line)
  }
  output.line()
  output.line(
    `${labelled} of ${atlas.latents.length} shared latents have a label. Open ${join(at('report'), 'index.html')}`,
  )
  output.result({ ...summary, report: at('report') })
}
