import type { Command } from 'commander'
import { type MergeOptions, mergeStores } from '../merge.js'
import { action } from './commands.js'
import { addCommonOptions, toInteger } from './options.js'
import { showStore } from './stores.js'
import { follow } from './work.js'

/** `lucid-sae merge`: several stores joined to one. */
export function addMerge(root: Command): void {
  const command = root
    .command('merge')
    .description('join stores, such as the parts of one extraction, to one')
    .argument('[parts...]', 'the folders of the stores')
    .option('--out <folder>', 'folder of the new store')
    .option('--pairs-per-shard <count>', 'pairs in a file of the store (as in the parts)', toInteger)
    .option('--overwrite', 'replace a store that is already there')
  addCommonOptions(command)
  action(command, async ({ options }, output, parts) => {
    const all = parts.length > 0 ? { ...options, parts } : options
    const store = await follow(mergeStores(all as unknown as MergeOptions), output)
    showStore(store, output)
  })
}
