/** The report in a real headless Chromium, opened from disk as a reader opens it. */

import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Browser, chromium, type Page } from 'playwright-core'
import { evaluate, loadAtlas, loadModel, openStore } from '../ts/index.js'
import { scriptJson, writeReport } from '../ts/report/index.js'
import { violations } from './support/accessibility.js'
import { shared } from './support/data.js'
import { handmadeAtlas } from './support/report-atlas.js'

const HOSTILE = [
  '<script>window.pwned = 1</script>',
  '"><img src=x onerror="window.pwned = 2">',
  '</script><script>window.pwned = 3</script>',
  "javascript:window.pwned=4//' onmouseover='window.pwned=5",
  '{{constructor.constructor("window.pwned=6")()}} </title></style><svg onload=window.pwned=7>',
  '\u202Eright to left \u2028 separators \u0000 and \uD83D\uDE00',
]

const binary = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium'
const available = existsSync(binary)
const browserTest = available ? it : it.skip
const reason = available ? '' : ' (skipped: no Chromium; set CHROMIUM_PATH)'

let folder: string
let browser: Browser | undefined

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lucid-report-'))
  if (!available) return
  const args = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ]
  browser = await chromium.launch({ executablePath: binary, args })
}, 60_000)

afterAll(async () => {
  await browser?.close()
  await rm(folder, { recursive: true, force: true })
})

