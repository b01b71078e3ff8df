/** The paper's pictures for a model: what is drawn, that it is well-formed whatever the texts are, and that nothing is overwritten. */

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { inflateSync } from 'node:zlib'
import { chromium } from 'playwright-core'
import { conceptsByCategory, drawLatents } from '../ts/figures/choose.js'
import { writeFigures } from '../ts/figures/index.js'
import { png } from '../ts/figures/png.js'
import { xml } from '../ts/figures/svg.js'
import { errorOf, root, temporary } from './support/data.js'
import { handmadeAtlas } from './support/report-atlas.js'

const work = temporary()
const attacks = JSON.parse(readFileSync(join(root, '__tests__', 'attacks.json'), 'utf8')) as string[]
const binary = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium'
const browserTest = existsSync(binary) ? it : it.skip
const reason = existsSync(binary) ? '' : ' (skipped: no Chromium; set CHROMIUM_PATH)'
const plain = ['red', 'striped', 'a heart', 'sand']

test('every figure and table is written; what is missing says why', async () => {
  const folder = join(work, 'all')
  const made = await writeFigures(
    handmadeAtlas(30, 12, plain, 12),
    { outOfDistribution: handmadeAtlas(30, 12, plain) },
    folder,
  )
  const figures = [3, 4, 5, 6, 7].map((n) => `figure${n}.svg`)
  expect(made.files).toEqual([...figures, 'table1.md', 'table5.md', 'figures.md'])
  expect(made.skipped).toEqual({})
  expect(readdirSync(folder).sort()).toEqual([...made.files].sort())
  const four = readFileSync(join(folder, 'figure4.svg'), 'utf8')
  // Two latents, five pictures each, each with the box of its peak and its crop.
  expect(four.match(/stroke="#e0001b"/g)).toHaveLength(10)
  expect(four.match(/<svg [^>]*viewBox="\d+ \d+ 3 3"/g)).toHaveLength(10)
  expect(readFileSync(join(folder, 'table5.md'), 'utf8').trim().split('\n')).toHaveLength(4 + 12)
  const without = await writeFigures(handmadeAtlas(3, 4, plain, 0), {}, folder)
  expect(Object.keys(without.skipped)).toEqual(['figure3.svg', 'figure5.svg', 'figure7.svg'])
  expect(readFileSync(join(folder, 'figures.md'), 'utf8')).toContain('no atlas over other pictures was given')
})

test('the draw follows the seed; several names of one latent do not crowd out others', () => {
  const { data } = handmadeAtlas(60, 5, plain)
  const drawn = (seed: number): number[] => drawLatents(data, 12, seed).map(({ latent }) => latent)
  expect(drawn(1)).toEqual(drawn(1))
  expect(drawn(1)).not.toEqual(drawn(2))
  expect(drawn(3).every((latent) => data.latents[latent]?.label !== null)).toBe(true)
  const [first] = data.concepts
  if (!first) throw new Error('no concept')
  const concept = (name: string, latent: number, confidence: number) => ({
    ...first,
    name,
    category: 'shape',
    confidence,
    latents: [{ latent, hits: 1, weight: 1, idf: 1 }],
  })
  const concepts = [concept('valentine', 4, 2), concept('heart', 4, 3), concept('star', 5, 1)]
  expect(conceptsByCategory({ concepts }, 2)[0]?.concepts.map(({ name }) => name)).toEqual(['heart', 'star'])
  expect(conceptsByCategory({ concepts }, 3)[0]?.concepts.map(({ name }) => name)).toEqual([
    'heart',
    'star',
    'valentine',
  ])
})

test('a PNG holds its pixels; XML holds no markup', () => {
  const pixels = Uint8Array.from({ length: 4 * 6 }, (_, i) => i)
  const file = png(pixels, 3, 2)
  expect(file.subarray(1, 4).toString()).toBe('PNG')
  const start = file.indexOf('IDAT')
  const rows = inflateSync(file.subarray(start + 4, start + 4 + file.readUInt32BE(start - 4)))
  expect([...rows]).toEqual([0, ...pixels.subarray(0, 12), 0, ...pixels.subarray(12)])
  expect(xml('<a b="c">&\'\u0000\uD800x')).toBe('&#60;a b=&#34;c&#34;&#62;&#38;&#39;x')
})

test('a folder of something else is left alone', async () => {
  const other = join(work, 'other')
  mkdirSync(other)
  writeFileSync(join(other, 'thesis.txt'), 'years of work')
  const error = await errorOf(() => writeFigures(handmadeAtlas(3, 3, plain), {}, other))
  expect(error.code).toBe('E_BUSY')
  expect(readdirSync(other)).toEqual(['thesis.txt'])
  expect((await errorOf(() => writeFigures(handmadeAtlas(3, 3, plain), { seed: -1 }, join(work, 'n')))).code).toBe(
    'E_OPTION',
  )
})

browserTest(
  `whatever the texts are, a figure is a drawing that runs and fetches nothing${reason}`,
  async () => {
    const folder = join(work, 'attacked')
    await writeFigures(handmadeAtlas(attacks.length, 20, attacks, attacks.length), { seed: 4 }, folder)
    const browser = await chromium.launch({ executablePath: binary, args: ['--no-sandbox', '--disable-gpu'] })
    try {
      const page = await browser.newPage()
      const faults: string[] = []
      page.on('dialog', (dialog) => {
        faults.push(dialog.message())
        dialog.dismiss().catch(() => undefined)
      })
      page.on('request', (request) => {
        if (!/^(file|data):/.test(request.url())) faults.push(request.url())
      })
      for (const file of ['figure3.svg', 'figure4.svg', 'figure6.svg']) {
        await page.goto(pathToFileURL(join(folder, file)).href)
        const found = await page.evaluate(() => ({
          root: document.documentElement.nodeName,
          errors: document.querySelectorAll('parsererror, script, foreignObject').length,
          elements: [...new Set([...document.querySelectorAll('*')].map((element) => element.nodeName))].sort(),
          pictures: document.querySelectorAll('image').length,
        }))
        expect(found.root).toBe('svg')
        expect(found.errors).toBe(0)
        expect(['g', 'image', 'rect', 'style', 'svg', 'text', 'title']).toEqual(expect.arrayContaining(found.elements))
        expect(found.pictures).toBeGreaterThan(0)
      }
      expect(faults).toEqual([])
    } finally {
      await browser.close()
    }
  },
  60_000,
)
