/** An atlas made by hand, for tests of the report: every text in it can be chosen, also hostile ones. */

import { deflateSync } from 'node:zlib'
import type { AtlasData, AtlasHit } from '../../ts/atlas-data.js'
import type { ReportAtlas } from '../../ts/report/index.js'

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n
  for (let bit = 0; bit < 8; bit += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1
  return c >>> 0
})

function pngChunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
  let crc = 0xffffffff
  for (const byte of body) crc = (CRC[(crc ^ byte) & 255] ?? 0) ^ (crc >>> 8)
  const out = Buffer.alloc(body.length + 8)
  out.writeUInt32BE(data.length, 0)
  body.copy(out, 4)
  out.writeUInt32BE((crc ^ 0xffffffff) >>> 0, body.length + 4)
  return out
}

/** A square picture with one red cell of a 14 × 14 grid. */
export function picture(cell: number, side = 112): Uint8Array {
  const rows = Buffer.alloc(side * (1 + 3 * side))
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const inside = Math.floor(y / 8) * 14 + Math.floor(x / 8) === cell
      const at = y * (1 + 3 * side) + 1 + 3 * x
      rows.set(inside ? [220, 40, 40] : [120, 150, 120 + (x % 64)], at)
    }
  }
  const header = Buffer.alloc(13)
  header.writeUInt32BE(side, 0)
  header.writeUInt32BE(side, 4)
  header.set([8, 2, 0, 0, 0], 8)
  const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10])
  const chunks = [pngChunk('IHDR', header), pngChunk('IDAT', deflateSync(rows)), pngChunk('IEND', Buffer.alloc(0))]
  return Buffer.concat([signature, ...chunks])
}

/** An atlas with `latents` latents over `images` pictures; `texts` are used for captions, keys, labels and words in turn. */
export function handmadeAtlas(latents: number, images: number, texts: readonly string[], concepts = 4): ReportAtlas {
  const text = (i: number): string => texts[i % texts.length] ?? ''
  const peakOf = (image: number): number => (37 * image + 20) % 196
  const hit = (image: number, latent: number): AtlasHit => {
    const peak = peakOf(image)
    return { image, peak: [Math.floor(peak / 14), peak % 14], value: 1 + image / 10, latent, map: 196 * image }
  }
  const hits = (latent: number): AtlasHit[] => Array.from({ length: Math.min(images, 6) }, (_, i) => hit(i, latent))
  const data: AtlasData = {
    format: 'lucid-atlas',
    formatVersion: 1,
    version: '0.1.0',
    model: { dShared: latents, latents: 2 * latents },
    store: { fingerprint: '0', pairs: images },
    options: {},
    threshold: 0.4,
    peaks: 100,
    images: Array.from({ length: images }, (_, i) => ({
      pair: i,
      key: `key ${text(i + 1)}`,
      file: null,
      caption: text(i),
      captions: [text(i)],
      grid: [14, 14],
      size: [112, 112],
    })),
    latents: Array.from({ length: latents }, (_, latent) => ({
      latent,
      label: latent % 3 === 2 ? null : `${text(latent)} ${latent}`,
      reason: latent % 3 === 2 ? 'few hits' : null,
      topTerms: [{ term: text(latent), concept: 0, hits: 9, confidence: 1.5 }],
      purity: latent % 3 === 2 ? null : 0.8,
      hits: 9,
      clusters: [],
      density: { vision: 0.03, text: 0.02 },
      words: [{ word: text(latent), activation: 1.25, max: 2, count: 40, share: 0.9 }],
      images: hits(latent),
    })),
    concepts: Array.from({ length: concepts }, (_, concept) => ({
      concept,
      name: `${text(concept)} ${concept}`,
      category: text(concept + 2),
      hits: 5,
      confidence: 1.2,
      latents: [{ latent: concept % latents, hits: 5, weight: 0.9, idf: 1.1 }],
      images: hits(concept % latents),
    })),
  }
  return {
    data,
    latents: data.latents,
    concepts: data.concepts,
    heat: (entry) => {
      const peak = entry.peak[0] * 14 + entry.peak[1]
      return Float32Array.from({ length: 196 }, (_, patch) =>
        Math.max(0, entry.value * (1 - Math.abs(patch - peak) / 20)),
      )
    },
    picture: (image) => picture(peakOf(image)),
  }
}
