import type { Command } from 'commander'
import { optionError } from '../errors.js'
import { type ExploreOptions, explore, type FoundLatent, type FoundPair } from '../explore.js'
import { action } from './commands.js'
import { addCommonOptions, toInteger, toNumber } from './options.js'
import { number, type Output, table } from './output.js'

function withModel(command: Command): Command {
  return addCommonOptions(
    command
      .option('--model <folder>', 'folder of the model or run')
      .option('--activations <folder>', 'the store to look through')
      .option('--backbone <name>', "the backbone the model was trained on ('mini')")
      .option('--atlas <folder>', 'names of latents, and concepts to look for')
      .option('--top <count>', 'answers to give (12)', toInteger),
  )
}

/** The options of {@link explore}, and what remains. */
function parted(options: Record<string, unknown>): { of: ExploreOptions; top: { top?: number } } {
  const { model, activations, backbone, atlas, top } = options
  const given = Object.fromEntries(
    Object.entries({ model, activations, backbone, atlas }).filter(([, value]) => value !== undefined),
  )
  return { of: given as unknown as ExploreOptions, top: top === undefined ? {} : { top: top as number } }
}

const name = ({ latent, label }: FoundLatent): string => (label === null ? `latent ${latent}` : `${latent}: ${label}`)

function show(output: Output, title: string, rows: readonly (readonly [string, number])[]): void {
  output.line(title)
  if (rows.length === 0) output.line('  none')
  for (const line of table(rows.map(([text, value]) => [`  ${text}`, number(value)]))) output.line(line)
}

const pairs = (found: readonly FoundPair[]): [string, number][] =>
  found.map(({ key, caption, score }) => [`${key}  ${caption}`, score])

/** `lucid-sae search | explain | nearest | steer`: questions to a trained model. */
export function addExplore(root: Command): void {
  const search = root
    .command('search')
    .description('words → the latents they fire and the pictures nearest to them')
    .argument('<phrase...>', 'the words')
  action(withModel(search), async ({ options }, output, words) => {
    const { of, top } = parted(options)
    const found = await (await explore(of)).search(words.join(' '), top)
    show(
      output,
      'latents',
      found.latents.map((entry) => [name(entry), entry.weight]),
    )
    show(output, 'pictures', pairs(found.images))
    output.result(found)
  })

  const explain = root
    .command('explain')
    .description('a picture → its concepts and latents, and the pictures most like it')
    .argument('<image>', 'file of the picture')
  action(withModel(explain), async ({ options }, output, [image]) => {
    if (image === undefined) throw optionError('image', image, 'the file of a picture')
    const { of, top } = parted(options)
    const found = await (await explore(of)).explainImage(image, top)
    show(
      output,
      'concepts',
      found.concepts.map(({ concept, confidence }) => [concept, confidence]),
    )
    show(
      output,
      'latents',
      found.latents.map((entry) => [name(entry), entry.activation]),
    )
    show(output, 'pictures', pairs(found.neighbours))
    const plain = <T extends { heat: Float32Array }>(entry: T) => ({ ...entry, heat: Array.from(entry.heat) })
    output.result({ ...found, concepts: found.concepts.map(plain), latents: found.latents.map(plain) })
  })

  const nearest = root
    .command('nearest')
    .description('the latents most like one')
    .argument('<latent>', 'its number', toInteger)
    .option('--by <choice>', "'coactivation' (default), 'decoder-vision' or 'decoder-text'")
  action(withModel(nearest), async ({ options }, output) => {
    const { of, top } = parted(options)
    const by = options.by === undefined ? {} : { by: options.by as 'coactivation' }
    const found = await (await explore(of)).nearest(Number(nearest.processedArgs[0]), { ...top, ...by })
    show(
      output,
      'latents',
      found.map((entry) => [name(entry), entry.similarity]),
    )
    output.result(found)
  })

  const steer = root
    .command('steer')
    .description('turn a latent of a picture up or down: what the decoder and retrieval make of it')
    .argument('<image>', 'position of a pair of the store, or the file of a picture')
    .option('--latent <number>', 'the latent', toInteger)
    .option('--factor <number>', 'multiplies its activation', toNumber)
    .option('--value <number>', 'sets it on every patch', toNumber)
  action(withModel(steer), async ({ options }, output, [image = '']) => {
    const { of, top } = parted(options)
    const { latent, factor, value } = options as { latent?: number; factor?: number; value?: number }
    if (latent === undefined) throw optionError('latent', latent, 'the number of a latent')
    const found = await (await explore(of)).steer({
      image: /^\d+$/.test(image) ? Number(image) : image,
      latent,
      ...top,
      ...(factor === undefined ? {} : { factor }),
      ...(value === undefined ? {} : { value }),
    })
    output.line(
      `${name(found)} fired on ${found.fired} patches; the decoded states move by ${number(100 * found.change)} % of their size, cosine ${number(found.cosine)}`,
    )
    show(output, 'nearest captions before', pairs(found.before))
    show(output, 'nearest captions after', pairs(found.after))
    output.result({ ...found, heat: Array.from(found.heat) })
  })
}