/** Opens the report at a route; collects what a clean page must not have. */
async function open(report: string, route = ''): Promise<{ page: Page; faults: string[] }> {
  if (!browser) throw new Error('no browser')
  const page = await browser.newPage()
  const faults: string[] = []
  page.on('console', (message) => {
    // Only the test reads pixels back.
    if (message.text().includes('willReadFrequently')) return
    if (message.type() === 'error' || message.type() === 'warning') faults.push(`console: ${message.text()}`)
  })
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`))
  page.on('request', (request) => {
    if (!/^(file|data):/.test(request.url())) faults.push(`request: ${request.url()}`)
  })
  page.on('requestfailed', (request) => faults.push(`failed: ${request.url()}`))
  await page.goto(`${pathToFileURL(join(report, 'index.html')).href}${route}`)
  await page.waitForSelector('h1')
  return { page, faults }
}

describe('the report', () => {
  browserTest(`opens from disk with every latent, without errors or requests${reason}`, async () => {
    const report = join(folder, 'plain')
    await writeReport(
      handmadeAtlas(41, 9, ['a red star', 'blue circle']),
      { title: 'A test', notes: ['made by hand'] },
      report,
    )
    const { page, faults } = await open(report, '#/latents')
    expect(await page.locator('table.list').getAttribute('data-rows')).toBe('41')
    // Only what is visible exists; the last row is there once the reader gets to it.
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight))
    await page.waitForSelector('a[href="#/latent/40"]')
    await page.click('a[href="#/latent/40"]')
    await page.waitForSelector('.picture img')
    expect(await page.locator('.picture').count()).toBe(6)
    expect(await page.locator('.words tr').count()).toBe(1)
    const loaded = await page.evaluate(() => Array.from(document.images, (image) => image.naturalWidth))
    expect(loaded).toEqual(loaded.map(() => 112))
    // The heat map is drawn: its hottest pixel is opaque, and it lies where the atlas says.
    const hottest = await page.evaluate(() => {
      const canvas = document.querySelector('canvas')
      const pixels = canvas?.getContext('2d')?.getImageData(0, 0, 14, 14).data ?? []
      let best = 0
      for (let patch = 0; patch < 196; patch += 1)
        if ((pixels[4 * patch + 3] ?? 0) > (pixels[4 * best + 3] ?? 0)) best = patch
      return best
    })
    expect(hottest).toBe(20)
    await page.goto(`${page.url().split('#')[0]}#/`)
    await page.getByText('made by hand').waitFor()
    expect(faults).toEqual([])
    await page.close()
  })

  browserTest(`finds latents, concepts and captions${reason}`, async () => {
    const report = join(folder, 'search')
    await writeReport(handmadeAtlas(6, 4, ['a red star', 'blue circle', 'green ring']), {}, report)
    const { page, faults } = await open(report)
    await page.fill('input[type=search]', 'GREEN')
    await page.waitForSelector('main.search')
    expect(await page.locator('main.search .picture').count()).toBe(2)
    expect(await page.locator('main.search a[href^="#/concept/"]').count()).toBe(1)
    await page.click('main.search a[href^="#/concept/"]')
    await page.waitForSelector('.picture')
    expect(await page.locator('h1').textContent()).toContain('green ring')
    expect(faults).toEqual([])
    await page.close()
  })

  browserTest(`shows hostile text as text${reason}`, async () => {
    const report = join(folder, 'hostile')
    await writeReport(handmadeAtlas(8, 8, HOSTILE), { title: HOSTILE[0] ?? '', notes: HOSTILE }, report)
    const { page, faults } = await open(report)
    for (const route of [
      '#/',
      '#/latents',
      '#/latent/0',
      '#/latent/1',
      '#/concepts',
      `#/concept/${encodeURIComponent(`${HOSTILE[1]} 1`)}`,
    ]) {
      await page.goto(`${page.url().split('#')[0]}${route}`)
      await page.waitForSelector('h1')
      await page.waitForTimeout(50)
    }
    expect(await page.locator('h1').textContent()).toContain(HOSTILE[1])
    expect(await page.locator('.picture').count()).toBe(6)
    await page.goto(`${page.url().split('#')[0]}#/latent/0`)
    await page
      .getByText(HOSTILE[0] ?? '', { exact: true })
      .first()
      .waitFor()
    expect(await page.evaluate(() => (window as { pwned?: number }).pwned)).toBeUndefined()
    expect(await page.locator('main script, main svg').count()).toBe(0)
    expect(faults).toEqual([])
    await page.close()
  })

  browserTest(`matches words and patches of a pair through the plan${reason}`, async () => {
    const report = join(folder, 'pairs')
    const source = { model: shared('run'), activations: shared('train'), pairs: 9 }
    await writeReport(handmadeAtlas(6, 4, ['a red star', 'blue circle']), source, report)
    const { page, faults } = await open(report, '#/pairs')
    expect(await page.locator('.tile').count()).toBe(9)
    await page.click('a[href="#/pair/2"]')
    await page.waitForSelector('.pair')
    const store = await openStore(shared('train'))
    const { caption, textIds } = store.pair(2)
    expect(await page.locator('h1').textContent()).toBe(caption)
    expect(await page.locator('.word').count()).toBe(textIds.length)
    const heat = () =>
      page.evaluate(() => {
        const canvas = document.querySelector<HTMLCanvasElement>('.frame.large canvas')
        return Array.from(canvas?.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height).data ?? [])
      })
    // The heat of a word is its column of the plan: its hottest pixel lies where the plan's largest entry does.
    const model = await loadModel(shared('run'))
    const { plan, patches, tokens } = model.match({ vision: store.pair(2).vision, text: store.pair(2).text })
    for (const word of [0, 2]) {
      await page.locator('.word').nth(word).hover()
      await page.waitForTimeout(50)
      const alpha = (await heat()).filter((_, index) => index % 4 === 3)
      const column = Array.from({ length: patches }, (_, patch) => plan[patch * tokens + word] ?? 0)
      const hottest = column.indexOf(Math.max(...column))
      expect(alpha[hottest]).toBe(Math.max(...alpha))
    }
    const box = await page.locator('.frame.large').boundingBox()
    if (!box) throw new Error('no picture')
    await page.mouse.move(box.x + 1, box.y + 1)
    await page.getByText('Patch in row 1, column 1').waitFor()
    const shares = (await page.locator('.word .share').allTextContents()).map((text) => Number.parseInt(text, 10))
    const row = Array.from({ length: tokens }, (_, token) => plan[token] ?? 0)
    const total = row.reduce((sum, mass) => sum + mass, 0)
    expect(shares).toEqual(row.map((mass) => Math.round((100 * mass) / total)))
    await page.mouse.move(0, 0)
    // The keyboard reaches the same: a patch by arrows, a word by tab.
    await page.locator('.frame.large').focus()
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('ArrowDown')
    await page.getByText(/Patch in row 2, column/).waitFor()
    await page.goto(`${page.url().split('#')[0]}#/pair/3?word=1`)
    await page.waitForSelector('.word.active')
    expect(await page.locator('.word').nth(1).getAttribute('aria-pressed')).toBe('true')
    // Another word in the address of the page that is open.
    await page.evaluate(() => {
      location.hash = '#/pair/3?word=0'
    })
    await page.locator('.word').nth(0).and(page.locator('.active')).waitFor()
    // A phrase that is nowhere, and where to ask instead.
    await page.getByRole('searchbox').fill('no such words here')
    await page.getByText(/Nothing here holds these words/).waitFor()
    expect(await page.locator('nav [aria-current]').count()).toBe(0)
    expect(faults).toEqual([])
    await page.close()
  })

  browserTest(`passes the accessibility checks on every page, light and dark${reason}`, async () => {
    const report = join(folder, 'accessible')
    const evaluation = await evaluate({ model: shared('run'), activations: shared('held-out'), bootstrap: 50 })
    const options = {
      run: shared('run'),
      model: shared('run'),
      activations: shared('train'),
      pairs: 3,
      evaluation,
      compare: { title: 'the same run', evaluation, run: shared('run') },
      notes: ['a note'],
    }
    const atlas = await loadAtlas(shared('atlas'))
    await writeReport(atlas, options, report)
    for (const scheme of ['light', 'dark'] as const) {
      const { page, faults } = await open(report)
      await page.emulateMedia({ colorScheme: scheme })
      for (const route of [
        '#/',
        '#/latents',
        '#/latent/0',
        '#/concepts',
        '#/pairs',
        '#/pair/0',
        '#/compare',
        '#/method',
      ]) {
        await page.goto(`${page.url().split('#')[0]}${route}`)
        await page.waitForSelector('main')
        await page.waitForTimeout(250)
        expect([scheme, route, await violations(page)]).toEqual([scheme, route, []])
      }
      expect(faults).toEqual([])
      await page.close()
    }
  })

  it('keeps what is not a report and replaces what is one', async () => {
    const report = join(folder, 'other')
    await writeReport(handmadeAtlas(2, 2, ['one']), {}, report)
    await writeReport(handmadeAtlas(3, 2, ['two']), {}, report)
    const data = JSON.parse(await readFile(join(report, 'data', 'report.json'), 'utf8')) as { latents: unknown[] }
    expect(data.latents).toHaveLength(3)
    const foreign = await mkdtemp(join(folder, 'foreign-'))
    await writeFile(join(foreign, 'thesis.txt'), 'precious')
    await expect(writeReport(handmadeAtlas(2, 2, ['x']), {}, foreign)).rejects.toMatchObject({ code: 'E_BUSY' })
    expect(await readFile(join(foreign, 'thesis.txt'), 'utf8')).toBe('precious')
  })

  it('writes JSON that cannot close its script', () => {
    const written = scriptJson(HOSTILE)
    expect(written).not.toMatch(/[<>&\u2028\u2029]/)
    expect(JSON.parse(written)).toEqual(HOSTILE)
  })
})
