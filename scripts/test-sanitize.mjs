// `npm run test:sanitize`: the CUDA kernels, compiled as C++, under AddressSanitizer with UBSan and under ThreadSanitizer,
// and kernels with planted faults, which show that the checks can fail. Takes minutes; needs Linux and g++.
// `npm run test:sanitize -- address thread faults` runs the parts named.

import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { count, rustTests, skips } from './lib/rust-tests.mjs'
import { cargoEnvironment, fail, root, run } from './lib/setup.mjs'

const compiler = process.env.CXX ?? 'g++'
const shim = join(root, 'crates', 'lucid-kernels', 'shim')
const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target')

// As in crates/lucid-kernels/build.rs, which compiles the kernels for the Rust tests.
const sanitizers = {
  plain: [],
  address: [
    '-fsanitize=address,undefined,float-cast-overflow',
    '-fno-sanitize-recover=all',
    '-fsanitize-sections=cushared*',
  ],
  thread: ['-fsanitize=thread'],
}

/** Runs the kernel tests with instrumented kernels; Rust itself stays as it is. */
async function kernelTests(sanitizer, filters) {
  const host = cargoEnvironment()
  const library = { address: 'libasan.so', thread: 'libtsan.so' }[sanitizer]
  const path = spawnSync(compiler, [`-print-file-name=${library}`], { encoding: 'utf8' }).stdout.trim()
  if (path === library) fail(`${compiler} has no ${library}: install the sanitizers' libraries of this compiler.`)
  const triple = host.CARGO_BUILD_TARGET.toUpperCase().replaceAll('-', '_')
  const env = {
    ...host,
    CARGO_TARGET_DIR: `${target}/sanitize-${sanitizer}`,
    LUCID_SHIM_SANITIZE: sanitizer,
    // Or a report names a kernel without the line.
    CARGO_PROFILE_RELEASE_STRIP: 'none',
    // It must be the first library that is loaded, and rustc links libc ahead of it.
    [`CARGO_TARGET_${triple}_RUNNER`]: `env LD_PRELOAD=${path}`,
    // Leaks are Rust's business, whose allocations at exit are no sign of one.
    ASAN_OPTIONS: 'detect_leaks=0',
    UBSAN_OPTIONS: 'print_stacktrace=1',
    TSAN_OPTIONS: `suppressions=${join(shim, 'tsan-suppressions.txt')}`,
  }
  const before = { ...count }
  const selection = ['-p', 'lucid-kernels', '--features', 'cuda-shim', '--test', 'kernels']
  await rustTests(env, selection, ['cuda_shim', ...filters])
  return { passed: count.passed - before.passed, failed: count.failed - before.failed }
}

/** Builds the planted faults in one mode and runs each of them, which must be found or not as the runner's table says. */
async function plantedFaults(mode) {
  const folder = join(target, 'sanitize-faults', mode)
  mkdirSync(folder, { recursive: true })
  const language = ['-std=c++17', '-O2', '-g', '-fno-strict-aliasing', '-ffp-contract=off', '-DLUCID_SHIM']
  const headers = [shim, join(shim, '..', 'src', 'cuda', 'include'), join(shim, 'faults')].map((path) => `-I${path}`)
  const objects = []
  const compile = async (source, name, flags) => {
    const object = join(folder, `${name}.o`)
    const args = [...language, ...headers, ...flags, '-c', join(shim, source), '-o', object]
    objects.push(object)
    if ((await run(compiler, args)) !== 0) fail(`Compiling ${source} failed: ${compiler} ${args.join(' ')}`)
  }
  for (const source of ['shim.cpp', 'tensor.cpp', 'faults/runner.cpp']) {
    await compile(source, source.replace('/', '-'), mode === 'plain' ? [] : [`-DLUCID_SHIM_${mode.toUpperCase()}`])
  }
  for (const twin of ['', '-DCLEAN']) {
    for (const source of ['faults', 'limits']) {
      const name = `${source}${twin ? '_clean' : ''}`
      const what = [`-DSOURCE="${source}.cu"`, `-DLUCID_SHIM_SECTION=${name}`, twin, `-D${source.toUpperCase()}`]
      const flags = [...sanitizers[mode], '-fwhole-program', '-fno-omit-frame-pointer', ...what.filter(Boolean)]
      await compile('faults/kernels.cpp', name, flags)
    }
  }
  const runner = join(folder, 'runner')
  if ((await run(compiler, [...sanitizers[mode], ...objects, '-o', runner])) !== 0) fail('Linking the faults failed.')
  const result = spawnSync(runner, { encoding: 'utf8' })
  const [, checks, unexpected] = /(\d+) checks, (\d+) unexpected/.exec(result.stdout ?? '') ?? [0, 0, 1]
  if (result.status !== 0) process.stdout.write(result.stdout ?? '')
  const failed = Math.max(Number(unexpected), result.status === 0 ? 0 : 1)
  return { passed: Math.max(Number(checks) - failed, 0), failed }
}

if (process.platform !== 'linux') fail('The sanitizers are run on Linux only.')
if (spawnSync(compiler, ['--version']).status !== 0) fail(`${compiler} is missing: install g++, or name it with CXX.`)

// The laws run the kernels of `sinkhorn` for many more rounds, and ThreadSanitizer costs a factor of 20.
const parts = [
  ['address', 'kernels under AddressSanitizer and UBSan', () => kernelTests('address', [])],
  ['thread', 'kernels under ThreadSanitizer', () => kernelTests('thread', ['--skip', 'sinkhorn_laws'])],
  ['faults', 'planted faults, plain', () => plantedFaults('plain')],
  ['faults', 'planted faults under AddressSanitizer and UBSan', () => plantedFaults('address')],
  ['faults', 'planted faults under ThreadSanitizer', () => plantedFaults('thread')],
]
const named = process.argv.slice(2)
const unknown = named.find((name) => !parts.some(([part]) => part === name))
if (unknown) fail(`There is no part '${unknown}'; expected address, thread or faults.`)

const total = { passed: 0, failed: 0 }
const lines = []
for (const [name, title, work] of parts) {
  if (named.length > 0 && !named.includes(name)) continue
  const started = Date.now()
  const { passed, failed } = await work()
  // A filter that matches nothing passes too.
  const nothing = passed + failed === 0 ? 1 : 0
  total.passed += passed
  total.failed += failed + nothing
  const seconds = Math.round((Date.now() - started) / 1000)
  lines.push(`${title}: ${passed} as expected, ${failed} not, in ${seconds} s${nothing ? ' (nothing ran)' : ''}`)
  process.stdout.write(`${lines.at(-1)}\n`)
}
for (const skip of skips) process.stdout.write(`skipped: ${skip}\n`)
if (lines.length > 1) process.stdout.write(`\n${lines.join('\n')}\n`)
process.stdout.write(`${total.passed} as expected, ${total.failed} not\n`)
process.exitCode = total.failed === 0 ? 0 : 1
