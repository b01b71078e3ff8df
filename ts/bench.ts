import type { Preset } from './config.js'
import type { WorkEvent } from './events.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'

/** Options of {@link bench}. The defaults are the paper's shape with one micro-batch of pairs. */
export interface BenchOptions {
  /** Width of a patch's state. Default 768. */
  dVision?: number
  /** Width of a token's state. Default 768. */
  dText?: number
  dShared?: number
  dPrivate?: number
  kShared?: number
  kPrivate?: number
  /** Patches of a pair. Default 196. */
  patches?: number
  /** Text tokens of a pair. Default 64. */
  tokens?: number
  /** Pairs of a step. Default 8. */
  batchPairs?: number
  /** Pairs whose intermediate arrays exist at once. Default: as many as a step has. */
  microPairs?: number
  preset?: Preset
  /** Steps timed, after one that is not. Default 3. */
  steps?: number
  threads?: number
  seed?: number
}

/** @internal Names for checks and the command line. */
export const benchOptionNames = [
  'dVision',
  'dText',
  'dShared',
  'dPrivate',
  'kShared',
  'kPrivate',
  'patches',
  'tokens',
  'batchPairs',
  'microPairs',
  'preset',
  'steps',
  'threads',
  'seed',
] as const

/** What a training step costs: forward, backward and the optimiser. */
export interface BenchResult {
  readonly steps: number
  readonly tokensPerStep: number
  /** Seconds of each timed step. */
  readonly seconds: readonly number[]
  /** Median over the steps, divided by the tokens of both modalities. */
  readonly microsecondsPerToken: number
  readonly tokensPerSecond: number
  /** Bytes of parameters, moments and gradients. */
  readonly stateBytes: number
  /** Largest resident size of the process so far. */
  readonly peakResidentBytes: number
  readonly threads: number
  readonly shape: Readonly<Record<string, number>>
}

/**
 * Times the whole training step on random data.
 *
 * @example
 * ```ts
 * import { bench } from 'lucid-sae'
 *
 * const { microsecondsPerToken } = await bench({ dVision: 96, dText: 96, dShared: 128, dPrivate: 160 })
 * console.log(microsecondsPerToken)
 * ```
 */
export function bench(options: BenchOptions = {}, control: Control = {}): Run<BenchResult, WorkEvent> {
  return new Run(
    () => native.startBench(toJson(checkOptions('bench', options, benchOptionNames))),
    // maxRSS is in kilobytes on every system.
    (json) => ({ ...(JSON.parse(json) as BenchResult), peakResidentBytes: process.resourceUsage().maxRSS * 1024 }),
    control,
  )
}
