import { readFileSync } from 'node:fs'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { configDefaults } from '../config.js'
import type { Dataset } from '../dataset.js'
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
    .option('--dataset <kind>', "'scenes', 'coco' or 'folder'")
    .option('--pairs <count>', 'scenes: number of pairs', toInteger)
    .option('--seed <seed>', 'scenes: seed', toInteger)
    .option('--split <split>', "scenes: 'train' or 'held-out'")
    .option('--images <folder>', 'coco, folder: where the images are')
    .option('--captions <file>', 'coco, folder: captions')
    .option('--instances <file>', 'coco: instances, for boxes')
}

/** The data set that flags name, or the one of a config file. */
export function datasetFrom(options: Record<string, unknown>): { dataset?: Dataset } & Record<string, unknown> {
  const { dataset, pairs, seed, split, images, captions, instances, ...rest } = options
  const given = (fields: Record<string, unknown>): Record<string, unknown> =>
    Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
  const need = (name: string, value: unknown): void => {
    if (value === undefined) throw optionError(kebab(name), value, `a value, for --dataset ${String(dataset)}`)
  }
  if (typeof dataset !== 'string') return { ...rest, ...(dataset ? { dataset: dataset as Dataset } : {}) }
  switch (dataset) {
    case 'scenes':
      need('pairs', pairs)
      return { ...rest, dataset: { scenes: given({ pairs, seed, split }) } as unknown as Dataset }
    case 'coco':
      need('images', images)
      need('captions', captions)
      return { ...rest, dataset: { coco: given({ images, captions, instances }) } as unknown as Dataset }
    case 'folder':
      need('images', images)
      return { ...rest, dataset: { folder: given({ images, captions }) } as unknown as Dataset }
    default:
      throw unknownName('data set', dataset, ['scenes', 'coco', 'folder'])
  }
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
