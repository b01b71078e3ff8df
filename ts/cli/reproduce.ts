import type { Command } from 'commander'
import { type ReproduceOptions, reproduce } from '../reproduce/index.js'
import { action } from './commands.js'
import { addCommonOptions, toInteger } from './options.js'
import { followWork } from './work.js'

/** `lucid-sae reproduce`: the paper's tables. */
export function addReproduce(root: Command): void {
  const command = root
    .command('reproduce')
    .description("the paper's tables for a store, over seeds, beside controls, rivals and the published numbers")
    .argument('[tables...]', 'table2, table3, table4, table5, table6, ladder, rivals, or all (default)')
    .option('--activations <folder>', 'store to train on (default: scenes, rendered for the purpose)')
    .option('--held-out <folder>', 'store to measure on (default: a fifth of the store)')
    .option('--seeds <count>', 'seeds of training (5)', toInteger)
    .option('--preset-scale <scale>', "'demo' (default) or 'paper'")
    .option('--steps <count>', "steps of each run instead of the scale's", toInteger)
    .option('--backbone <name>', "backbone for the concepts of Table 5 ('mini')")
    .option('--concepts <list>', 'concepts of Table 5, as interpret takes them')
    .option('--out <folder>', "folder of stores, runs and tables ('runs/reproduce')")
  addCommonOptions(command)
  action(command, async ({ options }, output, tables) => {
    const all = tables.length > 0 ? { ...options, tables } : options
    const found = await followWork(reproduce(all as ReproduceOptions), output, 'the same command goes on from there')
    for (const line of found.markdown.split('\n')) output.line(line)
    output.line(`The tables are in ${found.out} as tables.md, tables.tex and tables.json`)
    output.result({ out: found.out, tables: found.tables })
  })
}
