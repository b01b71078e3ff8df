/** Every text of a report that a stranger may have written, against a list of attacks, in a real headless Chromium. */

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { chromium, type Page } from 'playwright-core'
import { scriptJson, writeReport } from '../ts/report/index.js'
import { latex, markdown, type Table, words } from '../ts/reproduce/table.js'
import { root, temporary } from './support/data.js'
import { handmadeAtlas } from './support/report-atlas.js'

const attacks = JSON.parse(readFileSync(join(root, '__tests__', 'attacks.json'), 'utf8')) as string[]
const folder = temporary()
const binary = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium'
const browserTest = existsSync(binary) ? it : it.skip
const reason = existsSync(binary) ? '' : ' (skipped: no Chromium; set CHROMIUM_PATH)'

test('the list is as long as promised, and every entry differs', () => {
  expect(attacks.length).toBeGreaterThanOrEqual(100)
  expect(new Set(attacks).size).toBe(attacks.length)
})

/** What a page must not do, collected while it is open. */
async function watched(page: Page): Promise<string[]> {
  const faults: string[] = []
  page.on('dialog', (dialog) => {
    faults.push(`dialog: ${dialog.message()}`)
    dialog.dismiss().catch(() => undefined)
  })
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`))
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(`console: ${message.text()}`)
  })
  page.on('popup', (popup) => faults.push(`popup: ${popup.url()}`))
  await page.route('**/*', (route) => {
    const url = route.request().url()
    if (/^(file|data):/.test(url)) return route.continue()
    faults.push(`request: ${url}`)
    return route.abort()
  })
  return faults
}

browserTest(
  `nothing runs, nothing is fetched, and every text is shown as it is${reason}`,
  async () => {
    const report = join(folder, 'report')
    const count = attacks.length
    await writeReport(
      handmadeAtlas(count, count, attacks, count),
      { title: attacks[5] ?? '', notes: attacks.slice(0, 60), stages: attacks.map((name) => ({ name, seconds: 1 })) },
      report,
    )
    const browser = await chromium.launch({ executablePath: binary, args: ['--no-sandbox', '--disable-gpu'] })
    try {
      const page = await browser.newPage()
      const faults = await watched(page)
      const at = pathToFileURL(join(report, 'index.html')).href
      await page.goto(at)
      await page.waitForSelector('h1')
      const go = async (route: string): Promise<void> => {
        await page.evaluate((hash) => {
          location.hash = hash
        }, route)
        await page.waitForSelector('main')
        await page.waitForTimeout(15)
      }
      for (const route of ['#/', '#/latents', '#/concepts', '#/pairs', '#/compare', '#/method']) await go(route)
      for (const [index, attack] of attacks.entries()) {
        await go(`#/latent/${index}`)
        // Every third latent has no name; the others are called `text index`.
        if (index % 3 !== 2) {
          const shown = await page.evaluate(() => document.querySelector('h1')?.textContent)
          expect(shown).toBe(`${attack} ${index}`)
        }
      }
      for (const attack of attacks.slice(0, 60)) {
        await page.fill('input[type=search]', attack.slice(0, 60))
        await page.waitForTimeout(5)
      }
      await page.fill('input[type=search]', '')
      await go('#/concepts')
      const links = await page.locator('main a.concept').all()
      expect(links.length).toBe(count)
      for (const link of links.slice(0, 40)) {
        const href = await link.getAttribute('href')
        expect(href).toMatch(/^#\/concept\//)
      }
      const found = await page.evaluate(() => ({
        pwned: (window as { pwned?: number }).pwned,
        own: ({} as { pwned?: number }).pwned,
        foreign: document.querySelectorAll(
          'main script, main iframe, main object, main embed, main form, main svg, main style',
        ).length,
        scripts: Array.from(document.scripts, (script) => script.getAttribute('src') ?? 'inline'),
      }))
      expect(found.pwned).toBeUndefined()
      expect(found.own).toBeUndefined()
      expect(found.foreign).toBe(0)
      expect(found.scripts.filter((source) => !/^(\.\/page\.js|data\/[a-z]+(-\d+)?\.js)$/.test(source))).toEqual([])
      expect(faults).toEqual([])
    } finally {
      await browser.close()
    }
  },
  120_000,
)

test('scripts of data hold no text that could end them, and give it back unchanged', () => {
  const written = scriptJson(attacks)
  expect(written).not.toMatch(/[<>&\u2028\u2029]/)
  expect(JSON.parse(written)).toEqual(attacks)
})

test('tables in Markdown and LaTeX hold one cell a text', () => {
  const table: Table = {
    id: 'attacks',
    title: 'Attacks',
    columns: [{ name: 'text' }],
    rows: attacks.map((attack) => ({ name: attack, cells: [words(attack)] })),
    notes: [],
  }
  const rows = markdown(table)
    .split('\n')
    .filter((line) => line.startsWith('| '))
  // The head and every row: none is broken up by what is in it.
  expect(rows).toHaveLength(attacks.length + 1)
  for (const row of rows) {
    expect(row.replace(/\\[|\\]/g, '').split('|')).toHaveLength(4)
    expect(row.replace(/\\[\\<>[\]`*_#!|{}]/g, '')).not.toMatch(/[<[`*]/)
  }
  const body = latex(table).split('\\midrule')[1]?.split('\\bottomrule')[0] ?? ''
  const lines = body.split('\n').filter((line) => line.trim() !== '')
  expect(lines).toHaveLength(attacks.length)
  for (const line of lines) {
    const bare = line.replace(/\\[&%$#_{}]/g, '').replace(/\\(textbackslash|textasciitilde|textasciicircum)\{\}/g, '')
    // One ampersand between two cells, and no command but the end of the row.
    expect(bare.split('&')).toHaveLength(2)
    expect(bare.replace(/ \\\\$/, '')).not.toContain('\\')
  }
})
