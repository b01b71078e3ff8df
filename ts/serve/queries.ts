/** The questions of the page, answered by a trained model. */

import type { IncomingMessage } from 'node:http'
import { LucidError, optionError } from '../errors.js'
import type { Explorer, FoundPlace } from '../explore.js'

/** Most bytes of a picture. */
export const IMAGE_BYTES = 20 * 2 ** 20
/** Most bytes of any other question. */
const JSON_BYTES = 16 * 2 ** 10
const PHRASE_LENGTH = 1000

/** What answers; a test may put something else in its place. */
export type LiveQueries = Pick<Explorer, 'search' | 'explainImage' | 'nearest' | 'steer'> & {
  /** A small picture of a pair. */
  thumbnail(pair: number): Uint8Array | undefined
}

/** The body of a request, refused beyond `limit` bytes. */
export async function body(request: IncomingMessage, limit: number): Promise<Buffer> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length
    if (bytes > limit) {
      throw new LucidError('E_TOO_LARGE', `the question is larger than ${limit} bytes`, {
        hint: 'ask with less',
        details: { found: bytes, expected: limit },
      })
    }
    parts.push(part)
  }
  return Buffer.concat(parts)
}

async function fields(request: IncomingMessage): Promise<Record<string, unknown>> {
  let value: unknown
  try {
    value = JSON.parse((await body(request, JSON_BYTES)).toString('utf8'))
  } catch (error) {
    if (error instanceof LucidError) throw error
    throw optionError('question', 'no JSON', 'an object')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw optionError('question', value, 'an object')
  return value as Record<string, unknown>
}

/** Heat relative to its largest, a byte a patch, as the report has it. */
function compact<T extends FoundPlace>({ heat, ...rest }: T): Omit<T, 'heat'> & { heat: string } {
  return { ...rest, heat: heatBytes(heat) }
}

function heatBytes(heat: Float32Array): string {
  const largest = heat.reduce((most, value) => Math.max(most, value), 0)
  const bytes = Uint8Array.from(heat, (value) => (largest > 0 ? Math.round((255 * Math.max(value, 0)) / largest) : 0))
  return Buffer.from(bytes).toString('base64')
}

/** Answers the question at `name`; nothing where there is no such question. */
export async function answer(
  queries: LiveQueries,
  name: string,
  request: IncomingMessage,
  signal: AbortSignal,
): Promise<unknown> {
  switch (name) {
    case 'search': {
      const { phrase } = await fields(request)
      if (typeof phrase !== 'string' || phrase.length > PHRASE_LENGTH) {
        throw optionError('phrase', typeof phrase, `at most ${PHRASE_LENGTH} characters`)
      }
      return queries.search(phrase, {}, { signal })
    }
    case 'explain': {
      const image = await body(request, IMAGE_BYTES)
      const found = await queries.explainImage(new Uint8Array(image), {}, { signal })
      return { ...found, concepts: found.concepts.map(compact), latents: found.latents.map(compact) }
    }
    case 'nearest': {
      const { latent } = await fields(request)
      return queries.nearest(latent as number)
    }
    case 'steer': {
      const { image, latent, factor } = await fields(request)
      if (!Number.isInteger(image)) throw optionError('image', image, 'the position of a pair')
      const found = await queries.steer(
        { image: image as number, latent: latent as number, factor: factor as number },
        { signal },
      )
      return { ...found, heat: heatBytes(found.heat) }
    }
    default:
      return undefined
  }
}
