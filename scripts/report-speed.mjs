// `node scripts/report-speed.mjs [LATENTS] [PICTURES] [CONCEPTS]`: writes a large report and measures it in Chromium: time to write, size, first
// paint from disk, and frames a second while the lists scroll.

import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'
import { png } from '../dist/figures/png.js'
import { writeReport } from '../dist/report/index.js'
import { browser as findBrowser } from './lib/setup.mjs'

const [latents = 5000, pictures = 10_000, concepts = 2000] = process.argv.slice(2).map(Number)
const PATCHES = 196
const WORDS = ['red', 'striped', 'three', 'left of', 'water', 'a dog that runs', 'grass', 'person', 'kite', 'train']
const word = (i) => `${WORDS[i % WORDS.length]} ${i}`
const hit = (at, latent) => ({
  image: (7919 * at) % pictures,
  peak: [at % 14, (3 * at) % 14],
  value: 1 + (at % 9) / 10,
  latent,
  map: 0,
})
const hits = (latent) => Array.from({ length: 8 }, (_, i) => hit(8 * latent + i, latent))
const list = (count, make) => Array.from({ length: count }, (_, i) => make(i))
const data = {
  format: 'lucid-atlas',
  formatVersion: 1,
  version: '0.1.0',
  model: { dShared: latents, latents: 2 * latents },
  store: { fingerprint: '0', pairs: pictures },
  options: {},
  threshold: 0.4,
  peaks: 1000,
  images: list(pictures, (i) => ({
    pair: i,
    key: `picture-${i}.jpg`,
    file: null,
    caption: `${word(i)} beside ${word(i + 1)} on a sunny day`,
    captions: [],
    grid: [14, 14],
    size: [112, 112],
  })),
  latents: list(latents, (latent) => ({
    latent,
    label: latent % 3 === 2 ? null : word(latent),
    reason: latent % 3 === 2 ? 'few hits' : null,
    topTerms: list(5, (i) => ({ term: word(latent + i), concept: i, hits: 9, confidence: 1.5 })),
    purity: latent % 3 === 2 ? null : 0.8,
    hits: latent,
    clusters: [],
    density: { vision: 0.03, text: 0.02 },
    words: list(12, (i) => ({ word: word(latent + i), activation: 1.25, max: 2, count: 40, share: 0.9 })),
    images: hits(latent),
  })),
  concepts: list(concepts, (concept) => ({
    concept,
    name: word(concept),
    category: ['objects', 'stuff', 'actions', 'attributes'][concept % 4],
    hits: 5,
    confidence: 1.2,
    latents: list(8, (i) => ({ latent: (concept + i) % latents, hits: 5, weight: 0.9 - i / 10, idf: 1.1 })),
    images: hits(concept),
  })),
}
const pixels = new Uint8Array(4 * 112 * 112).map((_, i) => (i % 4 === 3 ? 255 : (i * 31) % 256))
const picture = png(pixels, 112, 112)
const heat = Float32Array.from({ length: PATCHES }, (_, i) => (i % 17) / 17)
const atlas = { data, latents: data.latents, concepts: data.concepts, heat: () => heat, picture: () => picture }

const folder = mkdtempSync(join(tmpdir(), 'lucid-report-'))
const report = join(folder, 'report')
try {
  const started = performance.now()
  await writeReport(atlas, { title: 'A large report' }, report)
  const written = (performance.now() - started) / 1000
  const sizes = readdirSync(join(report, 'data')).map((name) => [name, statSync(join(report, 'data', name)).size])
  const first = sizes.find(([name]) => name === 'report.js')[1]
  process.stdout.write(
    `${latents} latents, ${pictures} pictures, ${concepts} concepts; ${cpus().length} × ${cpus()[0]?.model}\n`,
  )
  process.stdout.write(`written in ${written.toFixed(1)} s; report.js ${(first / 2 ** 20).toFixed(2)} MiB\n`)

  const browser = await chromium.launch({ executablePath: await findBrowser(), args: ['--no-sandbox'] })
  const page = pathToFileURL(join(report, 'index.html')).href
  const paints = []
  for (let run = 0; run < 5; run += 1) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 } })
    const tab = await context.newPage()
    await tab.goto(page)
    await tab.waitForSelector('h1')
    paints.push(
      await tab.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Number.NaN),
    )
    await context.close()
  }
  paints.sort((a, b) => a - b)
  process.stdout.write(`first paint ${paints.map((t) => t.toFixed(0)).join(', ')} ms (goal: under 1500)\n`)
  for (const route of ['#/latents', '#/concepts', '#/']) {
    const tab = await browser.newPage({ viewport: { width: 1280, height: 860 } })
    await tab.goto(`${page}${route}`)
    await tab.waitForSelector('h1')
    await tab.waitForTimeout(500)
    const { frames, seconds, longest } = await tab.evaluate(
      () =>
        new Promise((resolve) => {
          const start = performance.now()
          let [frames, last, longest] = [0, start, 0]
          const step = (now) => {
            frames += 1
            longest = Math.max(longest, now - last)
            last = now
            scrollBy(0, 60)
            // The table of latents scrolls in a frame of its own.
            for (const element of document.querySelectorAll('.scroll')) element.scrollTop += 60
            if (now - start < 4000) requestAnimationFrame(step)
            else resolve({ frames, seconds: (now - start) / 1000, longest })
          }
          requestAnimationFrame(step)
        }),
    )
    const rate = (frames / seconds).toFixed(1)
    process.stdout.write(
      `${route}: ${rate} frames a second while scrolling, longest frame ${longest.toFixed(0)} ms (goal: 60)\n`,
    )
    await tab.close()
  }
  await browser.close()
} finally {
  rmSync(folder, { recursive: true, force: true })
}
