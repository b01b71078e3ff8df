/** The paper's pictures for a trained model: Figures 3 to 7 as SVG, Tables 1 and 5 as Markdown. */

import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import type { AtlasHit, AtlasLatent } from '../atlas-data.js'
import { LucidError, optionError } from '../errors.js'
import type { ReportAtlas } from '../report/index.js'
import { conceptsByCategory, drawLatents } from './choose.js'
import { crop, drawing, short, type Tile, text, tile } from './svg.js'

/** How the pictures are made. */
export interface FiguresOptions {
  /** Seed of the draw of latents. Default 0. */
  seed?: number
  /** An atlas of the same model over other pictures, for Figure 5. */
  outOfDistribution?: ReportAtlas
}

/** What was written, and why the rest was not. */
export interface Figures {
  readonly folder: string
  readonly files: readonly string[]
  readonly skipped: Readonly<Record<string, string>>
}

const MARK = 'figures.md'
const SIDE = 150
const GAP = 10
/** Pictures of a concept, of a latent; latents of the short and of the long figure; concepts of a category in either. */
const COUNT = { conceptImages: 2, latentImages: 5, latents: [2, 12], concepts: [2, 6] } as const

function tileOf(atlas: ReportAtlas, hit: AtlasHit, subject: string, heat: boolean): Tile {
  const image = atlas.data.images[hit.image]
  return {
    picture: atlas.picture(hit.image),
    grid: image?.grid ?? [1, 1],
    ...(heat ? { heat: atlas.heat(hit) } : { peak: hit.peak }),
    alt: `${subject} in ${image?.key ?? 'a picture'}, peak ${hit.value.toFixed(2)}`,
  }
}

/** Concepts by category, two pictures each under their heat maps (Figures 3, 5 and 7); why not where there are none. */
function conceptFigure(atlas: ReportAtlas, title: string, each: number): string | { reason: string } {
  const groups = conceptsByCategory(atlas.data, each)
  if (groups.length === 0) return { reason: 'the atlas has no concept with pictures' }
  const cellWidth = COUNT.conceptImages * (SIDE + 4) + GAP
  const columns = Math.min(3, Math.max(...groups.map(({ concepts }) => concepts.length)))
  const content: string[] = [text(title, GAP, 26, 'title')]
  let y = 46
  // A picture is shown twice only where there is no other.
  const shown = new Set<number>()
  for (const { category, concepts } of groups) {
    content.push(text(category, GAP, y + 14, 'head'))
    y += 24
    for (const [index, concept] of concepts.entries()) {
      const x = GAP + (index % columns) * cellWidth
      const top = y + Math.floor(index / columns) * (SIDE + 26)
      content.push(text(short(concept.name, 40), x, top + 12, 'label'))
      const fresh = concept.images.filter(({ image }) => !shown.has(image))
      const others = concept.images.filter((hit) => !fresh.includes(hit))
      for (const [position, hit] of [...fresh, ...others].slice(0, COUNT.conceptImages).entries()) {
        shown.add(hit.image)
        content.push(tile(tileOf(atlas, hit, concept.name, true), x + position * (SIDE + 4), top + 18, SIDE))
      }
    }
    y += Math.ceil(concepts.length / columns) * (SIDE + 26) + GAP
  }
  return drawing(title, GAP + columns * cellWidth, y, content)
}

/** Latents with their strongest pictures, the peak patch boxed and cut out (Figures 4 and 6). */
function latentFigure(atlas: ReportAtlas, title: string, latents: readonly AtlasLatent[]): string | { reason: string } {
  if (latents.length === 0) return { reason: 'no latent has a label and pictures' }
  const small = 60
  const content: string[] = [text(title, GAP, 26, 'title')]
  let y = 46
  for (const { latent, label, images } of latents) {
    content.push(text(`Latent ${latent}: ${short(label ?? '', 60)}`, GAP, y + 14, 'head'))
    for (const [position, hit] of images.slice(0, COUNT.latentImages).entries()) {
      const x = GAP + position * (SIDE + GAP)
      const shown = tileOf(atlas, hit, `latent ${latent}`, false)
      content.push(tile(shown, x, y + 22, SIDE))
      content.push(crop({ ...shown, alt: 'the peak patch and its neighbours' }, x, y + 26 + SIDE, small))
      content.push(text(hit.value.toFixed(2), x + small + 8, y + 40 + SIDE, 'small'))
    }
    y += 22 + SIDE + small + 3 * GAP
  }
  return drawing(title, GAP + COUNT.latentImages * (SIDE + GAP), y, content)
}

