/** A report that follows a run in training, and the log it reads. */

import { appendFileSync, existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'
import { train, watchReport } from '../ts/index.js'
import { RunLog, readRun } from '../ts/report/run-log.js'
import type { ReportData } from '../ts/report/schema.js'
import { violationsOfSchemes } from './support/accessibility.js'
import { errorOf, shared, temporary } from './support/data.js'

const work = temporary()
const binary = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium'
const browserTest = existsSync(binary) ? it : it.skip
const reason = existsSync(binary) ? '' : ' (skipped: no Chromium; set CHROMIUM_PATH)'
const line = (step: number, steps = 8): string =>
  `${JSON.stringify({ type: 'step', step, steps, losses: { self_vision: 1 / step }, r2: { vision: 0.5 }, dead: { vision: { shared: step, private: 0 }, text: { shared: 0 } } })}\n`
const dataOf = (report: string): ReportData => JSON.parse(readFileSync(join(report, 'data', 'report.json'), 'utf8'))

test('a log is read on from where it was left, and anew where it has become shorter', async () => {
  const run = join(work, 'log')
  const file = join(run, 'metrics.jsonl')
  mkdirSync(run)
  const log = new RunLog(run)
  expect(await log.read()).toBe(false)
  writeFileSync(file, line(1) + line(2).slice(0, 20))
  expect(await log.read()).toBe(true)
  expect(log.steps).toEqual([
    { step: 1, selfVision: 1, r2Vision: 0.5, sharedPatches: 1, privatePatches: 0, sharedTokens: 0 },
  ])
  appendFileSync(file, `${line(2).slice(20)}{"type":"warning"}\nnot json\n${line(3)}`)
  expect(await log.read()).toBe(true)
  expect(log.steps.map(({ step }) => step)).toEqual([1, 2, 3])
  expect(log.planned).toBe(8)
  expect(await log.read()).toBe(false)
  truncateSync(file, line(1).length)
  expect(await log.read()).toBe(true)
  expect(log.steps.map(({ step }) => step)).toEqual([1])
})

test('the report follows the run to its end', async () => {
  const [run, out] = [join(work, 'run'), join(work, 'report')]
  const watching = watchReport({ run, out, every: 0.1 })
  const seen: number[] = []
  const reader = (async () => {
    for await (const { done } of watching) seen.push(done)
  })()
  await train({
    activations: shared('train'),
    dShared: 16,
    dPrivate: 16,
    kShared: 2,
    kPrivate: 2,
    steps: 40,
    checkpointEvery: 10,
    out: run,
  })
  expect(await watching).toBe(out)
  await reader
  const data = dataOf(out)
  expect(data.watching).toMatchObject({ step: 40, steps: 40, done: true })
  expect(data.curves.at(-1)?.step).toBe(40)
  expect(data.curves[0]).toHaveProperty('sharedPatches')
  expect(data.latents).toEqual([])
  expect(seen.at(-1)).toBe(40)
  expect((await readRun(run)).config.dShared).toBe(16)
}, 60_000)

test('watching ends when it is stopped, and bad options are refused', async () => {
  const control = new AbortController()
  const watching = watchReport(
    { run: join(work, 'never'), out: join(work, 'waiting'), every: 0.1 },
    { signal: control.signal },
  )
  setTimeout(() => control.abort(), 300)
  expect((await errorOf(() => watching)).name).toBe('AbortError')
  expect(dataOf(join(work, 'waiting')).watching).toMatchObject({ step: 0, steps: 0, done: false })
  expect((await errorOf(() => watchReport({ run: 'a', out: join(work, 'b'), every: 0 }))).code).toBe('E_OPTION')
  expect((await errorOf(() => watchReport({ run: 'a' } as never))).message).toContain("'out'")
})

browserTest(
  `an open page follows by itself${reason}`,
  async () => {
    const [run, out] = [join(work, 'followed'), join(work, 'followed-report')]
    mkdirSync(run)
    writeFileSync(join(run, 'metrics.jsonl'), line(1))
    const watching = watchReport({ run, out, every: 1 })
    while (!existsSync(join(out, 'data', 'report.js'))) await new Promise((resolve) => setTimeout(resolve, 50))
    const browser = await chromium.launch({ executablePath: binary, args: ['--no-sandbox', '--disable-gpu'] })
    try {
      const page = await browser.newPage()
      const faults: string[] = []
      page.on('pageerror', (error) => faults.push(error.message))
      await page.goto(pathToFileURL(join(out, 'index.html')).href)
      await page.getByText('step 1 of 8').waitFor()
      expect(await violationsOfSchemes(page)).toEqual([])
      for (let step = 2; step <= 8; step += 1) appendFileSync(join(run, 'metrics.jsonl'), line(step))
      await page.getByText('step 8 of 8').waitFor()
      await page.getByRole('heading', { name: 'Trained' }).waitFor()
      expect(await page.locator('.curve').count()).toBe(3)
      expect(await violationsOfSchemes(page)).toEqual([])
      expect(faults).toEqual([])
      expect(await watching).toBe(out)
    } finally {
      await browser.close()
    }
  },
  60_000,
)
