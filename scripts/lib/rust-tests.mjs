// Runs `cargo test`, counts, and gathers what was skipped with its reason.

import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { root } from './setup.mjs'

/** The lines that say what was skipped: tests that share a reason, such as an instruction set that is missing, in one. */
export function skipLines() {
  const byReason = new Map()
  for (const skip of skips) {
    const at = skip.indexOf(': ')
    const [name, reason] = at < 0 ? [skip, ''] : [skip.slice(0, at), skip.slice(at + 2)]
    byReason.set(reason, [...(byReason.get(reason) ?? []), name])
  }
  return [...byReason].flatMap(([reason, names]) => {
    const end = reason === '' ? '' : `: ${reason}`
    return names.length > 8 && reason !== ''
      ? [`skipped: ${names.length} tests, ${names[0]} and others${end}`]
      : names.map((name) => `skipped: ${name}${end}`)
  })
}

/** What has been run so far: numbers of tests, and a line for each that was skipped. */
export const count = { passed: 0, failed: 0, skipped: 0 }
export const skips = []

/**
 * Arguments for the CUDA kernels run as C++: their tests, and not those of the other backends beside them. The whole workspace is
 * named, because two packages alone would have their dependencies compiled a second time with other features.
 */
export const shimArguments = [
  ...['--workspace', '--features', 'lucid-kernels/cuda-shim,lucid-sae/cuda-shim'],
  ...['kernels', 'cuda', 'graphs', 'golden', 'step_laws', 'feed', 'cuda_faults'].flatMap((name) => ['--test', name]),
]
export const shimFilters = ['--skip', 'scalar_f', '--skip', '::cpu_', '--skip', '_scalar', '--skip', '_cpu']

/**
 * Runs Rust tests: `cargo test <selection> -- <filters>`. A test that skips itself prints
 * `SKIPPED name: reason`, which needs the output of passing tests.
 */
export async function rustTests(env, selection, filters = []) {
  const args = ['test', ...selection, '--release', '--locked', '--no-fail-fast', '--', '--show-output', ...filters]
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
