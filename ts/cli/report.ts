import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Command } from 'commander'
import { LucidError, optionError } from '../errors.js'
import type { Evaluation } from '../evaluation.js'
import { loadAtlas, type ReportOptions } from '../interpret.js'
import { action } from './commands.js'
import { addCommonOptions, toInteger } from './options.js'

/** The evaluation in a file, or in a folder's `evaluation.json`. */
function readEvaluation(option: string, path: string): Evaluation {
  const file = existsSync(path) && statSync(path).isDirectory() ? join(path, 'evaluation.json') : path
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Evaluation
  } catch (error) {
    throw new LucidError('E_IO', `cannot read the evaluation ${file}: ${(error as Error).message}`, {
      details: { option, file },
      hint: 'write one with lucid-sae evaluate --out FOLDER',
    })
  }
}

/** `lucid-sae report`: a folder to open from disk. */
export function addReport(root: Command): void {
  const command = root
    .command('report')
    .description('write a report: a folder to open from disk, without network')
    .option('--atlas <folder>', 'what interpret wrote')
    .option('--out <folder>', 'folder of the report')
    .option('--run <folder>', 'the run, for its configuration and loss curves')
    .option('--evaluation <path>', 'what evaluate wrote')
    .option('--baseline <path>', 'an evaluation of separate autoencoders, shown as a control')
    .option('--model <folder>', 'the model, for the page of pairs (with --activations)')
    .option('--activations <folder>', 'the store, for the page of pairs')
    .option('--pairs <count>', 'pairs to look into under the plan (48)', toInteger)
    .option('--compare <path>', 'what evaluate wrote of another run, shown beside this one')
    .option('--compare-run <folder>', 'that run, for its configuration')
    .option('--title <text>', 'title of the report')
  addCommonOptions(command)
  action(command, async ({ options }, output) => {
    const {
      atlas: from,
      out,
      run,
      evaluation,
      baseline,
      title,
      model,
      activations,
      compare,
      compareRun,
    } = options as Record<string, string | undefined>
    const { pairs } = options as { pairs?: number }
    if (from === undefined) throw optionError('atlas', from, 'the folder of an atlas')
    if (out === undefined) throw optionError('out', out, 'the folder of the report')
    const extra: ReportOptions = {
      ...(run === undefined ? {} : { run }),
      ...(title === undefined ? {} : { title }),
      ...(evaluation === undefined ? {} : { evaluation: readEvaluation('evaluation', evaluation) }),
      ...(baseline === undefined ? {} : { baseline: readEvaluation('baseline', baseline) }),
      ...(model === undefined ? {} : { model }),
      ...(activations === undefined ? {} : { activations }),
      ...(pairs === undefined ? {} : { pairs }),
      ...(compare === undefined
        ? {}
        : {
            compare: {
              title: basename(compareRun ?? compare),
              evaluation: readEvaluation('compare', compare),
              ...(compareRun === undefined ? {} : { run: compareRun }),
            },
          }),
    }
    const atlas = await loadAtlas(from)
    await atlas.report(out, extra)
    const page = join(out, 'index.html')
    output.line(`open ${page}`)
    output.result({ report: out, page })
  })
}
