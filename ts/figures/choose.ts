import type { AtlasConcept, AtlasData, AtlasLatent } from '../atlas-data.js'

/** Numbers in [0, 1) that follow from a seed (mulberry32). */
function random(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let word = Math.imul(state ^ (state >>> 15), state | 1)
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61)
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Latents with a label and pictures, in an order drawn from the seed. */
export function drawLatents({ latents }: Pick<AtlasData, 'latents'>, count: number, seed: number): AtlasLatent[] {
  const named = latents.filter(({ label, images }) => label !== null && images.length > 0)
  const next = random(seed)
  for (let last = named.length - 1; last > 0; last -= 1) {
    const other = Math.floor(next() * (last + 1))
    const kept = named[last] as AtlasLatent
    named[last] = named[other] as AtlasLatent
    named[other] = kept
  }
  return named.slice(0, count)
}

/** The latent that carries a concept most. */
const carrier = (concept: AtlasConcept): number | undefined =>
  concept.latents.reduce<AtlasConcept['latents'][number] | undefined>(
    (most, entry) => (most === undefined || entry.weight > most.weight ? entry : most),
    undefined,
  )?.latent

/**
 * Concepts by category, categories by name; within one by falling confidence, those of more hits first where equal. Of several names for
 * what one latent carries ("heart", "valentines") the first is taken, as long as there are others.
 */
export function conceptsByCategory(
  { concepts }: Pick<AtlasData, 'concepts'>,
  each: number,
): { category: string; concepts: AtlasConcept[] }[] {
  const groups = new Map<string, AtlasConcept[]>()
  for (const concept of concepts) {
    if (concept.images.length === 0 || concept.latents.length === 0) continue
    const category = concept.category ?? 'concepts'
    groups.set(category, [...(groups.get(category) ?? []), concept])
  }
  const chosen = (members: AtlasConcept[]): AtlasConcept[] => {
    const sorted = [...members].sort(
      (a, b) => b.confidence - a.confidence || b.hits - a.hits || a.name.localeCompare(b.name),
    )
    const seen = new Set<number | undefined>()
    const first = sorted.filter((concept) => {
      const latent = carrier(concept)
      return !seen.has(latent) && seen.add(latent)
    })
    const rest = sorted.filter((concept) => !first.includes(concept))
    return [...first, ...rest].slice(0, each)
  }
  return [...groups]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([category, members]) => ({ category, concepts: chosen(members) }))
}
