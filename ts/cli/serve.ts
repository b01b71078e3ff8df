import type { Command } from 'commander'
import { optionError } from '../errors.js'
import { type ServeOptions, serve } from '../serve/index.js'
import { action } from './commands.js'
import { addCommonOptions, toInteger } from './options.js'
import { untilInterrupted } from './work.js'

/** `lucid-sae serve`: a report with live questions. */
export function addServe(root: Command): void {
  const command = root
    .command('serve')
    .description('serve a report on this machine, with live questions to the model behind it')
    .argument('[report]', 'folder of the report')
    .option('--report <folder>', 'the same')
    .option('--model <folder>', 'the model, for live questions (with --activations)')
    .option('--activations <folder>', 'the store that questions look through')
    .option('--backbone <name>', "the backbone the model was trained on ('mini')")
    .option('--atlas <folder>', 'names of latents, and concepts to look for')
    .option('--port <number>', 'port on 127.0.0.1 (4173); 0 takes a free one', toInteger)
  addCommonOptions(command)
  action(command, async ({ options }, output, [first]) => {
    const report = first ?? options.report
    if (report === undefined) throw optionError('report', report, 'the folder of a report')
    const served = await serve({ ...(options as Omit<ServeOptions, 'report'>), report: String(report) })
    output.line(`open ${served.url}`)
    output.line('press Ctrl-C to end')
    output.result({ url: served.url, port: served.port })
    await untilInterrupted()
    await served.close()
  })
}
