// `node scripts/report-screenshots.mjs REPORT OUT`: a picture of every page of a report, in light, dark and narrow windows.

import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'
import { browser as findBrowser } from './lib/setup.mjs'

const [report, out] = process.argv.slice(2)
if (!report || !out) {
  process.stderr.write('usage: node scripts/report-screenshots.mjs REPORT OUT\n')
  process.exit(2)
}
mkdirSync(out, { recursive: true })
const browser = await chromium.launch({ executablePath: await findBrowser(), args: ['--no-sandbox'] })
const page = pathToFileURL(join(resolve(report), 'index.html')).href

async function shoot(name, route, options, prepare) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options })
  const tab = await context.newPage()
  await tab.goto(`${page}${route}`)
  await tab.waitForSelector('h1')
  await tab.waitForTimeout(400)
  if (prepare) await prepare(tab)
  await tab.waitForTimeout(200)
  await tab.screenshot({ path: join(out, `${name}.jpg`), type: 'jpeg', quality: 78 })
  await context.close()
}

// The pages of the first latent and pair a reader is led to.
const context = await browser.newContext()
const tab = await context.newPage()
await tab.goto(page)
await tab.waitForSelector('h1')
const latent = await tab.evaluate(() => window.LUCID_REPORT.start.latents[0] ?? 0)
const concept = await tab.evaluate(() => window.LUCID_REPORT.start.concepts[0] ?? '')
await context.close()

const dark = { colorScheme: 'dark' }
const tall = { viewport: { width: 1280, height: 1180 } }
const narrow = { viewport: { width: 420, height: 860 } }
await shoot('overview', '#/')
await shoot('overview-dark', '#/', dark)
await shoot('latents', '#/latents')
await shoot('latent', `#/latent/${latent}`, tall)
await shoot('latent-dark', `#/latent/${latent}`, dark)
await shoot('concepts', '#/concepts')
await shoot('concept', `#/concept/${encodeURIComponent(concept)}`)
await shoot('pairs', '#/pairs')
await shoot('pair', '#/pair/3')
await shoot('pair-patch', '#/pair/3', {}, async (tab) => {
  const box = await tab.locator('.frame.large').boundingBox()
  await tab.mouse.move(box.x + box.width * 0.5, box.y + box.height * 0.5)
})
await shoot('pair-narrow', '#/pair/3', narrow)
await shoot('compare', '#/compare')
await shoot('method', '#/method')
await browser.close()
