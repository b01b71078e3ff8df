/** Writes the report: one folder that opens from disk and needs no network. */

import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { AtlasHit } from '../atlas-data.js'
import { configMeaning } from '../config-meaning.js'
import { LucidError, optionError } from '../errors.js'
import type { Atlas, ReportOptions } from '../interpret.js'
import { reportNumbers } from './numbers.js'
import { pairsOf } from './pairs.js'
import { type RunFolder, readRun } from './run-log.js'
import type {
  ReportComparison,
  ReportConceptDetail,
  ReportData,
  ReportHit,
  ReportLatentDetail,
  ReportPair,
} from './schema.js'

/** Latents and concepts whose details share a script: a page loads about 100 kB. */
const CHUNK = 32
/** A pair with its plan is a few kilobytes. */
const PAIRS_CHUNK = 8
const START = { latents: 16, concepts: 12 }

/** What a report needs of an atlas. */
export type ReportAtlas = Pick<Atlas, 'data' | 'latents' | 'concepts' | 'heat' | 'picture'> &
  Partial<Pick<Atlas, 'source'>>

/** A picture for an image of which the store keeps none. */
const NO_PICTURE =
  'data:image/svg+xml,%3Csvg xmlns="http://www.w3.org/2000/svg" width="160" height="160"%3E%3Crect width="160" height="160" fill="%23999"/%3E%3C/svg%3E'

/**
 * Writes the report of an atlas to `folder`, by rename once it is complete. A report that lies there is replaced;
 * anything else is left alone (`E_BUSY`).
 */
export async function writeReport(
  atlas: ReportAtlas,
  options: ReportOptions & Pick<ReportData, 'watching'>,
  folder: string,
): Promise<void> {
  if (typeof folder !== 'string' || folder === '') throw optionError('folder', folder, 'a folder to write')
  const target = resolve(folder)
  if (existsSync(target) && !existsSync(join(target, 'data', 'report.json'))) {
    throw new LucidError('E_BUSY', `${target} exists and is not a report`, {
      details: { file: target, found: 'another folder', expected: 'a new folder, or an older report' },
      hint: 'choose another folder for the report',
    })
  }
  await mkdir(dirname(target), { recursive: true })
  const work = await mkdtemp(join(dirname(target), `.${basename(target)}-`))
  try {
    await cp(pageFolder(), work, { recursive: true })
    await mkdir(join(work, 'data'))
    await mkdir(join(work, 'images'))
    const data = await reportData(atlas, options)
    await writePictures(atlas, data, work)
    const pairs = await writePairs(atlas, options, data, work)
    await writeData(work, 'report', data, 'window.LUCID_REPORT = ')
    const latents: ReportLatentDetail[] = atlas.latents.map((latent) => ({
      latent: latent.latent,
      words: latent.words.map(({ word, activation, count }) => ({ word, activation, count })),
      hits: hits(atlas, latent.images),
      histogram: latent.histogram ?? null,
    }))
    const concepts: ReportConceptDetail[] = atlas.concepts.map((concept) => ({
      concept: concept.name,
      hits: hits(atlas, concept.images),
    }))
    await writeChunks(work, 'latents', latents)
    await writeChunks(work, 'concepts', concepts)
    await writeChunks(work, 'pairs', pairs, PAIRS_CHUNK)
    await publish(work, target)
  } catch (error) {
    await rm(work, { recursive: true, force: true })
    if (error instanceof LucidError) throw error
    const { code, message } = error as NodeJS.ErrnoException
    throw new LucidError('E_IO', `cannot write the report ${target}: ${message}`, {
      details: { file: target, found: code },
    })
  }
}

/** The bundle that `vite build` left beside the compiled package. */
function pageFolder(): string {
  const here = dirname(fileURLToPath(import.meta.url))
  const places = [join(here, 'page'), join(here, '..', '..', 'dist', 'report', 'page')]
  const found = places.find((place) => existsSync(join(place, 'page.js')))
  if (!found) throw new LucidError('E_IO', 'the report page is not built', { hint: 'run npm run build' })
  return found
}

async function publish(work: string, target: string): Promise<void> {
  if (!existsSync(target)) return rename(work, target)
  const old = `${work}-old`
  await rename(target, old)
  await rename(work, target)
  await rm(old, { recursive: true, force: true })
}

/** JSON that may stand in a script element: no `</script>`, no line separators that older parsers break at. */
export function scriptJson(value: unknown): string {
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
}

async function writeData(work: string, name: string, value: unknown, assign: string, close = ''): Promise<void> {
  await writeFile(join(work, 'data', `${name}.json`), `${JSON.stringify(value)}\n`)
  await writeFile(join(work, 'data', `${name}.js`), `${assign}${scriptJson(value)}${close};\n`)
}

async function writeChunks(work: string, name: string, details: readonly unknown[], size = CHUNK): Promise<void> {
  for (let start = 0; start < details.length; start += size) {
    const chunk = `${name}-${String(start / size).padStart(3, '0')}`
    await writeData(work, chunk, details.slice(start, start + size), `window.LUCID_CHUNK("${chunk}", `, ')')
  }
}

