// `npm test`: sets up what is missing, runs `cargo test`, the CUDA kernels on the CPU, and jest, prints every skip with its reason, and closes with
// one line over both.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { count, rustTests, shimArguments, shimFilters, skipLines, skips } from './lib/rust-tests.mjs'
import { browser, run, setup } from './lib/setup.mjs'

const env = await setup()
const chromium = await browser()

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
await rustTests(env, ['--workspace'])
if (spawnSync('c++', ['--version']).status === 0) {
  await rustTests(env, shimArguments, shimFilters)
} else {
  skips.push('the CUDA kernels on the CPU: no C++ compiler (c++) is installed')
  count.skipped += 1
}
await jestTests()
for (const line of skipLines()) process.stdout.write(`${line}\n`)
process.stdout.write(`tests took ${Math.round((Date.now() - started) / 1000)} s\n`)
process.stdout.write(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped\n`)
process.exitCode = count.failed === 0 && count.passed > 0 ? 0 : 1
