/** The table of latents and the page of one. */

import { useEffect, useState } from 'preact/hooks'
import type { ReportData, ReportLatent, ReportLatentDetail } from '../schema.js'
import { latentDetail } from './data.js'
import { Pictures } from './pictures.js'

type SortKey = 'label' | 'purity' | 'vision' | 'text' | 'latent'

const SORTS: { [key in SortKey]: (a: ReportLatent, b: ReportLatent) => number } = {
  // Named latents first; a latent without a name has nothing to be sorted by.
  label: (a, b) => Number(a.label === null) - Number(b.label === null) || (a.label ?? '').localeCompare(b.label ?? ''),
  purity: (a, b) => (b.purity ?? -1) - (a.purity ?? -1),
  vision: (a, b) => b.density.vision - a.density.vision,
  text: (a, b) => b.density.text - a.density.text,
  latent: (a, b) => a.latent - b.latent,
}

const share = (value: number): string => `${(100 * value).toFixed(1)} %`

/** Every shared latent, sortable; the search box of the header filters it. */
export function Latents({ data, query }: { data: ReportData; query: string }) {
  const [sort, setSort] = useState<SortKey>('label')
  const wanted = query.toLowerCase()
  const rows = data.latents
    .filter((latent) =>
      `${latent.label ?? ''} ${latent.terms.join(' ')} ${latent.latent}`.toLowerCase().includes(wanted),
    )
    .sort(SORTS[sort])
  const head = (key: SortKey, text: string) => (
    <th scope="col" aria-sort={sort === key ? 'ascending' : 'none'}>
      <button type="button" onClick={() => setSort(key)}>
        {text}
      </button>
    </th>
  )
  return (
    <main>
      <h1>Latents</h1>
      <p>
        Each shared latent is one direction that both pictures and words can fire. A name is given only where the
        concepts that fire it agree.
      </p>
      <table class="list" data-rows={rows.length}>
        <thead>
          <tr>
            {head('latent', '#')}
            {head('label', 'name')}
            <th scope="col">terms</th>
            {head('purity', 'purity')}
            {head('vision', 'patches')}
            {head('text', 'tokens')}
          </tr>
        </thead>
        <tbody>
          {rows.map((latent) => (
            <tr key={latent.latent} class="latent-row">
              <td class="figure">
                <a href={`#/latent/${latent.latent}`}>{latent.latent}</a>
              </td>
              <td>
                <a href={`#/latent/${latent.latent}`}>{latent.label ?? <span class="empty">no name</span>}</a>
              </td>
              <td class="terms">{latent.terms.join(', ')}</td>
              <td class="figure">{latent.purity === null ? '' : latent.purity.toFixed(2)}</td>
              <td class="figure">{share(latent.density.vision)}</td>
              <td class="figure">{share(latent.density.text)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </main>
  )
}

/** One latent: the words and the pictures that fire it. */
export function Latent({ data, index }: { data: ReportData; index: number }) {
  const position = data.latents.findIndex((latent) => latent.latent === index)
  const latent = data.latents[position]
  const [detail, setDetail] = useState<ReportLatentDetail>()
  const [missing, setMissing] = useState('')
  useEffect(() => {
    setDetail(undefined)
    setMissing('')
    if (position < 0) return
    let current = true
    latentDetail(data, position).then(
      (found) => current && setDetail(found),
      (error: Error) => current && setMissing(error.message),
    )
    return () => {
      current = false
    }
  }, [data, position])
  if (!latent) return <main>There is no latent {index}.</main>
  const largest = Math.max(...(detail?.words ?? []).map((word) => word.activation), 1e-9)
  const carried = data.concepts.filter((concept) => concept.latents.some((entry) => entry.latent === index))
  return (
    <main>
      <p class="crumbs">
        <a href="#/latents">Latents</a> / {index}
      </p>
      <h1>{latent.label ?? `Latent ${index}`}</h1>
      <p class="facts-line">
        fires on {share(latent.density.vision)} of patches and {share(latent.density.text)} of tokens
        {latent.purity !== null && `; purity ${latent.purity.toFixed(2)}`}
        {latent.terms.length > 0 && `; terms: ${latent.terms.join(', ')}`}
      </p>
      {missing && <p class="note">{missing}</p>}
      {detail && (
        <>
          <h2>Words that fire it</h2>
          {detail.words.length === 0 ? (
            <p class="empty">No word fires it.</p>
          ) : (
            <table class="narrow words">
              <tbody>
                {detail.words.map((word) => (
                  <tr key={word.word}>
                    <th scope="row">{word.word}</th>
                    <td class="bar">
                      <div style={{ width: `${(100 * word.activation) / largest}%` }} />
                    </td>
                    <td class="figure">{word.activation.toFixed(2)}</td>
                    <td class="figure quiet">× {word.count}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
          <h2>Pictures that fire it</h2>
          <Pictures data={data} hits={detail.hits} subject={latent.label ?? `latent ${index}`} />
        </>
      )}
      {carried.length > 0 && (
        <>
          <h2>Concepts it carries</h2>
          <p class="chips">
            {carried.map((concept) => (
              <a class="chip" key={concept.concept} href={`#/concept/${encodeURIComponent(concept.concept)}`}>
                {concept.concept}
              </a>
            ))}
          </p>
        </>
      )}
    </main>
  )
}
