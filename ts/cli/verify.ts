import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { LucidError, optionError } from '../errors.js'
import { loadAtlas } from '../interpret.js'
import { loadModel } from '../model.js'
import { verifyStore } from '../store.js'
import { action } from './commands.js'
import { addCommonOptions } from './options.js'
import { follow } from './work.js'

/** `lucid-sae verify`: compares a store, a model or an atlas with its hashes. */
export function addVerify(root: Command): void {
  const command = root
    .command('verify')
    .description('compare a store, a model folder or an atlas with the hashes written beside it')
    .argument('[path]', 'the folder')
  addCommonOptions(command)
  action(command, async ({ options }, output, [argument]) => {
    const path = argument ?? options.path
    if (typeof path !== 'string') throw optionError('path', path, 'a folder to verify')
    const has = (file: string): boolean => existsSync(join(path, file))
    if (has('manifest.json')) {
      const report = await follow(verifyStore(path), output)
      output.line(`${path}: activation store, ${report.files.length} files, nothing damaged`)
      output.result({ path, kind: 'store', ok: true, files: report.files })
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
