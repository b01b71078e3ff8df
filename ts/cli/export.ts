import type { Command } from 'commander'
import { type ExportOptions, exportModel } from '../export.js'
import { action } from './commands.js'
import { addCommonOptions } from './options.js'

/** `lucid-sae export`: a model for another library. */
export function addExport(root: Command): void {
  const command = root
    .command('export')
    .description('write a model in files that SAELens reads, one autoencoder for each block of each modality')
    .option('--model <folder>', 'folder of the model or run')
    .option('--out <folder>', 'folder to write; it must not be there yet')
    .option('--format <name>', "'saelens' (default)")
  addCommonOptions(command)
  action(command, async ({ options }, output) => {
    const written = await exportModel(options as unknown as ExportOptions)
    output.line(`${written.out}: ${written.autoencoders.join(', ')}`)
    output.result(written)
  })
}
