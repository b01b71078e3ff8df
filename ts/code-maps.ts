/** Codes of a picture or a text as sparse vectors and heat maps: what questions to a model are answered with. */

import type { Codes, Model } from './model.js'

/** A sparse vector: latent → value. */
export type Sparse = ReadonlyMap<number, number>

/** Where something is in a picture. */
export interface FoundPlace {
  /** Row and column of the hottest patch. */
  readonly peak: readonly [row: number, column: number]
  /** Heat row by row over the grid. */
  readonly heat: Float32Array
}

const UNUSED = 0xffffffff

/** Calls `each` with the shared entries of every token. */
function eachShared(
  { indices, values, k = 0, dShared = 0 }: Codes,
  each: (token: number, latent: number, value: number) => void,
): number {
  const tokens = k > 0 ? indices.length / k : 0
  for (let slot = 0; slot < indices.length; slot += 1) {
    const latent = indices[slot] ?? UNUSED
    if (latent < dShared) each(Math.floor(slot / k), latent, values[slot] ?? 0)
  }
  return tokens
}

/** Mean shared code over tokens. */
export function pooledCode(codes: Codes): Map<number, number> {
  const sum = new Map<number, number>()
  const tokens = eachShared(codes, (_, latent, value) => sum.set(latent, (sum.get(latent) ?? 0) + value))
  for (const [latent, value] of sum) sum.set(latent, value / Math.max(1, tokens))
  return sum
}

/** Activations of every shared latent that fires, patch by patch. */
export function heatOf(codes: Codes): Map<number, Float32Array> {
  const { k = 1 } = codes
  const patches = codes.indices.length / Math.max(1, k)
  const maps = new Map<number, Float32Array>()
  eachShared(codes, (patch, latent, value) => {
    const heat = maps.get(latent) ?? new Float32Array(patches)
    heat[patch] = value
    maps.set(latent, heat)
  })
  return maps
}

/** The hottest patch of a map. */
export function place(heat: Float32Array, [, columns]: readonly [number, number]): FoundPlace & { activation: number } {
  let best = 0
  for (const [patch, value] of heat.entries()) if (value > (heat[best] ?? 0)) best = patch
  return { peak: [Math.floor(best / columns), best % columns], heat, activation: heat[best] ?? 0 }
}

/** Cosine; 0 where either is empty. */
export function cosine(a: Sparse, b: Sparse): number {
  let [product, left, right] = [0, 0, 0]
  for (const [latent, value] of a) {
    product += value * (b.get(latent) ?? 0)
    left += value * value
  }
  for (const value of b.values()) right += value * value
  return left > 0 && right > 0 ? product / Math.sqrt(left * right) : 0
}

/** Cosine; 0 where either is all zero. */
export function denseCosine(a: Float32Array | undefined, b: Float32Array | undefined): number {
  let [product, left, right] = [0, 0, 0]
  for (let i = 0; a && b && i < a.length; i += 1) {
    const [x = 0, y = 0] = [a[i], b[i]]
    product += x * y
    left += x * x
    right += y * y
  }
  return left > 0 && right > 0 ? product / Math.sqrt(left * right) : 0
}

/** Rows of the decoder for the shared latents, in raw units: what a code of one latent adds to the empty one. */
export function decoderRows(model: Model, modality: 'vision' | 'text'): Float32Array[] {
  const { dShared, kShared, kPrivate } = model.config
  const k = kShared + kPrivate
  const indices = new Uint32Array((dShared + 1) * k).fill(UNUSED)
  const values = new Float32Array((dShared + 1) * k)
  for (let latent = 0; latent < dShared; latent += 1) {
    indices[latent * k] = latent
    values[latent * k] = 1
  }
  const decoded = model.decode({ indices, values, k, dShared }, modality)
  const width = decoded.length / (dShared + 1)
  const bias = decoded.subarray(dShared * width)
  return Array.from({ length: dShared }, (_, latent) =>
    decoded.slice(latent * width, (latent + 1) * width).map((value, i) => value - (bias[i] ?? 0)),
  )
}

/** The codes with a latent's activation changed on every token; set on all of them where `value` is given. */
export function turned(
  codes: Required<Codes>,
  latent: number,
  factor: number | undefined,
  value: number | undefined,
): Required<Codes> {
  const { k, dShared } = codes
  const tokens = codes.indices.length / k
  // One more slot, for tokens that did not fire it: kept in the order of falling values that codes have.
  const rows = Array.from({ length: tokens }, (_, token) => {
    const row = Array.from({ length: k }, (_, slot) => ({
      index: codes.indices[token * k + slot] ?? UNUSED,
      value: codes.values[token * k + slot] ?? 0,
    })).filter(({ index }) => index !== UNUSED)
    const own = row.find(({ index }) => index === latent)
    const wanted = value ?? (own?.value ?? 0) * (factor ?? 1)
    const others = row.filter(({ index }) => index !== latent)
    // A code holds k entries: where one is added to a full code, the weakest shared one gives way.
    if (wanted > 0 && !own && others.length === k) {
      const weakest =
        others.filter(({ index }) => index < dShared).sort((a, b) => a.value - b.value)[0] ?? others.at(-1)
      if (weakest) others.splice(others.indexOf(weakest), 1)
    }
    return wanted > 0 ? [...others, { index: latent, value: wanted }] : others
  })
  const indices = new Uint32Array(tokens * k).fill(UNUSED)
  const values = new Float32Array(tokens * k)
  for (const [token, row] of rows.entries()) {
    for (const [slot, entry] of row.entries()) {
      indices[token * k + slot] = entry.index
      values[token * k + slot] = entry.value
    }
  }
  return { indices, values, k, dShared }
}

/** How decoded states move: ‖after − before‖ of every patch, relative to ‖before‖ over all of them, and their cosine. */
export function changeOf(
  before: Float32Array,
  after: Float32Array,
  patches: number,
): { heat: Float32Array; change: number; cosine: number } {
  const width = before.length / patches
  const heat = new Float32Array(patches)
  let [change, norm, norms, product] = [0, 0, 0, 0]
  for (let patch = 0; patch < patches; patch += 1) {
    let moved = 0
    for (let i = patch * width; i < (patch + 1) * width; i += 1) {
      const [x = 0, y = 0] = [before[i], after[i]]
      moved += (y - x) ** 2
      norm += x * x
      norms += y * y
      product += x * y
    }
    heat[patch] = Math.sqrt(moved)
    change += moved
  }
  return {
    heat,
    change: norm > 0 ? Math.sqrt(change / norm) : 0,
    cosine: norm > 0 && norms > 0 ? product / Math.sqrt(norm * norms) : 0,
  }
}
