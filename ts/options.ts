import { LucidError, optionError } from './errors.js'

/** What every function takes beside its options. */
export interface Control {
  /** Aborting it stops the work; the result then rejects with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** Edits that turn one word into the other (insertions, deletions, replacements, swaps of neighbours). */
export function editDistance(a: string, b: string): number {
  let before: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i]
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1]
      let best = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + (same ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, (before[j - 2] ?? 0) + 1)
      row.push(best)
    }
    before = last
    last = row
  }
  return last[b.length] ?? 0
}

/** The known name nearest to `name`, if any is near. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let least = Number.POSITIVE_INFINITY
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase())
    if (distance < least && distance <= Math.max(2, Math.floor(candidate.length / 3))) {
      best = candidate
      least = distance
    }
  }
  return best
}

/** The error of a name that does not exist, with the nearest one that does. */
export function unknownName(kind: string, found: string, known: readonly string[]): LucidError {
  const suggestion = nearest(found, known)
  const question = suggestion === undefined ? '' : `: did you mean '${suggestion}'?`
  return new LucidError('E_UNKNOWN_OPTION', `unknown ${kind} '${found}'${question}`, {
    details: { kind, found, suggestion, expected: known },
    hint: `known: ${known.join(', ')}`,
  })
}

/** Refuses options that are no object, names that are not `known`, and missing `required` ones. */
export function checkOptions<T extends object>(
  what: string,
  options: T,
  known: readonly string[],
  required: readonly (keyof T & string)[] = [],
): T {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw optionError(`options of ${what}`, options, 'an object')
  }
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) throw unknownName(`option of ${what}`, name, known)
  }
  for (const name of required) {
    if (options[name] === undefined) {
      throw new LucidError('E_OPTION', `${what} needs the option '${name}'`, {
        details: { option: name, found: 'undefined', expected: 'a value' },
        hint: `pass ${name}`,
      })
    }
  }
  return options
}

/** Options as JSON for the addon. JSON has no infinity and no NaN: they go as text, so that a refusal can name them. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) => {
    if (typeof item === 'bigint') return Number(item)
    if (typeof item !== 'number' || Number.isFinite(item)) return item
    return Number.isNaN(item) ? 'NaN' : item > 0 ? 'inf' : '-inf'
  })
}
