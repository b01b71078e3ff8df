// `node scripts/figures-png.mjs FOLDER [SCALE]`: every SVG of a folder of figures as a PNG beside it, drawn by Chromium.

import { readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'
import { browser as findBrowser } from './lib/setup.mjs'

const [folder, scale = '2'] = process.argv.slice(2)
if (!folder || !(Number(scale) > 0)) {
  process.stderr.write('usage: node scripts/figures-png.mjs FOLDER [SCALE]\n')
  process.exit(2)
}
const browser = await chromium.launch({ executablePath: await findBrowser(), args: ['--no-sandbox'] })
const context = await browser.newContext({ deviceScaleFactor: Number(scale) })
for (const file of readdirSync(folder).filter((name) => name.endsWith('.svg'))) {
  const tab = await context.newPage()
  await tab.goto(pathToFileURL(join(resolve(folder), file)).href)
  const size = await tab.evaluate(() => {
    const { width, height } = document.documentElement.getBoundingClientRect()
    return { width: Math.ceil(width), height: Math.ceil(height) }
  })
  await tab.setViewportSize(size)
  await tab.screenshot({ path: join(folder, file.replace(/svg$/, 'png')) })
  await tab.close()
  process.stdout.write(`${file.replace(/svg$/, 'png')} ${size.width} × ${size.height}, ${scale} pixels a unit\n`)
}
await browser.close()
