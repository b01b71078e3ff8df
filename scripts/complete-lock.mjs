// `npm run lock:complete`, after `npm install` on a registry mirror that lacks packages of other platforms.
//
// npm leaves an optional package that it cannot fetch out of the lock file, and `npm ci` then refuses the file on every
// platform. All of these are platform packages pinned exactly by their parent, so their entry is known without the
// registry: version, system, processor. npm never fetches an entry of another system.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './lib/setup.mjs'

const SYSTEMS = ['aix', 'android', 'darwin', 'freebsd', 'linux', 'netbsd', 'openbsd', 'openharmony', 'sunos', 'win32']
const PROCESSORS = { arm: 'arm', arm64: 'arm64', ia32: 'ia32', loong64: 'loong64', ppc64: 'ppc64', riscv64: 'riscv64' }
Object.assign(PROCESSORS, { s390x: 's390x', wasm32: 'wasm32', x64: 'x64' })

const path = join(root, 'package-lock.json')
const lock = JSON.parse(readFileSync(path, 'utf8'))
const packages = lock.packages

/** Whether a package at `from` finds `name` in a node_modules folder above it. */
function resolves(from, name) {
  for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('/node_modules/')))) {
    if (packages[`${at === '' ? '' : `${at}/`}node_modules/${name}`]) return true
    if (at === '' || !at.includes('node_modules/')) return false
    if (!at.includes('/node_modules/')) return packages[`node_modules/${name}`] !== undefined
  }
}

function entry(name, version, parent) {
  const words = name.split('/').at(-1).split('-')
  const cpu = words.map((word) => PROCESSORS[word]).find(Boolean)
  const os = words.find((word) => SYSTEMS.includes(word))
  if (!cpu || !/^\d+\.\d+\.\d+/.test(version)) throw new Error(`no platform or exact version in ${name}@${version}`)
  const libc = words.includes('gnu') ? ['glibc'] : words.includes('musl') ? ['musl'] : undefined
  return {
    version,
    cpu: [cpu],
    ...(parent.dev ? { dev: true } : {}),
    ...(os === 'linux' && libc ? { libc } : {}),
    optional: true,
    ...(os ? { os: [os] } : {}),
  }
}

let added = 0
for (const [from, parent] of Object.entries(packages)) {
  for (const [name, version] of Object.entries(parent.optionalDependencies ?? {})) {
    if (resolves(from, name)) continue
    packages[`node_modules/${name}`] = entry(name, version, parent)
    added += 1
  }
}
const rootEntry = packages['']
const sorted = Object.entries(packages).filter(([key]) => key !== '')
sorted.sort(([a], [b]) => a.localeCompare(b, 'en'))
lock.packages = { '': rootEntry, ...Object.fromEntries(sorted) }
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`)
process.stderr.write(`${added} platform packages added to package-lock.json\n`)
