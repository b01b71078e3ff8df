// What a clone needs before anything runs: node packages, the native addon, the compiled TypeScript, the report page
// and, for tests, a browser. Each part is skipped when nothing it depends on has changed.

import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const stamps = join(root, 'node_modules', '.cache', 'lucid-sae')

/** Ends the process with one line that says what is wrong and how to fix it. */
export function fail(line) {
  process.stderr.write(`${line}\n`)
  process.exit(1)
}

/** Runs a command with its output on stderr; resolves with the exit code. */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 2, 2], ...options })
    child.on('error', reject)
    child.on('close', (code) => resolve(code ?? 1))
  })
}

async function mustRun(what, command, args, options) {
  const code = await run(command, args, options)
  if (code !== 0) fail(`${what} failed (exit code ${code}): ${command} ${args.join(' ')}`)
}

/** The triple of this machine, which cargo and napi must both be given so that they share one build. */
export function cargoEnvironment() {
  const rustc = spawnSync('rustc', ['-vV'], { encoding: 'utf8' })
  if (rustc.error || rustc.status !== 0) {
    fail(
      'Rust is missing: install it from https://rustup.rs (any stable from 1.89 on), open a new shell, and run this again.',
    )
  }
  const release = /^release: (\d+)\.(\d+)/m.exec(rustc.stdout)
  if (release && Number(release[1]) === 1 && Number(release[2]) < 89) {
    fail(
      `Rust ${release[1]}.${release[2]} is too old: run 'rustup update stable' (1.89 or newer is needed) and try again.`,
    )
  }
  const host = /^host: (.+)$/m.exec(rustc.stdout)?.[1]
  return { ...process.env, CARGO_BUILD_TARGET: process.env.CARGO_BUILD_TARGET ?? host }
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 19)) {
    fail(`Node ${process.versions.node} is too old: install Node 20.19 or newer and run this again.`)
  }
}

function* filesUnder(path) {
  if (!existsSync(path)) return
  if (statSync(path).isFile()) {
    yield path
    return
  }
  for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.name === 'target' || entry.name === 'node_modules' || entry.name.endsWith('.node')) continue
    const child = join(path, entry.name)
    if (entry.isDirectory()) yield* filesUnder(child)
    else yield child
  }
}

/** A hash over names, sizes and modification times, so that checking costs milliseconds. */
function fingerprint(paths) {
  const hash = createHash('sha256')
  for (const path of paths) {
    for (const file of filesUnder(join(root, path))) {
      const { size, mtimeMs } = statSync(file)
      hash.update(`${relative(root, file)}\0${size}\0${mtimeMs}\n`)
    }
  }
  return hash.digest('hex')
}

/** Whether a file is there; the name may begin with `*`, as the addon's holds the platform. */
function matches(output) {
  const folder = join(root, dirname(output))
  const name = basename(output)
  if (!name.startsWith('*')) return existsSync(join(root, output))
  return existsSync(folder) && readdirSync(folder).some((entry) => entry.endsWith(name.slice(1)))
}

async function unlessFresh(name, inputs, outputs, work) {
  const stamp = join(stamps, name)
  const before = fingerprint(inputs)
  const present = outputs.every((output) => matches(output))
  if (present && existsSync(stamp) && readFileSync(stamp, 'utf8') === before) return
  await work()
  mkdirSync(stamps, { recursive: true })
  writeFileSync(stamp, fingerprint(inputs))
}

function say(line) {
  const bold = process.stderr.isTTY && !process.env.NO_COLOR
  process.stderr.write(bold ? `\x1b[1m${line}\x1b[0m\n` : `${line}\n`)
}

async function nodePackages() {
  const installed = join(root, 'node_modules', '.package-lock.json')
  const lock = join(root, 'package-lock.json')
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return
  say('[setup] node packages from package-lock.json …')
  await mustRun('Installing node packages', 'npm', ['ci', '--no-audit', '--no-fund'])
}

async function addon(env) {
  const inputs = ['Cargo.toml', 'Cargo.lock', 'crates', 'native/Cargo.toml', 'native/build.rs', 'native/src']
  await unlessFresh('addon', inputs, ['native/*.node', 'native/index.cjs', 'native/index.d.cts'], async () => {
    say('[setup] native addon, release build (the first one takes several minutes) …')
    const build = ['napi', 'build', '--platform', '--release', '--manifest-path', 'native/Cargo.toml']
    const files = ['--output-dir', 'native', '--js', 'index.cjs', '--dts', 'index.d.cts', '--no-const-enum']
    const args = [...build, ...files, '--', '--locked']
    await mustRun('Building the native addon', 'npx', args, { env })
  })
}

async function typescript() {
  const inputs = ['ts', 'tsconfig.json', 'tsconfig.build.json', 'native/index.d.cts', 'package.json', 'vite.config.ts']
  await unlessFresh('typescript', inputs, ['dist/index.js', 'dist/report/page/index.html'], async () => {
    say('[setup] TypeScript and the report page …')
    await mustRun('Compiling TypeScript', 'npx', ['tsc', '-p', 'tsconfig.build.json'])
    await mustRun('Building the report page', 'npx', [
      'vite',
      'build',
      '--config',
      'vite.config.ts',
      '--logLevel',
      'warn',
    ])
  })
}

/** Everything `npm run demo` and the command line need. */
export async function setup() {
  checkNode()
  const env = cargoEnvironment()
  await nodePackages()
  await addon(env)
  await typescript()
  return env
}

/** Path of a Chromium for the browser tests, installed where the system allows it; undefined with the reason printed. */
export async function browser() {
  const known = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome', '/snap/bin/chromium']
  known.push('/Applications/Google Chrome.app/Contents/MacOS/Google Chrome')
  const find = () => [process.env.CHROMIUM_PATH, ...known].find((path) => path && existsSync(path))
  if (find()) return find()
  if (process.platform === 'linux' && process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    say('[setup] headless Chromium from the system packages …')
    await run('apt-get', ['update', '-qq'])
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    await run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'chromium'], { env })
    if (find()) return find()
  }
  say('[setup] headless Chromium through playwright …')
  await run('npx', ['playwright-core', 'install', '--only-shell', 'chromium'])
  const { chromium } = await import('playwright-core')
  if (existsSync(chromium.executablePath())) return chromium.executablePath()
  process.stderr.write('[setup] no Chromium found: install it, or set CHROMIUM_PATH; the browser tests are skipped.\n')
  return undefined
}
