import { readFileSync } from 'node:fs'
import { type Command, InvalidArgumentError } from 'commander'
import { type BenchOptions, bench } from '../bench.js'
import { checkPreset, type Preset, presets } from '../config.js'
import { LucidError, optionError } from '../errors.js'
import { evaluate } from '../evaluate.js'
import { type ExamineBackboneOptions, examineBackbone } from '../examine.js'
import { type ExtractOptions, extract } from '../extract.js'
import { importActivations } from '../import.js'
import type { ConceptInput, EvaluateOptions, ImportOptions, InterpretOptions } from '../index.js'
import { interpret } from '../interpret.js'
import { type TrainOptions, train } from '../train.js'
import { addDoctor } from './doctor.js'
import { addExplore } from './explore.js'
import { addExport } from './export.js'
import { addInfo } from './info.js'
import { addMerge } from './merge.js'
import {
  addCommonOptions,
  addConfigOptions,
  addDatasetOptions,
  addDeviceOptions,
  datasetFrom,
  type Given,
  given,
  toInteger,
  toList,
  toNumber,
} from './options.js'
import { number, Output, table } from './output.js'
import { addProbe } from './probe.js'
import { addReport } from './report.js'
import { addReproduce } from './reproduce.js'
import { scoreLines } from './scores.js'
import { addServe } from './serve.js'
import { showStore } from './stores.js'
import { addVerify } from './verify.js'
import { follow } from './work.js'

/** Wires what a command does to its options. */
export function action(command: Command, work: (given: Given, output: Output, args: string[]) => Promise<void>): void {
  command.action(async (...received: unknown[]) => {
    // A variadic argument comes as a list; commander adds the options and the command itself at the end.
    const args = received.flat().filter((argument): argument is string => typeof argument === 'string')
    const all = given(command)
    await work(all, new Output(all), args)
  })
}

const BACKBONE = "'mini' (default), a folder, or a name on the Hugging Face hub: owner/name[@revision]"

/** Every command but the demo. */
export function addCommands(root: Command): void {
  addExtract(root)
  addImport(root)
  addMerge(root)
  addExport(root)
  addTrain(root)
  addEvaluate(root)
  addInterpret(root)
  addReport(root)
  addServe(root)
  addExplore(root)
  addProbe(root)
  addReproduce(root)
  addVerify(root)
  addInfo(root)
  addDoctor(root)
  addExamine(root)
  addBench(root)
}

function addExtract(root: Command): void {
  const command = root
    .command('extract')
    .description('run a backbone over pictures with captions and keep its activations')
    .option('--backbone <name>', BACKBONE)
    .option('--out <folder>', 'folder of the new store')
    .option('--layers <hooks>', 'hook points, separated by commas; several of a tower fill several stores', toList)
    .option('--untrained <seed>', "random weights in place of the backbone's own, as a floor", toInteger)
    .option('--precision <type>', "'f32', 'f16' (default), 'bf16' or 'int8'")
    .option('--max-pairs <count>', 'only the first records', toInteger)
    .option('--caption-policy <choice>', "captions of an image to extract: 'all' (default) or 'first'")
    .option('--max-pixels <count>', 'most pixels a picture may have (100 million)', toInteger)
    .option('--resume', 'go on with what a killed or failed run of the same options left')
    .option('--shard <i/n>', 'only part i of n, from 0; merge puts the parts together', toPart)
    .option('--keep-eos', 'keep the end-of-sentence token (default)')
    .option('--no-keep-eos', 'drop the end-of-sentence token')
    .option('--no-thumbnails', 'keep no small pictures for the report')
    .option('--pairs-per-shard <count>', 'pairs in a file of the store', toInteger)
    .option('--on-bad <choice>', "'stop' (default) at an image that cannot be used, or 'skip' it")
    .option('--overwrite', 'replace a store that is already there')
  addCommonOptions(addDeviceOptions(addDatasetOptions(command)))
  action(command, async ({ options }, output) => {
    const resume = 'complete shards are kept: the same command with --resume goes on from them'
    const store = await follow(extract(datasetFrom(options) as unknown as ExtractOptions), output, resume)
    showStore(store, output)
  })
}

/** `0/4` → part 0 of 4. */
function toPart(text: string): { index: number; of: number } {
  const [, index, of] = /^(\d+)\/(\d+)$/.exec(text) ?? []
  if (index === undefined || of === undefined) throw new InvalidArgumentError('expected i/n, as 0/4.')
  return { index: Number(index), of: Number(of) }
}

function readLines(option: string, value: unknown): string[] | undefined {
  if (value === undefined || Array.isArray(value)) return value as string[] | undefined
  try {
    const lines = readFileSync(String(value), 'utf8').split(/\r?\n/)
    if (lines.at(-1) === '') lines.pop()
    return lines
  } catch (error) {
    throw new LucidError('E_IO', `cannot read ${String(value)}: ${(error as Error).message}`, {
      details: { option, file: String(value) },
      hint: `give --${option} a text file with one line a pair`,
    })
  }
}

