import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Command } from 'commander'
import { LucidError, optionError } from '../errors.js'
import type { Evaluation } from '../evaluation.js'
import { loadAtlas, type ReportOptions } from '../interpret.js'
import { watchReport } from '../report/watch.js'
import { action } from './commands.js'
import { addCommonOptions, toInteger, toNumber } from './options.js'
import { followWork } from './work.js'

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
    .option('--watch', 'follow --run while it trains: write --out and keep it up to date until the run is done')
    .option('--every <seconds>', 'seconds between two looks of --watch (2)', toNumber)
    .option('--figures <folder>', "the paper's Figures 3 to 7 and Tables 1 and 5 for this model, as SVG and Markdown")
    .option('--figures-seed <seed>', 'seed of the draw of latents (0)', toInteger)
    .option('--other-atlas <folder>', 'an atlas of the same model over other pictures, for Figure 5')
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
      figures,
      otherAtlas,
    } = options as Record<string, string | undefined>
    const { pairs, figuresSeed } = options as { pairs?: number; figuresSeed?: number }
    const { watch, every } = options as { watch?: boolean; every?: number }
    if (watch === true) {
      if (run === undefined) throw optionError('run', run, 'the folder of the run to follow')
      if (out === undefined) throw optionError('out', out, 'the folder of the report')
      output.line(`open ${join(out, 'index.html')}: it follows ${run}`)
      const asked = { run, out, ...(title === undefined ? {} : { title }), ...(every === undefined ? {} : { every }) }
      await followWork(watchReport(asked), output)
      output.result({ report: out, page: join(out, 'index.html') })
      return
    }
    if (from === undefined) throw optionError('atlas', from, 'the folder of an atlas')
    if (out === undefined && figures === undefined) throw optionError('out', out, 'the folder of the report')
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
    const result: Record<string, unknown> = {}
    if (out !== undefined) {
      await atlas.report(out, extra)
      const page = join(out, 'index.html')
      output.line(`open ${page}`)
      Object.assign(result, { report: out, page })
    }
    if (figures !== undefined) {
      const made = await atlas.figures(figures, {
        ...(figuresSeed === undefined ? {} : { seed: figuresSeed }),
        ...(otherAtlas === undefined ? {} : { outOfDistribution: await loadAtlas(otherAtlas) }),
      })
      output.line(`${made.files.join(', ')} in ${figures}`)
      for (const [file, reason] of Object.entries(made.skipped)) output.line(`not made: ${file}: ${reason}`)
      result.figures = made
    }
    output.result(result)
  })
}
