/** The row of pictures under a latent or a concept. */

import { useState } from 'preact/hooks'
import type { ReportData, ReportHit } from '../schema.js'
import { HeatPicture } from './heat.js'

/** Pictures with a switch for the heat map. */
export function Pictures({ data, hits, subject }: { data: ReportData; hits: ReportHit[]; subject: string }) {
  const [heat, setHeat] = useState(true)
  if (hits.length === 0) return <p class="empty">No picture fires it.</p>
  return (
    <section>
      <label class="switch">
        <input type="checkbox" checked={heat} onChange={(event) => setHeat(event.currentTarget.checked)} /> heat map
      </label>
      <div class="pictures">
        {hits.map((hit) => {
          const image = data.images[hit.image]
          return image && <HeatPicture key={hit.image} image={image} hit={hit} subject={subject} showHeat={heat} />
        })}
      </div>
    </section>
  )
}
