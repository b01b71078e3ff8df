// `npm test`: sets up what is missing, runs `cargo test` and jest, prints every skip with its reason, and closes with
// one line over both.

import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { browser, root, run, setup } from './lib/setup.mjs'

const env = await setup()
const chromium = await browser()
const count = { passed: 0, failed: 0, skipped: 0 }
const skips = []

/** Runs the Rust tests. A test that skips itself prints `SKIPPED name: reason`, which needs the output of passing tests. */
async function rustTests() {
  const args = ['test', '--workspace', '--release', '--locked', '--no-fail-fast', '--', '--show-output']
  const child = spawn('cargo', args, { cwd: root, env, stdio: ['ignore', 'pipe', 2] })
  let inFailures = false
  let results = 0
  for await (const line of createInterface({ input: child.stdout })) {
    const result = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/.exec(line)
    const ignored = /^test (\S+).* \.\.\. ignored(?:, (.*))?$/.exec(line)
    const skipped = /^SKIPPED (.+)$/.exec(line)
    if (result) {
      results += 1
      count.passed += Number(result[1])
      count.failed += Number(result[2])
      count.skipped += Number(result[3])
      inFailures = false
    }
    if (ignored) skips.push(`${ignored[1]}: ${ignored[2] ?? 'no reason given'}`)
    if (skipped) {
      skips.push(skipped[1])
      count.passed -= 1
      count.skipped += 1
    }
    if (line === 'failures:') inFailures = true
    if (result || inFailures || /^test .* \.\.\. (?!ok$)/.test(line)) process.stdout.write(`${line}\n`)
  }
  const code = await new Promise((resolve) => {
    if (child.exitCode !== null) resolve(child.exitCode)
    else child.on('close', resolve)
  })
  // A crate that does not compile runs no test; that must not look like success.
  if (code !== 0 && (count.failed === 0 || results === 0)) count.failed += 1
}

async function jestTests() {
  const folder = mkdtempSync(join(tmpdir(), 'lucid-jest-'))
  const output = join(folder, 'results.json')
  const jestEnv = { ...process.env, ...(chromium ? { CHROMIUM_PATH: chromium } : {}) }
  const code = await run('npx', ['jest', '--json', `--outputFile=${output}`], {
    env: jestEnv,
    stdio: ['ignore', 'ignore', 2],
  })
  try {
    const results = JSON.parse(readFileSync(output, 'utf8'))
    count.passed += results.numPassedTests
    count.failed += results.numFailedTests + results.numRuntimeErrorTestSuites
    count.skipped += results.numPendingTests + results.numTodoTests
    for (const suite of results.testResults) {
      for (const test of suite.assertionResults) {
        if (test.status === 'pending' || test.status === 'todo') skips.push(test.fullName)
      }
    }
    if (code !== 0 && results.success) count.failed += 1
  } catch {
    count.failed += 1
    process.stderr.write('jest wrote no results\n')
  }
  rmSync(folder, { recursive: true, force: true })
}

const started = Date.now()
await rustTests()
await jestTests()
for (const skip of skips) process.stdout.write(`skipped: ${skip}\n`)
process.stdout.write(`tests took ${Math.round((Date.now() - started) / 1000)} s\n`)
process.stdout.write(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped\n`)
process.exitCode = count.failed === 0 && count.passed > 0 ? 0 : 1
