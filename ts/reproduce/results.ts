/** Measured models by name, and numbers of them over seeds. */

import type { Evaluation } from '../evaluation.js'
import type { Measured } from './runs.js'
import { paired, type Summary, summarise } from './statistics.js'

/** Reads one number from an evaluation, where it is there. */
export type Reading = (evaluation: Evaluation) => number | undefined

/** The evaluations of a plan, by model and seed. */
export class Results {
  readonly #models = new Map<string, Measured[]>()

  constructor(measured: readonly Measured[]) {
    for (const run of measured) {
      const list = this.#models.get(run.planned.name)
      if (list) list.push(run)
      else this.#models.set(run.planned.name, [run])
    }
    for (const list of this.#models.values()) list.sort((a, b) => a.seed - b.seed)
  }

  /** The runs of a model, by seed. */
  of(name: string): readonly Measured[] {
    return this.#models.get(name) ?? []
  }

  /** A number of a model on each seed. */
  values(name: string, reading: Reading): (number | undefined)[] {
    return this.of(name).map(({ evaluation }) => reading(evaluation))
  }

  /** A number of a model over seeds; nothing unless every seed has it. */
  summary(name: string, reading: Reading): Summary | undefined {
    const values = this.values(name, reading)
    return values.some((value) => value === undefined) ? undefined : summarise(values as number[])
  }

  /** How much larger a number of model `a` is than that of `b`, seed by seed. */
  difference(a: string, b: string, reading: Reading): Summary | undefined {
    return paired(this.values(a, reading), this.values(b, reading))
  }

  /** Why a number is missing, in the words of the evaluation that lacks it. */
  reason(name: string, path: string): string {
    for (const { evaluation } of this.of(name)) {
      for (const [skipped, reason] of Object.entries(evaluation.skipped ?? {})) {
        if (covers(skipped, path) || covers(path, skipped)) return `${path}: ${reason}`
      }
    }
    return `${path}: not measured`
  }
}

/** Whether `outer`, in which `*` stands for any one name, is `inner` or a place above it. */
function covers(outer: string, inner: string): boolean {
  const names = inner.split('.')
  return outer.split('.').every((name, index) => name === '*' || name === names[index])
}
