import type { Command } from 'commander'
import { type CompareModelsOptions, compareModels, type ProbeOptions, type Probing, probe } from '../probe.js'
import { action } from './commands.js'
import { addCommonOptions, toInteger } from './options.js'
import { number, type Output, table } from './output.js'
import { follow } from './work.js'

function rows(
  output: Output,
  head: readonly string[],
  body: readonly (readonly (string | number | undefined)[])[],
): void {
  const text = (cell: string | number | undefined): string => (typeof cell === 'number' ? number(cell) : (cell ?? '–'))
  output.line('')
  for (const line of table([[...head], ...body.map((row) => row.map(text))])) output.line(line)
}

/** The answers as tables, each number beside what chance gives. */
function show(found: Probing, output: Output): void {
  const modalities = (['vision', 'text'] as const).flatMap((modality) => {
    const probes = found.probes[modality]
    return probes ? [[modality, probes] as const] : []
  })
  rows(
    output,
    [
      'area under ROC (chance 0.5)',
      'states',
      'codes',
      'five latents',
      'one latent',
      'codes, wrong labels',
      'one, wrong labels',
    ],
    modalities.map(([modality, { mean, concepts }]) => [
      `${modality}, ${concepts.length} concepts`,
      mean.states,
      mean.codes,
      mean.five,
      mean.one,
      mean.shuffled,
      mean.oneShuffled,
    ]),
  )
  rows(
    output,
    ['latents of a concept', 'split', 'silent', 'absorbed', 'silent, another concept'],
    modalities.map(([modality, { split, silent, absorbed, silentShuffled }]) => [
      modality,
      split,
      silent,
      absorbed,
      silentShuffled,
    ]),
  )
  const classes = Object.entries(found.classification ?? {})
  if (classes.length > 0) {
    rows(
      output,
      ['right class', 'pictures', 'states', 'codes', 'bottleneck', 'zero-shot', 'wrong words', 'majority', 'chance'],
      classes.map(([kind, c]) => [
        `${kind}, one of ${c.classes}`,
        String(c.pictures),
        c.states,
        c.codes,
        c.bottleneck,
        c.zeroShot,
        c.zeroShotShuffled,
        c.majority,
        c.chance,
      ]),
    )
  }
  if (found.zeroShot) {
    rows(
      output,
      ['zero-shot, area under ROC', 'own words', "another's words"],
      [[`${found.zeroShot.concepts} concepts`, found.zeroShot.auc, found.zeroShot.shuffled]],
    )
  }
  const edits = Object.entries(found.edits ?? {})
  if (edits.length > 0) {
    rows(
      output,
      [
        'edits (beside those of another edit)',
        'edits',
        'new rises most',
        '',
        'old falls most',
        '',
        'share of movement',
        '',
      ],
      edits.map(([kind, { edits, rises, falls, onTarget, shuffled }]) => [
        kind,
        String(edits),
        rises,
        shuffled.rises,
        falls,
        shuffled.falls,
        onTarget,
        shuffled.onTarget,
      ]),
    )
  }
  for (const [path, reason] of Object.entries(found.skipped ?? {})) output.line(`not measured: ${path}: ${reason}`)
}

/** `lucid-sae probe | compare-models`: what codes know of concepts, and what another seed leaves of the latents. */
export function addProbe(root: Command): void {
  const command = root
    .command('probe')
    .description('ask what shared codes know of concepts: probes, classes, zero-shot, splitting, absorption, edits')
    .option('--model <folder>', 'folder of the model or run')
    .option('--fit-on <folder>', 'store that the readouts are fitted on')
    .option('--activations <folder>', 'store that they are tested on; scenes with --edits for causal edits')
    .option('--seed <seed>', 'seed of shuffled labels and of the bootstrap (0)', toInteger)
    .option('--bootstrap <count>', 'resamples of the intervals (1000)', toInteger)
    .option('--threads <count>', 'threads to use', toInteger)
  addCommonOptions(command)
  action(command, async ({ options }, output) => {
    const found = await follow(probe(options as unknown as ProbeOptions), output)
    output.line(`fitted on ${found.fitted} pairs, tested on ${found.tested}; labels: ${found.labels}`)
    show(found, output)
    output.result(found)
  })
  const compare = root
    .command('compare-models')
    .description('match the shared latents of two models one to one by their decoder rows')
    .option('--model <folder>', 'folder of a model or run')
    .option('--other <folder>', 'folder of another')
    .option('--activations <folder>', 'match only the latents that fire on these pairs')
    .option('--threads <count>', 'threads to use', toInteger)
  addCommonOptions(compare)
  action(compare, async ({ options }, output) => {
    const found = await follow(compareModels(options as unknown as CompareModelsOptions), output)
    const { latents, matched, random } = found
    output.line(`latents: ${latents[0]} and ${latents[1]}`)
    rows(
      output,
      ['', 'mean cosine', 'share ≥ 0.7'],
      [
        ['matched', matched.mean, matched.same],
        ['random directions', random.mean, random.same],
      ],
    )
    output.result(found)
  })
}
