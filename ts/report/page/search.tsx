/** What the search box finds: latents, concepts and captions. */

import type { ReportData } from '../schema.js'
import { conceptLink } from './concepts.js'
import { isLive } from './live.js'

const LIMIT = 60

/** The results of a query, each group cut at {@link LIMIT}. */
export function Search({ data, query }: { data: ReportData; query: string }) {
  const wanted = query.trim().toLowerCase()
  const has = (text: string): boolean => text.toLowerCase().includes(wanted)
  const latents = data.latents.filter((latent) => has(`${latent.label ?? ''} ${latent.terms.join(' ')}`))
  const concepts = data.concepts.filter((concept) => has(concept.concept))
  const images = data.images.filter((image) => has(image.caption) || has(image.key))
  return (
    <main class="search">
      <h1>Search: “{query}”</h1>
      {latents.length + concepts.length + images.length === 0 && (
        <p class="note">
          Nothing here holds these words one after another. Try one of them
          {isLive() ? (
            <>
              , or <a href="#/ask">ask the model</a>, which reads whole phrases.
            </>
          ) : (
            '; lucid-sae search and serve read whole phrases.'
          )}
        </p>
      )}
      <h2>Latents ({latents.length})</h2>
      <p class="chips">
        {latents.slice(0, LIMIT).map((latent) => (
          <a class="chip" key={latent.latent} href={`#/latent/${latent.latent}`}>
            {latent.label ?? latent.terms[0] ?? 'no name'} <span class="quiet">{latent.latent}</span>
          </a>
        ))}
      </p>
      <h2>Concepts ({concepts.length})</h2>
      <p class="chips">
        {concepts.slice(0, LIMIT).map((concept) => (
          <a class="chip" key={concept.concept} href={conceptLink(concept.concept)}>
            {concept.concept}
          </a>
        ))}
      </p>
      <h2>Pictures ({images.length})</h2>
      <div class="pictures">
        {images.slice(0, LIMIT).map((image) => (
          <figure class="picture" key={image.file}>
            <div class="frame">
              <img src={image.file} alt={image.caption} loading="lazy" />
            </div>
            <figcaption>{image.caption}</figcaption>
          </figure>
        ))}
      </div>
    </main>
  )
}