function addImport(root: Command): void {
  const command = root
    .command('import')
    .description('make a store of your own activations from .npy or .safetensors files')
    .option('--vision <file>', 'patch states [pairs, T_v, d_v], or [all patches, d_v] with --vision-lengths')
    .option('--text <file>', 'token states [all tokens, d_t], or [pairs, T, d_t]')
    .option('--text-lengths <file>', 'valid tokens of each pair')
    .option('--vision-lengths <file>', 'patches of each pair, where they differ')
    .option('--vision-grid <rows,columns>', 'patch grid', (text) => toList(text).map(toInteger))
    .option('--d-vision <width>', 'width of a patch, where the shape does not tell it', toInteger)
    .option('--d-text <width>', 'width of a token, where the shape does not tell it', toInteger)
    .option('--pairs-per-shard <count>', 'pairs in a file of the store', toInteger)
    .option('--images <file>', 'names of the images, one a line')
    .option('--captions <file>', 'captions, one a line')
    .option('--out <folder>', 'folder of the new store')
    .option('--precision <type>', "'f32' (default), 'f16', 'bf16' or 'int8'")
    .option('--overwrite', 'replace a store that is already there')
  addCommonOptions(command)
  action(command, async ({ options }, output) => {
    const lists = { images: readLines('images', options.images), captions: readLines('captions', options.captions) }
    const all = { ...options, ...Object.fromEntries(Object.entries(lists).filter(([, list]) => list !== undefined)) }
    const store = await follow(importActivations(all as unknown as ImportOptions), output)
    showStore(store, output)
  })
}

function addTrain(root: Command): void {
  const command = root
    .command('train')
    .description('train a model on a store of activations')
    .option('--activations <folder>', 'the training store')
    .option('--validation <folder>', 'a store to evaluate on in between')
    .option('--preset <name>', `one of ${presets.join(', ')}`)
    .option('--init <path>', 'start from a model folder or a .safetensors file')
    .option('--out <folder>', 'folder of the run')
    .option('--resume', 'continue the run in --out')
    .option('--checkpoint-every <steps>', 'steps between checkpoints; 0 = only at the end', toInteger)
    .option('--eval-every <steps>', 'steps between evaluations; 0 = none', toInteger)
  addCommonOptions(addDeviceOptions(addConfigOptions(command)))
  action(command, async ({ options }, output) => {
    if (options.preset !== undefined) checkPreset(options.preset as Preset)
    const { activations, out } = options as { activations?: string; out?: string }
    const resume = `to go on: lucid-sae train --resume --activations ${activations} --out ${out}`
    const model = await follow(train(options as unknown as TrainOptions), output, resume)
    const info = model.info()
    output.line(`trained ${info.parameters} parameters in ${info.steps} steps; the model is in ${out}`)
    output.result({ model: out, info, config: model.config })
  })
}

function addEvaluate(root: Command): void {
  const command = root
    .command('evaluate')
    .description('measure a model on a store, every number beside its controls')
    .option('--model <folder>', 'folder of the model or run')
    .option('--activations <folder>', 'store to evaluate on')
    .option('--boxes <file>', 'JSON file: boxes by name of the image')
    .option('--targets <list>', 'union, largest, best, category, phrase', toList)
    .option('--heatmaps <list>', 'plan-max, code, concept, plan-sum', toList)
    .option('--seed <seed>', 'seed of the shuffled captions', toInteger)
    .option('--fit-on <folder>', 'store to fit ridge maps on: what a linear map reaches stands beside cross R²')
    .option('--bootstrap <count>', 'resamples of the confidence intervals (1000); 0 = none', toInteger)
    .option('--out <folder>', 'folder for evaluation.json')
  addCommonOptions(addDeviceOptions(command))
  action(command, async ({ options }, output) => {
    const boxes = typeof options.boxes === 'string' ? JSON.parse(readFileSync(options.boxes, 'utf8')) : options.boxes
    const all = boxes === undefined ? options : { ...options, boxes }
    const evaluation = await follow(evaluate(all as unknown as EvaluateOptions), output)
    for (const line of scoreLines(evaluation)) output.line(line)
    for (const [path, reason] of Object.entries(evaluation.skipped ?? {}))
      output.line(`not computed: ${path}: ${reason}`)
    output.result(evaluation)
  })
}

/** A list, a file, or `default`. */
function conceptsFrom(value: unknown): readonly ConceptInput[] | string | undefined {
  return typeof value === 'string' && value.includes(',') ? toList(value) : (value as string | undefined)
}

