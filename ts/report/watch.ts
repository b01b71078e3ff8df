import { setTimeout } from 'node:timers/promises'
import { optionError } from '../errors.js'
import { type Control, checkOptions } from '../options.js'
import { Work } from '../work.js'
import { type ReportAtlas, writeReport } from './index.js'
import { RunLog } from './run-log.js'
import type { ReportWatching } from './schema.js'

/** Options of {@link watchReport}. */
export interface WatchOptions {
  /** Folder of the run in training: what is given to {@link train} as `out`. It may not exist yet. */
  run: string
  /** Folder of the report. */
  out: string
  title?: string
  /** Seconds between two looks. Default 2. */
  every?: number
}

/** How far a watched run is. */
export interface WatchEvent {
  readonly type: 'progress'
  readonly stage: 'watch'
  readonly done: number
  readonly total: number
}

/** An atlas that knows nothing yet. */
const UNKNOWN: ReportAtlas = {
  data: {
    format: 'lucid-atlas',
    formatVersion: 1,
    version: '0.1.0',
    model: { dShared: 0, latents: 0 },
    store: { fingerprint: '', pairs: 0 },
    options: {},
    threshold: null,
    peaks: 0,
    images: [],
    latents: [],
    concepts: [],
  },
  latents: [],
  concepts: [],
  heat: () => new Float32Array(),
  picture: () => undefined,
}

/**
 * Writes the report of a run in training and keeps it up to date: the open page follows by itself, from disk as well as served. Ends when
 * the run has taken its last step, or when it is stopped; the report stays as it is then.
 *
 * @example
 * ```ts
 * import { watchReport } from 'lucid-sae'
 *
 * const watching = watchReport({ run: 'runs/a', out: 'report' })
 * for await (const { done, total } of watching) console.log(`${done} of ${total}`)
 * ```
 */
export function watchReport(options: WatchOptions, control: Control = {}): Work<string, WatchEvent> {
  return new Work(async ({ tell, signal }) => {
    const {
      run,
      out,
      title,
      every = 2,
    } = checkOptions('watchReport', options, ['run', 'out', 'title', 'every'], ['run', 'out'])
    if (!(every >= 0.1 && every <= 3600)) throw optionError('every', every, 'seconds from 0.1 to 3600')
    const log = new RunLog(run)
    const write = async (done: boolean): Promise<void> => {
      const watching: ReportWatching = {
        run,
        step: log.steps.at(-1)?.step ?? 0,
        steps: log.planned,
        done,
        every,
        at: new Date().toISOString(),
      }
      await writeReport(UNKNOWN, { run, title: title ?? `Training ${run}`, watching }, out)
      tell({ type: 'progress', stage: 'watch', done: watching.step, total: watching.steps }, 'progress')
    }
    let first = true
    for (;;) {
      const news = await log.read()
      const done = log.planned > 0 && (log.steps.at(-1)?.step ?? 0) >= log.planned
      if (news || first) await write(done)
      first = false
      if (done) return out
      await setTimeout(1000 * every, undefined, { signal }).catch(() => {
        throw signal.reason
      })
    }
  }, control)
}