const cell = (value: string): string => value.replace(/[\\|`*_<>[\]&]/g, (c) => `\\${c}`).replace(/\s+/g, ' ')

/** What latents mean, by the terms of their largest cluster (Tables 1 and 5). */
function latentTable(title: string, latents: readonly AtlasLatent[]): string {
  const terms = ({ topTerms }: AtlasLatent): string => cell(topTerms.map(({ term }) => term).join(', '))
  const rows = latents.map(
    (latent) =>
      `| ${latent.latent} | ${cell(latent.label ?? '')} | ${terms(latent)} | ${latent.hits} | ${latent.purity?.toFixed(2) ?? '–'} |`,
  )
  const head = ['| latent | label | top terms of the largest cluster | hits | purity |', '|---|---|---|---|---|']
  return [`# ${title}`, '', ...head, ...rows, ''].join('\n')
}

/** Everything to write, by file name. */
function contents(atlas: ReportAtlas, { seed = 0, outOfDistribution }: FiguresOptions) {
  const drawn = drawLatents(atlas.data, COUNT.latents[1], seed)
  const [few, many] = COUNT.latents.map((count) => drawn.slice(0, count)) as [AtlasLatent[], AtlasLatent[]]
  const drawings: [file: string, title: string, found: string | { reason: string }][] = []
  const add = (file: string, title: string, make: (title: string) => string | { reason: string }): void => {
    drawings.push([file, title, make(title)])
  }
  add('figure3.svg', 'Figure 3: concepts across categories', (title) => conceptFigure(atlas, title, COUNT.concepts[0]))
  add('figure4.svg', `Figure 4: ${few.length} latents drawn at random`, (title) => latentFigure(atlas, title, few))
  add('figure5.svg', 'Figure 5: concepts in pictures from elsewhere', (title) =>
    outOfDistribution
      ? conceptFigure(outOfDistribution, title, COUNT.concepts[0])
      : { reason: 'no atlas over other pictures was given' },
  )
  add('figure6.svg', `Figure 6: ${many.length} latents drawn at random`, (title) => latentFigure(atlas, title, many))
  add('figure7.svg', 'Figure 7: concepts across categories, more of them', (title) =>
    conceptFigure(atlas, title, COUNT.concepts[1]),
  )
  add('table1.md', 'Table 1: what two latents mean', (title) =>
    few.length === 0 ? { reason: 'no latent has a label and pictures' } : latentTable(title, few),
  )
  add('table5.md', `Table 5: what ${many.length} latents mean`, (title) =>
    many.length === 0 ? { reason: 'no latent has a label and pictures' } : latentTable(title, many),
  )
  return drawings
}

/**
 * Writes Figures 3 to 7 of the paper as SVG and Tables 1 and 5 as Markdown for the model of an atlas, and `figures.md`, which shows
 * them and says which are missing and why. An older folder of figures is replaced; anything else is left alone (`E_BUSY`).
 */
export async function writeFigures(atlas: ReportAtlas, options: FiguresOptions, folder: string): Promise<Figures> {
  if (typeof folder !== 'string' || folder === '') throw optionError('folder', folder, 'a folder to write')
  const { seed = 0 } = options
  if (!Number.isSafeInteger(seed) || seed < 0) throw optionError('seed', seed, 'an integer of 0 or more')
  const target = resolve(folder)
  if (existsSync(target) && !existsSync(join(target, MARK)) && (await readdir(target)).length > 0) {
    throw new LucidError('E_BUSY', `${target} exists and holds no figures`, {
      details: { file: target, found: 'another folder', expected: 'a new folder, or older figures' },
      hint: 'choose another folder for the figures',
    })
  }
  const files: string[] = []
  const skipped: Record<string, string> = {}
  const lines = ['# Figures and tables', '', `Latents are drawn with seed ${seed} among those with a label.`, '']
  await mkdir(dirname(target), { recursive: true })
  const work = await mkdtemp(join(dirname(target), `.${basename(target)}-`))
  try {
    for (const [file, title, found] of contents(atlas, options)) {
      if (typeof found !== 'string') {
        skipped[file] = found.reason
        lines.push(`- ${title}: not made; ${found.reason}.`, '')
        continue
      }
      await writeFile(join(work, file), found)
      files.push(file)
      lines.push(file.endsWith('.svg') ? `![${title}](${file})` : `- [${title}](${file})`, '')
    }
    await writeFile(join(work, MARK), lines.join('\n'))
    if (existsSync(target)) {
      const old = `${work}-old`
      await rename(target, old)
      await rename(work, target)
      await rm(old, { recursive: true, force: true })
    } else {
      await rename(work, target)
    }
  } catch (error) {
    await rm(work, { recursive: true, force: true })
    if (error instanceof LucidError) throw error
    const { code, message } = error as NodeJS.ErrnoException
    throw new LucidError('E_IO', `cannot write the figures ${target}: ${message}`, {
      details: { file: target, found: code },
    })
  }
  return { folder: target, files: [...files, MARK], skipped }
}
