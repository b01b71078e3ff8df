import { readFileSync } from 'node:fs'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { configDefaults } from '../config.js'
import { type Dataset, datasetKinds } from '../dataset.js'
import { LucidError, optionError } from '../errors.js'
import { unknownName } from '../options.js'

/** `dShared` → `d-shared`. */
export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

/** A finite number, or `inf`. */
export function toNumber(text: string): number {
  if (text === 'inf' || text === 'Infinity') return Number.POSITIVE_INFINITY
  const value = Number(text)
  if (text.trim() === '' || Number.isNaN(value)) throw new InvalidArgumentError('expected a number.')
  return value
}

/** A whole number. */
export function toInteger(text: string): number {
  const value = toNumber(text)
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('expected a whole number.')
  return value
}

/** Words separated by commas. */
export function toList(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
}

/** Adds an option for every field of the config, of the type its default has. */
export function addConfigOptions(command: Command): Command {
  for (const [name, value] of Object.entries(configDefaults())) {
    const shown = typeof value === 'number' && !Number.isFinite(value) ? 'inf' : String(value)
    const description = `config field ${name} (default preset: ${shown})`
    if (typeof value === 'boolean') {
      command.addOption(new Option(`--${kebab(name)}`, description))
      command.addOption(new Option(`--no-${kebab(name)}`, `switch ${name} off`).hideHelp())
    } else {
      const option = new Option(`--${kebab(name)} <value>`, description)
      command.addOption(typeof value === 'number' ? option.argParser(toNumber) : option)
    }
  }
  return command
}

/** Options every command has. */
export function addCommonOptions(command: Command): Command {
  return command
    .option('--config <file>', 'JSON file with the same options in camelCase; flags win over it')
    .option('--json', 'print one machine-readable object on stdout')
    .option('--quiet', 'no progress')
}

/** Options for work on this machine's processors. */
export function addDeviceOptions(command: Command): Command {
  return command
    .option('--device <device>', "'auto', 'cpu', 'cuda' or 'cuda:N'")
    .option('--threads <count>', 'threads to use', toInteger)
}

/** Options that name a data set. */
export function addDatasetOptions(command: Command): Command {
  return command
    .option('--dataset <kind>', `one of ${datasetKinds.join(', ')} (docs/data.md)`)
    .option('--pairs <count>', 'scenes: number of pairs', toInteger)
    .option('--seed <seed>', 'scenes: seed', toInteger)
    .option('--split <split>', "scenes: 'train' or 'held-out'; flickr: splits of Karpathy's JSON, as 'train+restval'")
    .option('--edits', 'scenes: every second one is the one before with one attribute changed')
    .option('--images <folder>', 'coco, folder, flickr, cc3m: where the images are')
    .option('--captions <file>', 'coco, folder, flickr, cc3m: captions')
    .option('--no-captions', "folder: read none; a file's name stands for its caption (to interpret, not to train)")
    .option('--instances <file>', 'coco: instances, for boxes')
    .option('--panoptic <file>', 'coco: panoptic segments, for boxes of stuff')
    .option('--masks', 'coco: what the boxes enclose too, from instances and the PNG files beside the panoptic file')
    .option(
      '--shards <patterns...>',
      "webdataset: tar shards, as 'shards/{000..331}.tar' or https:// and s3:// addresses",
    )
    .option('--caption-field <name>', "webdataset: the field of a sample's JSON that holds captions")
    .option('--image-extension <extension>', 'webdataset: which images count where samples have several')
    .option('--files <patterns...>', "parquet: files, as 'data/*.parquet'")
    .option('--image-column <name>', "parquet: column of images (default 'image')")
    .option('--caption-column <name>', "parquet: column of captions (default 'caption', then 'text', 'captions')")
}

type Fields = Record<string, unknown>

const present = (fields: Fields): Fields =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))

/** The flags of each kind, those it needs first, and the data set they make. */
const datasetFlags: Readonly<Record<string, { needs: string[]; takes: string[]; make: (flags: Fields) => Fields }>> = {
  scenes: { needs: ['pairs'], takes: ['seed', 'split', 'edits'], make: (flags) => ({ scenes: flags }) },
  coco: {
    needs: ['images', 'captions'],
    takes: ['instances', 'panoptic', 'masks'],
    make: (flags) => ({ coco: flags }),
  },
  folder: { needs: ['images'], takes: ['captions'], make: (flags) => ({ folder: flags }) },
  webdataset: {
    needs: ['shards'],
    takes: ['captionField', 'imageExtension'],
    make: ({ shards, captionField, imageExtension }) => ({
      webdataset: present({ urls: shards, caption: captionField, image: imageExtension }),
    }),
  },
  parquet: {
    needs: ['files'],
    takes: ['imageColumn', 'captionColumn'],
    make: ({ files, imageColumn, captionColumn }) =>
      present({ parquet: files, image: imageColumn, caption: captionColumn }),
  },
  flickr: { needs: ['images', 'captions'], takes: ['split'], make: (flags) => ({ flickr: flags }) },
  cc3m: { needs: ['images'], takes: ['captions'], make: (flags) => ({ cc3m: flags }) },
}

const allDatasetFlags = new Set(Object.values(datasetFlags).flatMap(({ needs, takes }) => [...needs, ...takes]))

/** The data set that flags name, or the one of a config file. */
export function datasetFrom(options: Fields): { dataset?: Dataset } & Fields {
  const { dataset, ...others } = options
  const entries = Object.entries(others)
  const rest = Object.fromEntries(entries.filter(([name]) => !allDatasetFlags.has(name)))
  if (typeof dataset !== 'string') return { ...rest, ...(dataset ? { dataset: dataset as Dataset } : {}) }
  const kind = datasetFlags[dataset]
  if (!kind) throw unknownName('data set', dataset, datasetKinds)
  const flags = present(Object.fromEntries(entries.filter(([name]) => allDatasetFlags.has(name))))
  for (const name of kind.needs) {
    if (flags[name] === undefined) throw optionError(kebab(name), undefined, `a value, for --dataset ${dataset}`)
  }
  for (const [name, value] of Object.entries(flags)) {
    if (kind.needs.includes(name) || kind.takes.includes(name)) continue
    throw optionError(kebab(name), value, `to be absent: --dataset ${dataset} does not take it`)
  }
  return { ...rest, dataset: kind.make(flags) as unknown as Dataset }
}

/** What every command is told, and the rest. */
export interface Given {
  json: boolean
  quiet: boolean
  options: Record<string, unknown>
}

/** Flags over the config file. */
export function given(command: Command): Given {
  // Values nobody gave (`--no-x` alone makes x true) must not win over the file.
  const told = Object.entries(command.opts()).filter(([name]) => command.getOptionValueSource(name) !== 'default')
  const flags: Record<string, unknown> = Object.fromEntries(told)
  const { config, json, quiet } = flags
  for (const name of ['config', 'json', 'quiet']) delete flags[name]
  const file = typeof config === 'string' ? readConfig(config) : {}
  return { json: json === true, quiet: quiet === true, options: { ...file, ...flags } }
}

function readConfig(file: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new LucidError('E_OPTION', `the config file ${file} cannot be read: ${(error as Error).message}`, {
      details: { option: 'config', found: file, expected: 'a JSON file with an object of options' },
      hint: 'give --config a JSON file with an object of options',
    })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw optionError('config', value, 'a JSON file with an object of options')
  }
  return value as Record<string, unknown>
}
