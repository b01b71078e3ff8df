/** Pairs under the transport plan: which patches belong to a word, which words to a patch, and the latents that carry it. */

import type { ReportOptions } from '../interpret.js'
import { type Codes, type Model, modelOf } from '../model.js'
import { type ActivationStore, openStoreNow, type Pair } from '../store.js'
import type { ReportAtlas } from './index.js'
import type { ReportPair, ReportToken } from './schema.js'

const PAIRS = 48
const UNUSED = 0xffffffff
/** Latents shown of a token or a patch. */
const LATENTS = 5

/** Pairs of the report with their pictures; or why there are none. */
export type FoundPairs =
  | { readonly pairs: readonly { readonly pair: ReportPair; readonly picture: Uint8Array | undefined }[] }
  | { readonly reason: string }

/** The first pairs of the store, as many as asked for. */
export function pairsOf(atlas: ReportAtlas, options: ReportOptions): FoundPairs {
  const count = options.pairs ?? PAIRS
  if (count === 0) return { reason: 'none were asked for' }
  const model = options.model ?? atlas.source?.model
  const activations = options.activations ?? atlas.source?.activations
  if (model === undefined || activations === undefined) {
    return { reason: 'the report was made without the model and the activations' }
  }
  const opened = modelOf(model)
  const store = typeof activations === 'string' ? openStoreNow(activations) : activations
  const found = Array.from({ length: Math.min(count, store.pairs) }, (_, index) => ({
    pair: reportPair(opened, store, index),
    picture: store.thumbnail(index),
  }))
  return { pairs: found }
}

function reportPair(model: Model, store: ActivationStore, index: number): ReportPair {
  const pair = store.pair(index)
  const vision = model.encode(pair.vision, 'vision')
  const text = model.encode(pair.text, 'text')
  const { plan, patches, tokens } = model.match({ vision, text })
  const [rows, columns] = pair.visionGrid
  const sums = { rows: new Float64Array(patches), columns: new Float64Array(tokens) }
  for (let patch = 0; patch < patches; patch += 1) {
    for (let token = 0; token < tokens; token += 1) {
      const mass = plan[patch * tokens + token] ?? 0
      sums.rows[patch] = (sums.rows[patch] ?? 0) + mass
      sums.columns[token] = (sums.columns[token] ?? 0) + mass
    }
  }
  const total = sums.columns.reduce((sum, mass) => sum + mass, 0)
  const spans = spansOf(pair)
  return {
    pair: index,
    file: '',
    key: pair.image,
    caption: pair.caption,
    grid: [rows, columns],
    tokens: Array.from({ length: tokens }, (_, token): ReportToken => {
      const column = Float64Array.from({ length: patches }, (_, patch) => plan[patch * tokens + token] ?? 0)
      const span = spans[token] ?? [0, 0]
      return {
        text: pair.caption.slice(...span),
        span,
        heat: bytes(column),
        mass: total > 0 ? (sums.columns[token] ?? 0) / total : 0,
        latents: strongest(text, token),
      }
    }),
    patches: Array.from({ length: patches }, (_, patch) => strongest(vision, patch)),
    shares: Array.from({ length: patches }, (_, patch) =>
      Array.from({ length: tokens }, (_, token) => {
        const row = sums.rows[patch] ?? 0
        return row > 0 ? Math.round((100 * (plan[patch * tokens + token] ?? 0)) / row) : 0
      }),
    ),
  }
}

/** Spans of the tokens in UTF-16 units; the store counts bytes of UTF-8. */
function spansOf({ caption, textSpans }: Pair): [number, number][] {
  const encoded = Buffer.from(caption, 'utf8')
  const at = (byte: number): number => encoded.subarray(0, byte).toString('utf8').length
  return Array.from({ length: textSpans.length / 2 }, (_, token) => [
    at(textSpans[2 * token] ?? 0),
    at(textSpans[2 * token + 1] ?? 0),
  ])
}

function strongest(codes: Codes, token: number): { latent: number; value: number }[] {
  const { k = 0, dShared = 0 } = codes
  const found: { latent: number; value: number }[] = []
  for (let slot = token * k; slot < (token + 1) * k && found.length < LATENTS; slot += 1) {
    const latent = codes.indices[slot] ?? UNUSED
    // Shared entries lead, by falling value.
    if (latent >= dShared) break
    found.push({ latent, value: Number((codes.values[slot] ?? 0).toPrecision(3)) })
  }
  return found
}

/** Values relative to the largest, a byte each, base64. */
function bytes(values: Float64Array): string {
  const largest = values.reduce((most, value) => Math.max(most, value), 0)
  const scaled = Uint8Array.from(values, (value) =>
    largest > 0 ? Math.round((255 * Math.max(value, 0)) / largest) : 0,
  )
  return Buffer.from(scaled).toString('base64')
}
