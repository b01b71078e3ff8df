import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { LucidError, optionError } from '../errors.js'
import { loadAtlas } from '../interpret.js'
import { loadModel } from '../model.js'
import { type ActivationStore, openStore, type PrecisionError } from '../store.js'
import { action } from './commands.js'
import { addCommonOptions } from './options.js'
import { number } from './output.js'

/** A name and what there is to say about it; lines without anything to say are left out. */
type Line = readonly [name: string, text: string | undefined]

/** Lines with their texts below each other. */
function aligned(lines: readonly Line[]): string[] {
  const told = lines.filter((line): line is [string, string] => line[1] !== undefined)
  const width = Math.max(...told.map(([name]) => name.length))
  return told.map(([name, text]) => `${name.padEnd(width)}  ${text}`)
}

/** `1234567` → `1,234,567`. */
function count(value: number): string {
  return value.toLocaleString('en-US')
}

/** A length in bytes for people. */
function size(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB']
  const unit = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)))
  return unit === 0 ? `${bytes} bytes` : `${(bytes / 1000 ** unit).toPrecision(4)} ${units[unit]}`
}

/** A JSON value for people: texts as they are, objects on one line. */
function value(found: unknown): string | undefined {
  if (found === undefined || found === null) return undefined
  return typeof found === 'string' ? found : JSON.stringify(found)
}

/** The field of an object that may be none. */
function field(of: unknown, name: string): unknown {
  return typeof of === 'object' && of !== null ? (of as Record<string, unknown>)[name] : undefined
}

function errorText(error: PrecisionError): string {
  const lost = (cosine: number): string => (cosine === 1 ? '1' : `1 − ${number(1 - cosine)}`)
  return (
    `relative RMS ${number(error.relativeRms)}, at most ${number(error.maxAbs)}, ` +
    `cosine ${lost(error.meanCosine)} (least ${lost(error.minCosine)})`
  )
}

function storeInfo(store: ActivationStore): { lines: Line[]; result: Record<string, unknown> } {
  const { meta } = store
  const { provenance, statistics, precisionError } = meta
  const backbone = field(provenance, 'backbone')
  const hooks = field(provenance, 'hooks')
  const shardBytes = meta.shards.reduce((sum, shard) => sum + shard.bytes, 0)
  const bytes = meta.files.reduce((sum, file) => sum + file.bytes, shardBytes)
  const largest = meta.pairsPerShard ?? Math.max(...meta.shards.map((shard) => shard.pairs))
  const both = (name: 'variance' | 'meanSquare' | 'pooledVariance'): string =>
    `vision ${number(statistics[name].vision)}, text ${number(statistics[name].text)}`
  const rest = Object.entries(provenance ?? {}).filter(([name]) => !['backbone', 'hooks', 'dataset'].includes(name))
  const backboneRest = Object.entries(
    typeof backbone === 'object' && backbone !== null && !Array.isArray(backbone) ? backbone : {},
  ).filter(([name]) => !['id', 'weightsBlake3', 'weights', 'preprocessing'].includes(name))
  const lines: Line[] = [
    ['activation store', store.path],
    ['pairs', `${count(store.pairs)} with ${count(meta.captions)} captions`],
    ['patches, tokens', `${count(store.tokens.vision)}, ${count(store.tokens.text)}`],
    ['widths', `vision ${store.dVision}, text ${store.dText}`],
    ['precision', meta.precision],
    ['  error, vision', precisionError === undefined ? 'not measured' : errorText(precisionError.vision)],
    ['  error, text', precisionError === undefined ? 'not measured' : errorText(precisionError.text)],
    ['hooks', hooks === undefined ? undefined : `${value(field(hooks, 'vision'))}, ${value(field(hooks, 'text'))}`],
    ['backbone', typeof backbone === 'string' ? backbone : value(field(backbone, 'id'))],
    ['  weights', value(field(backbone, 'weightsBlake3') ?? field(backbone, 'weights'))],
    ['  preprocessing', value(field(backbone, 'preprocessing'))],
    ...backboneRest.map(([name, found]): Line => [`  ${name}`, value(found)]),
    ['data set', value(field(provenance, 'dataset'))],
    ...rest.map(([name, found]): Line => [name, value(found)]),
    ['shards', `${count(meta.shards.length)} of up to ${count(largest)} pairs`],
    ['size', `${size(bytes)} (${count(Math.round(bytes / store.pairs))} bytes a pair)`],
    ['variance', both('variance')],
    ['mean square', both('meanSquare')],
    ['pooled variance', both('pooledVariance')],
    ['fingerprint', meta.fingerprint],
    ['format version', String(meta.formatVersion)],
    ['created by', meta.createdBy],
  ]
  const { shards, files, ...told } = meta
  return { lines, result: { ...told, shards: shards.length, bytes, bytesPerPair: bytes / store.pairs } }
}

