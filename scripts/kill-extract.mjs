// `node scripts/kill-extract.mjs [--times 20]`: kills an extraction again and again at random moments (SIGKILL), resumes it each
// time, and compares the finished store with that of an undisturbed run.
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: { times: { type: 'string', default: '20' }, pairs: { type: 'string', default: '400' } },
})
const times = Number(values.times)
const folder = mkdtempSync(join(tmpdir(), 'lucid-kill-'))
const extract = (out, ...more) => {
  const args = [
    'extract',
    '--dataset',
    'scenes',
    '--pairs',
    values.pairs,
    '--seed',
    '3',
    '--pairs-per-shard',
    '20',
    '--out',
    out,
  ]
  const child = spawn(process.execPath, ['bin/lucid-sae.js', ...args, '--quiet', ...more], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  return { child, ended: new Promise((resolve) => child.on('exit', (code, signal) => resolve({ code, signal }))) }
}
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))
const manifest = (out) => JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8'))

try {
  const whole = join(folder, 'whole')
  const started = performance.now()
  const { code } = await extract(whole).ended
  if (code !== 0) throw new Error(`the undisturbed run failed with ${code}`)
  const span = performance.now() - started
  const out = join(folder, 'killed')
  let kills = 0
  // Early kills leave nothing to go on with; most fall into the middle of the work that is left.
  while (kills < times) {
    const { child, ended } = extract(out, '--resume')
    const first = await Promise.race([ended, sleep(Math.random() * span * 0.35).then(() => undefined)])
    if (first) {
      if (first.code !== 0) throw new Error(`a resumed run failed with ${first.code}`)
      // Finished before its turn: the kills that are missing begin anew.
      rmSync(out, { recursive: true })
      continue
    }
    child.kill('SIGKILL')
    await ended
    kills += 1
  }
  const last = await extract(out, '--resume').ended
  if (last.code !== 0) throw new Error(`the last run failed with ${last.code}`)
  const [a, b] = [manifest(whole), manifest(out)]
  const left = readdirSync(folder).filter((name) => name.startsWith('.'))
  const equal = a.fingerprint === b.fingerprint && JSON.stringify(a.statistics) === JSON.stringify(b.statistics)
  console.log(
    `${kills} kills; fingerprint ${b.fingerprint} ${equal ? 'equals' : 'DIFFERS from'} the undisturbed run's; left over: ${left.join(' ') || 'nothing'}`,
  )
  if (!equal || left.length > 0 || b.pairs !== a.pairs) process.exitCode = 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
