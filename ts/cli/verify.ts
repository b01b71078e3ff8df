import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { type CompareOptions, type Comparison, compareWithSource } from '../check.js'
import { LucidError, optionError } from '../errors.js'
import { loadAtlas } from '../interpret.js'
import { loadModel } from '../model.js'
import { verifyStore } from '../store.js'
import { action } from './commands.js'
import { addCommonOptions, addDatasetOptions, datasetFrom, toInteger } from './options.js'
import type { Output } from './output.js'
import { follow } from './work.js'

/** Pairs of a store against their source; a difference makes the command fail. */
async function compare(path: string, options: Record<string, unknown>, output: Output): Promise<Comparison> {
  const { dataset, backbone, sample } = datasetFrom(options)
  const chosen = Object.fromEntries(Object.entries({ backbone, sample }).filter(([, value]) => value !== undefined))
  const found = await follow(compareWithSource({ activations: path, ...chosen, dataset } as CompareOptions), output)
  for (const { key, what } of found.mismatches) output.line(`WRONG     ${key}: ${what}`)
  if (found.mismatches.length > 0) {
    throw new LucidError(
      'E_STORE_MISMATCH',
      `${found.mismatches.length} pairs of ${path} are not what their source gives`,
      {
        details: { file: path, found: found.mismatches },
        hint: 'extract the store again, or give the data set and the backbone that it was made with',
      },
    )
  }
  output.line(
    `${found.sampled} pairs extracted again: captions, ids and grids equal, states within ${found.largestDifference.toExponential(1)}`,
  )
  return found
}

/** `lucid-sae verify`: compares a store, a model or an atlas with its hashes. */
export function addVerify(root: Command): void {
  const command = root
    .command('verify')
    .description('compare a store, a model folder or an atlas with the hashes written beside it')
    .argument('[path]', 'the folder')
  command
    .option('--deep', 'extract some pairs again from --dataset with --backbone, and compare them with what is stored')
    .option('--backbone <name>', "with --deep: the backbone of the store ('mini')")
    .option('--sample <count>', 'with --deep: pairs to extract again (16)', toInteger)
  addCommonOptions(addDatasetOptions(command))
  action(command, async ({ options }, output, [argument]) => {
    const path = argument ?? options.path
    if (typeof path !== 'string') throw optionError('path', path, 'a folder to verify')
    if (options.deep === true && !existsSync(join(path, 'manifest.json'))) {
      throw optionError('deep', path, 'an activation store')
    }
    const has = (file: string): boolean => existsSync(join(path, file))
    if (has('manifest.json')) {
      const report = await follow(verifyStore(path), output)
      output.line(`${path}: activation store, ${report.files.length} files, nothing damaged`)
      const comparison = options.deep === true ? await compare(path, options, output) : undefined
      output.result({ path, kind: 'store', ok: true, files: report.files, ...(comparison ? { comparison } : {}) })
    } else if (has('atlas.json') || has('hashes.json')) {
      const atlas = await loadAtlas(path)
      output.line(`${path}: atlas of ${atlas.latents.length} latents, nothing damaged`)
      output.result({ path, kind: 'atlas', ok: true })
    } else if (has('config.json') || has('model.safetensors')) {
      const model = await loadModel(path)
      output.line(`${path}: model of ${model.info().parameters} parameters, nothing damaged`)
      output.result({ path, kind: 'model', ok: true })
    } else {
      throw new LucidError('E_NOT_FOUND', `${path} is not a store, a model or an atlas`, {
        details: { file: path, found: existsSync(path) ? 'another folder' : 'nothing' },
        hint: 'give the folder that holds manifest.json, config.json or atlas.json',
      })
    }
  })
}
