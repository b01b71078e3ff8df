/** The list of concepts and the page of one. */

import { useEffect, useState } from 'preact/hooks'
import type { ReportConcept, ReportConceptDetail, ReportData } from '../schema.js'
import { conceptDetail } from './data.js'
import { Pictures } from './pictures.js'

/** A text without halves of surrogate pairs, which no address can hold. */
const wellFormed = (text: string): string =>
  text.replace(/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g, '\uFFFD')

/** The address of a concept's page. */
export const conceptLink = (concept: string): string => `#/concept/${encodeURIComponent(wellFormed(concept))}`

function name(data: ReportData, latent: number): string {
  return data.latents.find((candidate) => candidate.latent === latent)?.label ?? `latent ${latent}`
}

function byCategory(concepts: ReportConcept[]): [string, ReportConcept[]][] {
  const groups = new Map<string, ReportConcept[]>()
  for (const concept of concepts) {
    const category = concept.category ?? 'concepts'
    groups.set(category, [...(groups.get(category) ?? []), concept])
  }
  return [...groups]
}

/** Every concept of the library, grouped; the search box of the header filters it. */
export function Concepts({ data, query }: { data: ReportData; query: string }) {
  const wanted = query.toLowerCase()
  const found = data.concepts.filter((concept) => concept.concept.toLowerCase().includes(wanted))
  return (
    <main>
      <h1>Concepts</h1>
      <p>A concept is a word or phrase put through the text tower; its page shows where pictures share its latents.</p>
      {byCategory(found).map(([category, concepts]) => (
        <section key={category}>
          <h2>{category}</h2>
          <p class="chips">
            {concepts.map((concept) => (
              <a class="chip concept" key={concept.concept} href={conceptLink(concept.concept)}>
                {concept.concept}
              </a>
            ))}
          </p>
        </section>
      ))}
      {found.length === 0 && <p class="empty">No concept matches.</p>}
    </main>
  )
}

/** One concept: its latents and the pictures that share them. */
export function Concept({ data, concept }: { data: ReportData; concept: string }) {
  const position = data.concepts.findIndex((candidate) => wellFormed(candidate.concept) === concept)
  const found = data.concepts[position]
  const [detail, setDetail] = useState<ReportConceptDetail>()
  const [missing, setMissing] = useState('')
  useEffect(() => {
    setDetail(undefined)
    setMissing('')
    if (position < 0) return
    let current = true
    conceptDetail(data, position).then(
      (loaded) => current && setDetail(loaded),
      (error: Error) => current && setMissing(error.message),
    )
    return () => {
      current = false
    }
  }, [data, position])
  if (!found) return <main>There is no concept “{concept}”.</main>
  return (
    <main>
      <p class="crumbs">
        <a href="#/concepts">Concepts</a> / {found.category ?? 'concept'}
      </p>
      <h1>“{found.concept}”</h1>
      <p class="chips">
        {found.latents.map(({ latent, weight }) => (
          <a class="chip" key={latent} href={`#/latent/${latent}`}>
            {name(data, latent)} <span class="quiet">{weight.toFixed(2)}</span>
          </a>
        ))}
      </p>
      {missing && <p class="note">{missing}</p>}
      {detail && <Pictures data={data} hits={detail.hits} subject={`“${found.concept}”`} />}
    </main>
  )
}
