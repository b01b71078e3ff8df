import { existsSync } from 'node:fs'
import { open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { LucidError } from '../errors.js'
import type { ReportStep } from './schema.js'

/** Points of a curve that is drawn. */
const CURVE_POINTS = 400

/** What a report shows of a run. */
export interface RunFolder {
  config: { [name: string]: unknown }
  curves: ReportStep[]
}

/** The configuration and the curves of a run folder. One that is still `training` may have no configuration yet. */
export async function readRun(folder: string, training = false): Promise<RunFolder> {
  const log = new RunLog(folder)
  await log.read()
  return { config: await readConfig(folder, training), curves: thinned(log.steps) }
}

async function readConfig(folder: string, training: boolean): Promise<{ [name: string]: unknown }> {
  const path = join(folder, 'config.json')
  if (training && !existsSync(path)) return newestState(folder)
  try {
    return JSON.parse(await readFile(path, 'utf8')) as { [name: string]: unknown }
  } catch (error) {
    throw new LucidError('E_DAMAGED', `cannot read ${path}: ${(error as Error).message}`, {
      details: { file: path },
      hint: 'run is the folder given to train as out',
    })
  }
}

/** The configuration that the newest checkpoint keeps; nothing where there is none yet. */
async function newestState(folder: string): Promise<{ [name: string]: unknown }> {
  try {
    const names = await readdir(join(folder, 'checkpoints'))
    const newest = names
      .filter((name) => !name.startsWith('.'))
      .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
      .at(-1)
    if (newest === undefined) return {}
    const state = JSON.parse(await readFile(join(folder, 'checkpoints', newest, 'state.json'), 'utf8'))
    return { preset: state.preset, ...state.config }
  } catch {
    // A checkpoint may be replaced while it is read; the next look finds the new one.
    return {}
  }
}

/** At most {@link CURVE_POINTS} of the steps and the last one. */
export function thinned(steps: readonly ReportStep[]): ReportStep[] {
  const every = Math.max(1, Math.ceil(steps.length / CURVE_POINTS))
  return steps.filter((_, i) => i % every === 0 || i === steps.length - 1)
}

/** The log of a run, read on from where it was left. */
export class RunLog {
  readonly steps: ReportStep[] = []
  /** Steps the run is meant to take; 0 until the log says so. */
  planned = 0
  readonly #file: string
  #offset = 0
  #rest = ''

  constructor(folder: string) {
    this.#file = join(folder, 'metrics.jsonl')
  }

  /** Reads what was added; whether there was anything. A log that has become shorter, as after going back to a checkpoint, is read anew. */
  async read(): Promise<boolean> {
    if (!existsSync(this.#file)) return false
    const handle = await open(this.#file, 'r')
    try {
      const { size } = await handle.stat()
      if (size < this.#offset) {
        this.#offset = 0
        this.#rest = ''
        this.steps.length = 0
      }
      if (size === this.#offset) return false
      const bytes = Buffer.alloc(size - this.#offset)
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, this.#offset)
      this.#offset += bytesRead
      const lines = `${this.#rest}${bytes.toString('utf8', 0, bytesRead)}`.split('\n')
      // A line that is being written waits for its end.
      this.#rest = lines.pop() ?? ''
      for (const line of lines) this.#take(line)
      return true
    } finally {
      await handle.close()
    }
  }

  #take(line: string): void {
    const event = eventOf(line)
    if (!event?.losses) return
    this.planned = event.steps ?? this.planned
    const point: ReportStep = { step: event.step }
    for (const [name, value] of Object.entries(event.losses)) point[camel(name)] = value
    if (event.r2?.vision !== undefined) point.r2Vision = event.r2.vision
    if (event.r2?.text !== undefined) point.r2Text = event.r2.text
    for (const [name, modality] of [
      ['Patches', event.dead?.vision],
      ['Tokens', event.dead?.text],
    ] as const) {
      if (modality?.shared !== undefined) point[`shared${name}`] = modality.shared
      if (modality?.private !== undefined) point[`private${name}`] = modality.private
    }
    this.steps.push(point)
  }
}

interface Blocks {
  shared?: number
  private?: number
}

interface StepEvent {
  type?: string
  step: number
  steps?: number
  losses?: { [name: string]: number }
  r2?: { vision?: number; text?: number }
  dead?: { vision?: Blocks; text?: Blocks }
}

/** A step of the log; lines of other events, or damaged ones, are none. */
function eventOf(line: string): StepEvent | undefined {
  if (line.trim() === '') return undefined
  try {
    const event = JSON.parse(line) as StepEvent
    return event.type === 'step' ? event : undefined
  } catch {
    return undefined
  }
}

/** `self_vision` → `selfVision`. */
const camel = (name: string): string => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