/** Pairs under the transport plan, with their pictures; `data.pairs` is told what there is. */
async function writePairs(
  atlas: ReportAtlas,
  options: ReportOptions,
  data: ReportData,
  work: string,
): Promise<readonly ReportPair[]> {
  const found = pairsOf(atlas, options)
  if ('reason' in found) {
    data.pairs = { reason: found.reason }
    return []
  }
  for (const [index, { pair, picture }] of found.pairs.entries()) {
    pair.file = picture ? `images/pair-${String(index).padStart(5, '0')}.jpg` : NO_PICTURE
    if (picture) await writeFile(join(work, pair.file), picture)
  }
  const pairs = found.pairs.map(({ pair }) => pair)
  data.pairs = { list: pairs.map(({ file, caption }) => ({ file, caption })) }
  return pairs
}

async function writePictures(atlas: ReportAtlas, data: ReportData, work: string): Promise<void> {
  for (const [index, image] of data.images.entries()) {
    const bytes = atlas.picture(index)
    if (bytes) await writeFile(join(work, image.file), bytes)
    else image.file = NO_PICTURE
  }
}

/** Heat of each picture relative to its own maximum: a byte a patch is more than the eye sees. */
function hits(atlas: ReportAtlas, entries: readonly AtlasHit[]): ReportHit[] {
  return entries.map((entry) => {
    const values = atlas.heat(entry)
    const largest = values.reduce((most, value) => Math.max(most, value), 0)
    const bytes = Uint8Array.from(values, (value) =>
      largest > 0 ? Math.round((255 * Math.max(value, 0)) / largest) : 0,
    )
    const { image, peak, value } = entry
    return { image, peak: [peak[0], peak[1]], value, heat: Buffer.from(bytes).toString('base64') }
  })
}

async function reportData(
  atlas: ReportAtlas,
  options: ReportOptions & Pick<ReportData, 'watching'>,
): Promise<ReportData> {
  const { watching } = options
  const run = options.run === undefined ? undefined : await readRun(options.run, watching !== undefined)
  const evaluation = options.evaluation ?? null
  const { data } = atlas
  const shared = data.latents.filter((latent) => latent.label !== null)
  const order = [...shared].sort(
    (a, b) => (b.purity ?? 0) * Math.log1p(b.hits) - (a.purity ?? 0) * Math.log1p(a.hits) || a.latent - b.latent,
  )
  const byConfidence = [...data.concepts].filter((concept) => concept.images.length > 0)
  byConfidence.sort((a, b) => b.hits - a.hits || b.confidence - a.confidence || a.concept - b.concept)
  return {
    format: 2,
    title: options.title ?? 'What the shared latents mean',
    created: new Date().toISOString().slice(0, 10),
    version: data.version,
    notes: [...(options.notes ?? [])],
    ...(watching === undefined ? {} : { watching }),
    facts: facts(atlas, run),
    numbers: evaluation ? reportNumbers(evaluation, options.baseline) : [],
    evaluation,
    curves: run?.curves ?? [],
    stages: [...(options.stages ?? [])],
    config: run?.config ?? {},
    images: data.images.map((image, index) => ({
      file: `images/${String(index).padStart(5, '0')}.jpg`,
      key: image.key,
      caption: image.caption,
      grid: [image.grid[0], image.grid[1]],
    })),
    latents: data.latents.map(({ latent, label, topTerms, purity, density, hits, reason }) => ({
      latent,
      label,
      terms: topTerms.map((term) => term.term),
      purity,
      density,
      hits,
      reason,
      bridge: evaluation?.latents?.[latent]?.bridge ?? null,
      modality: evaluation?.latents?.[latent]?.modality ?? null,
      monosemanticity: evaluation?.latents?.[latent]?.monosemanticity ?? null,
    })),
    pairs: { reason: 'not made yet' },
    compare: await comparison(options),
    meanings: { ...configMeaning },
    concepts: data.concepts.map(({ name, category, latents, confidence }) => ({
      concept: name,
      category,
      latents: latents.slice(0, 8).map(({ latent, weight }) => ({ latent, weight })),
      confidence,
    })),
    chunk: { latents: CHUNK, concepts: CHUNK, pairs: PAIRS_CHUNK },
    start: {
      latents: [...(options.start ?? order.map((latent) => latent.latent))].slice(0, START.latents),
      concepts: byConfidence.slice(0, START.concepts).map((concept) => concept.name),
    },
  }
}

/** The run given to stand beside this one, or the separate autoencoders. */
async function comparison({ compare, baseline }: ReportOptions): Promise<ReportComparison | { reason: string }> {
  if (compare) {
    const run = compare.run === undefined ? undefined : await readRun(compare.run)
    return { title: compare.title, numbers: reportNumbers(compare.evaluation), config: run?.config ?? {} }
  }
  if (baseline) return { title: 'separate autoencoders', numbers: reportNumbers(baseline), config: {} }
  return { reason: 'no second run was given to the report' }
}

function facts(atlas: ReportAtlas, run: RunFolder | undefined): ReportData['facts'] {
  const config = run?.config ?? {}
  const text = (name: string): string => String(config[name])
  const list: ReportData['facts'] = []
  if (atlas.data.store.pairs > 0) {
    list.push({ name: 'pictures looked at', value: String(atlas.data.store.pairs) })
    list.push({ name: 'concepts', value: String(atlas.data.concepts.length) })
  }
  if (run && Object.keys(config).length > 0) {
    list.push({ name: 'preset', value: text('preset') })
    list.push({ name: 'latents', value: `${text('dShared')} shared + ${text('dPrivate')} private, each modality` })
    list.push({ name: 'k', value: `${text('kShared')} + ${text('kPrivate')}` })
  }
  const last = run?.curves.at(-1)
  if (last) list.push({ name: 'steps', value: String(last.step) })
  return list
}