function addInterpret(root: Command): void {
  const command = root
    .command('interpret')
    .description('find out what the shared latents of a model mean')
    .option('--model <folder>', 'folder of the model or run')
    .option('--backbone <name>', BACKBONE)
    .option('--activations <folder>', 'store whose images are looked at')
    .option('--concepts <list>', "words separated by commas, a file, 'library', 'captions' or 'default'")
    .option('--out <folder>', 'folder of the atlas')
    .option('--threshold <score>', 'confidence a hit must exceed', toNumber)
    .option('--quantile <share>', 'quantile of the peak scores that is the threshold', toNumber)
    .option('--fdr <share>', 'share of hits that may be chance, in place of the quantile', toNumber)
    .option('--min-hits <count>', 'hits a latent needs for a label', toInteger)
    .option('--no-idf', 'do not weight latents by rarity')
    .option('--cluster-cosine <cosine>', 'cosine within a cluster of concepts', toNumber)
    .option('--min-purity <share>', 'share of the largest cluster a label needs', toNumber)
    .option('--top-terms <count>', 'terms kept for a latent', toInteger)
    .option('--label-terms <count>', 'terms of a label', toInteger)
    .option('--top-images <count>', 'pictures kept', toInteger)
    .option('--top-words <count>', 'words kept', toInteger)
    .option('--max-images <count>', 'look at the first pairs only', toInteger)
  addCommonOptions(addDeviceOptions(addDatasetOptions(command)))
  action(command, async ({ options }, output) => {
    const { concepts, ...chosen } = datasetFrom(options)
    if (concepts !== undefined) chosen.concepts = conceptsFrom(concepts)
    if (chosen.out === undefined) throw optionError('out', undefined, 'the folder of the atlas')
    const atlas = await follow(interpret(chosen as unknown as InterpretOptions), output)
    const labelled = atlas.latents.filter((latent) => latent.label !== null)
    output.line(
      `${labelled.length} of ${atlas.latents.length} shared latents have a label; the atlas is in ${atlas.path}`,
    )
    const rows = labelled.toSorted((a, b) => b.hits - a.hits).slice(0, 12)
    const cells = rows.map((latent) => [
      `  ${latent.latent}: ${latent.label}`,
      `${latent.hits} hits`,
      number(latent.purity ?? undefined),
    ])
    for (const line of cells.length > 0 ? table([['  latent', '', 'purity'], ...cells]) : []) output.line(line)
    output.result({
      atlas: atlas.path,
      latents: atlas.latents.length,
      labelled: labelled.length,
      threshold: atlas.data.threshold,
    })
  })
}

function addExamine(root: Command): void {
  const command = root
    .command('examine-backbone')
    .description('find out what a backbone knows of generated scenes, beside chance and beside an untrained one')
    .option('--backbone <name>', BACKBONE)
    .option('--scenes <count>', 'scenes of each of the two sets that words are swapped in (1000)', toInteger)
    .option('--probe-scenes <count>', 'scenes of each of the three sets that linear probes see (240)', toInteger)
    .option('--seed <seed>', "seed of the scenes; not that of the backbone's training", toInteger)
    .option('--threads <count>', 'threads to use', toInteger)
  addCommonOptions(command)
  action(command, async ({ options }, output) => {
    const found = await follow(examineBackbone(options as ExamineBackboneOptions), output)
    for (const line of found.markdown.trimEnd().split('\n')) output.line(line)
    output.result(found)
  })
}

function addBench(root: Command): void {
  const command = root
    .command('bench')
    .description('time the whole training step on random data')
    .option('--preset <name>', 'configuration the step is made with')
  for (const [flag, text] of [
    ['d-vision', 'width of a patch (768)'],
    ['d-text', 'width of a token (768)'],
    ['d-shared', 'shared latents (1536)'],
    ['d-private', 'private latents (4608)'],
    ['k-shared', 'kept shared entries (16)'],
    ['k-private', 'kept private entries (32)'],
    ['patches', 'patches of a pair (196)'],
    ['tokens', 'text tokens of a pair (64)'],
    ['batch-pairs', 'pairs of a step (8)'],
    ['micro-pairs', 'pairs at a time (all)'],
    ['steps', 'timed steps, after one that is not (3)'],
    ['threads', 'threads to use'],
    ['seed', 'seed of the data (0)'],
  ] as const) {
    command.option(`--${flag} <count>`, text, toInteger)
  }
  addCommonOptions(command)
  action(command, async ({ options }, output) => {
    const result = await follow(bench(options as BenchOptions), output)
    const { shape } = result
    output.line(
      `${number(result.microsecondsPerToken)} µs/token (${Math.round(result.tokensPerSecond)} tokens/s), median of ${result.steps} steps ` +
        `of ${result.tokensPerStep} tokens on ${result.threads} threads`,
    )
    output.line(
      `shape: d ${shape.dVision} / ${shape.dText}, ${shape.dShared} + ${shape.dPrivate} latents, k ${shape.kShared} + ${shape.kPrivate}, ` +
        `${shape.patches} × ${shape.tokens} tokens, ${shape.batchPairs} pairs; weights, moments and gradients ${(result.stateBytes / 2 ** 20).toFixed(0)} MiB, ` +
        `peak resident ${(result.peakResidentBytes / 2 ** 20).toFixed(0)} MiB`,
    )
    output.result(result)
  })
}
