/** Means over seeds, and how sure they are. */

/** A number over seeds. */
export interface Summary {
  readonly mean: number
  /** Sample standard deviation; 0 with one value. */
  readonly std: number
  /** 95 % interval of the mean by Student's t; absent with fewer than two values. */
  readonly interval?: readonly [low: number, high: number]
  readonly values: readonly number[]
}

/** Mean, deviation and interval of `values`; nothing without any. */
export function summarise(values: readonly number[]): Summary | undefined {
  const n = values.length
  if (n === 0) return undefined
  const mean = values.reduce((sum, value) => sum + value, 0) / n
  const square = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  const std = n > 1 ? Math.sqrt(square / (n - 1)) : 0
  if (n < 2) return { mean, std, values }
  const half = (studentQuantile(n - 1) * std) / Math.sqrt(n)
  return { mean, std, interval: [mean - half, mean + half], values }
}

/** Differences a − b seed by seed; nothing unless every seed has both. */
export function paired(a: readonly (number | undefined)[], b: readonly (number | undefined)[]): Summary | undefined {
  if (a.length !== b.length || a.length === 0) return undefined
  const differences: number[] = []
  for (const [index, left] of a.entries()) {
    const right = b[index]
    if (left === undefined || right === undefined) return undefined
    differences.push(left - right)
  }
  return summarise(differences)
}

/** Whether the 95 % interval leaves zero out; undefined where there is no interval. */
export function apart(difference: Summary | undefined): boolean | undefined {
  const interval = difference?.interval
  return interval === undefined ? undefined : interval[0] > 0 || interval[1] < 0
}

/**
 * The 0.975 quantile of Student's t with `freedom` degrees of freedom: the t at which the distribution function is
 * 0.975, found by bisection.
 */
export function studentQuantile(freedom: number): number {
  let [low, high] = [0, 1e3]
  for (let i = 0; i < 100; i += 1) {
    const middle = (low + high) / 2
    if (studentCdf(middle, freedom) < 0.975) low = middle
    else high = middle
  }
  return (low + high) / 2
}

/**
 * P(T ≤ t) for t ≥ 0 and whole `freedom`, by the finite sums in θ = atan(t/√ν) (Abramowitz and Stegun 26.7.3 and
 * 26.7.4).
 */
function studentCdf(t: number, freedom: number): number {
  const theta = Math.atan(t / Math.sqrt(freedom))
  const [sine, cosine] = [Math.sin(theta), Math.cos(theta)]
  const even = freedom % 2 === 0
  let term = even ? 1 : cosine
  let sum = freedom === 1 ? 0 : term
  for (let k = even ? 2 : 3; k <= freedom - 2; k += 2) {
    term *= ((k - 1) / k) * cosine ** 2
    sum += term
  }
  const within = even ? sine * sum : (2 / Math.PI) * (theta + sine * sum)
  return (1 + within) / 2
}
