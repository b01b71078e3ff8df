/** Table 5: what latents mean. */

import type { LabelScore } from '../evaluation.js'
import type { Atlas } from '../interpret.js'
import { type Table, words } from './table.js'
import type { Material } from './tables.js'

/** What latents mean, by the terms of their largest cluster. */
export function table5(
  { data }: Pick<Material, 'data'>,
  atlas: Pick<Atlas, 'latents'>,
  score: LabelScore | undefined,
  count = 12,
): Table {
  const named = atlas.latents.filter(({ label }) => label !== null)
  const order = [...named].sort((a, b) => b.hits - a.hits || a.latent - b.latent).slice(0, count)
  return {
    id: 'table5',
    title: 'Table 5: what latents mean (Table 1 shows the first two)',
    columns: [{ name: 'top terms of the largest cluster' }, { name: 'hits' }, { name: 'purity' }],
    rows: order.map(({ latent, topTerms, hits, purity }) => ({
      name: String(latent),
      cells: [
        words(topTerms.map(({ term }) => term).join(', ')),
        words(String(hits)),
        words(purity === null ? '–' : purity.toFixed(2)),
      ],
    })),
    notes: [
      ...(score
        ? [
            `By the truth of the scenes, ${score.right} of ${score.labels} labels are right; they name ${score.concepts.length} concepts.`,
          ]
        : []),
      `${data} The recommended model, first seed: the ${order.length} labelled latents with most hits of ${named.length} labelled among ${atlas.latents.length} shared.`,
    ],
  }
}