/** `lucid-sae info`: what a store, a model or an atlas is. */
export function addInfo(root: Command): void {
  const command = root
    .command('info')
    .description('say what a store, a model folder or an atlas is and where it comes from')
    .argument('[path]', 'the folder')
  addCommonOptions(command)
  action(command, async ({ options }, output, [argument]) => {
    const path = argument ?? options.path
    if (typeof path !== 'string') throw optionError('path', path, 'the folder of a store, a model or an atlas')
    const has = (file: string): boolean => existsSync(join(path, file))
    if (has('manifest.json')) {
      await using store = await openStore(path)
      const { lines, result } = storeInfo(store)
      for (const line of aligned(lines)) output.line(line)
      output.result({ path, kind: 'store', ...result })
    } else if (has('atlas.json') || has('hashes.json')) {
      await using atlas = await loadAtlas(path)
      const { data } = atlas
      const labelled = atlas.latents.filter((latent) => latent.label !== null).length
      const lines: Line[] = [
        ['atlas', path],
        ['latents', `${count(atlas.latents.length)} shared, ${count(labelled)} with a label`],
        ['concepts', count(atlas.concepts.length)],
        ['pictures', count(atlas.images.length)],
        ['threshold', data.threshold === null ? 'none' : number(data.threshold)],
        ['store', `${data.store.fingerprint}, ${count(data.store.pairs)} pairs`],
        ['format version', String(data.formatVersion)],
        ['created by', `lucid-sae ${data.version}`],
      ]
      for (const line of aligned(lines)) output.line(line)
      const { threshold, store, options: chosen, formatVersion, version } = data
      const counts = { latents: atlas.latents.length, labelled, concepts: atlas.concepts.length }
      const images = atlas.images.length
      output.result({
        path,
        kind: 'atlas',
        ...counts,
        images,
        threshold,
        store,
        options: chosen,
        formatVersion,
        version,
      })
    } else if (has('config.json') || has('model.safetensors')) {
      await using model = await loadModel(path)
      const info = model.info()
      const { config } = model
      const weights = join(path, 'model.safetensors')
      const bytes = existsSync(weights) ? statSync(weights).size : undefined
      const written = JSON.parse(readFileSync(join(path, 'config.json'), 'utf8')) as Record<string, unknown>
      const origin = field(written.store, 'origin')
      const hooks = field(origin, 'hooks')
      const lines: Line[] = [
        ['model', path],
        ['parameters', count(info.parameters)],
        ['size', bytes === undefined ? undefined : size(bytes)],
        ['widths', `vision ${info.dVision}, text ${info.dText}`],
        ['latents', `${count(config.dShared)} shared, ${count(config.dPrivate)} private a modality`],
        ['kept', `${config.kShared} shared, ${config.kPrivate} private (${config.topk})`],
        [
          'weights of losses',
          `self ${number(config.alpha)}, align ${number(config.beta)}, cross ${number(config.gamma)}`,
        ],
        ['steps', info.steps === undefined || info.steps === null ? undefined : count(info.steps)],
        ['learning rate', number(config.lr)],
        ['batch', `${config.batchPairs} pairs`],
        ['seed', String(config.seed)],
        ['store', info.storeFingerprint ?? undefined],
        ['backbone', value(field(field(origin, 'backbone'), 'id'))],
        ['hooks', hooks === undefined ? undefined : `${value(field(hooks, 'vision'))}, ${value(field(hooks, 'text'))}`],
        ['format version', value(written.formatVersion)],
      ]
      for (const line of aligned(lines)) output.line(line)
      output.result({ path, kind: 'model', ...info, bytes, formatVersion: written.formatVersion, config })
    } else {
      throw new LucidError('E_NOT_FOUND', `${path} is not a store, a model or an atlas`, {
        details: { file: path, found: existsSync(path) ? 'another folder' : 'nothing' },
        hint: 'give the folder that holds manifest.json, config.json or atlas.json',
      })
    }
  })
}
