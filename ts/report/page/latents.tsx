/** The table of latents and the page of one. */

import { useEffect, useState } from 'preact/hooks'
import type { ReportData, ReportLatent, ReportLatentDetail } from '../schema.js'
import { conceptLink } from './concepts.js'
import { latentDetail } from './data.js'
import { Histogram } from './histogram.js'
import { Pictures } from './pictures.js'
import { VirtualRows } from './virtual.js'

/** Height of a row in pixels, as the style sheet sets it. */
const ROW = 38

type SortKey = 'latent' | 'label' | 'hits' | 'purity' | 'bridge' | 'modality' | 'monosemanticity' | 'vision' | 'text'

/** What a column is sorted by; rows without a value come last in either direction. */
const VALUES: { [key in SortKey]: (latent: ReportLatent) => number | string | null } = {
  latent: (latent) => latent.latent,
  label: (latent) => latent.label,
  hits: (latent) => latent.hits,
  purity: (latent) => latent.purity,
  bridge: (latent) => latent.bridge,
  modality: (latent) => latent.modality,
  monosemanticity: (latent) => latent.monosemanticity,
  vision: (latent) => latent.density.vision,
  text: (latent) => latent.density.text,
}

const COLUMNS: readonly (readonly [SortKey, string])[] = [
  ['latent', '#'],
  ['label', 'name'],
  ['hits', 'hits'],
  ['purity', 'purity'],
  ['bridge', 'bridge'],
  ['modality', 'modality'],
  ['monosemanticity', 'monosemanticity'],
  ['vision', 'patches'],
  ['text', 'tokens'],
]

function sorted(latents: ReportLatent[], key: SortKey, rising: boolean): ReportLatent[] {
  const value = VALUES[key]
  return [...latents].sort((a, b) => {
    const [x, y] = [value(a), value(b)]
    if (x === null || y === null) return Number(x === null) - Number(y === null) || a.latent - b.latent
    const order = typeof x === 'string' || typeof y === 'string' ? String(x).localeCompare(String(y)) : x - y
    return (rising ? order : -order) || a.latent - b.latent
  })
}

const share = (value: number): string => `${(100 * value).toFixed(1)} %`
const figure = (value: number | null): string => (value === null ? '' : value.toFixed(2))

/** Every shared latent, sortable and filterable; the search box of the header filters it too. */
export function Latents({ data, query }: { data: ReportData; query: string }) {
  const [sort, setSort] = useState<{ key: SortKey; rising: boolean }>({ key: 'label', rising: true })
  const [namedOnly, setNamedOnly] = useState(false)
  const [purity, setPurity] = useState(0)
  const [bridge, setBridge] = useState(0)
  const [quiet, setQuiet] = useState(false)
  const wanted = query.toLowerCase()
  const hasBridge = data.latents.some((latent) => latent.bridge !== null)
  const rows = sorted(
    data.latents.filter(
      (latent) =>
        (!namedOnly || latent.label !== null) &&
        (latent.purity ?? 0) >= purity &&
        (latent.bridge ?? 0) >= bridge &&
        (!quiet || Math.max(latent.density.vision, latent.density.text) <= 0.1) &&
        `${latent.label ?? ''} ${latent.terms.join(' ')} ${latent.latent}`.toLowerCase().includes(wanted),
    ),
    sort.key,
    sort.rising,
  )
  const head = ([key, text]: readonly [SortKey, string]) => (
    <th key={key} scope="col" aria-sort={sort.key !== key ? 'none' : sort.rising ? 'ascending' : 'descending'}>
      <button
        type="button"
        onClick={() => setSort({ key, rising: sort.key === key ? !sort.rising : key === 'latent' || key === 'label' })}
      >
        {text}
        <span aria-hidden="true">{sort.key !== key ? '' : sort.rising ? ' ↑' : ' ↓'}</span>
      </button>
    </th>
  )
  const slider = (name: string, value: number, set: (value: number) => void) => (
    <label class="switch">
      {name} at least {value.toFixed(2)}{' '}
      <input
        type="range"
        min="0"
        max="1"
        step="0.05"
        value={value}
        onInput={(event) => set(Number(event.currentTarget.value))}
      />
    </label>
  )
  const check = (name: string, value: boolean, set: (value: boolean) => void) => (
    <label class="switch">
      <input type="checkbox" checked={value} onChange={(event) => set(event.currentTarget.checked)} /> {name}
    </label>
  )
  return (
    <main>
      <h1>Latents</h1>
      <p class="lead">
        Each shared latent is one direction that both pictures and words can fire. A name is given only where the
        concepts that fire it agree.
      </p>
      <fieldset class="filters">
        <legend class="unseen">filters</legend>
        {check('named only', namedOnly, setNamedOnly)}
        {check('rare only (at most 10 % of patches and tokens)', quiet, setQuiet)}
        {slider('purity', purity, setPurity)}
        {hasBridge && slider('bridge', bridge, setBridge)}
        <span class="quiet" aria-live="polite">
          {rows.length} of {data.latents.length}
        </span>
      </fieldset>
      <div class="scroll">
        <table class="list" data-rows={rows.length} aria-rowcount={rows.length + 1}>
          <thead>
            <tr>{COLUMNS.map(head)}</tr>
          </thead>
          <VirtualRows
            count={rows.length}
            height={ROW}
            columns={COLUMNS.length}
            row={(index) => {
              const latent = rows[index]
              if (!latent) return null
              return (
                <tr key={latent.latent} class="latent-row" aria-rowindex={index + 2}>
                  <td class="figure">
                    <a href={`#/latent/${latent.latent}`}>{latent.latent}</a>
                  </td>
                  <td class="name">
                    <a href={`#/latent/${latent.latent}`}>
                      {latent.label ?? <span class="empty">no name{latent.reason ? `: ${latent.reason}` : ''}</span>}
                    </a>
                  </td>
                  <td class="figure">{latent.hits}</td>
                  <td class="figure">{figure(latent.purity)}</td>
                  <td class="figure">{figure(latent.bridge)}</td>
                  <td class="figure">{figure(latent.modality)}</td>
                  <td class="figure">{figure(latent.monosemanticity)}</td>
                  <td class="figure">{share(latent.density.vision)}</td>
                  <td class="figure">{share(latent.density.text)}</td>
                </tr>
              )
            }}
          />
        </table>
      </div>
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
        <span class="steps">
          {position > 0 && <a href={`#/latent/${data.latents[position - 1]?.latent}`}>← previous</a>}
          {position + 1 < data.latents.length && <a href={`#/latent/${data.latents[position + 1]?.latent}`}>next →</a>}
        </span>
      </p>
      <h1>{latent.label ?? `Latent ${index}`}</h1>
      <p class="facts-line">
        fires on {share(latent.density.vision)} of patches and {share(latent.density.text)} of tokens
        {latent.purity !== null && `; purity ${latent.purity.toFixed(2)}`}
        {latent.bridge !== null && `; bridge ${latent.bridge.toFixed(2)}`}
        {latent.monosemanticity !== null && `; monosemanticity ${latent.monosemanticity.toFixed(2)}`}
        {latent.label === null && latent.reason !== null && `; no name: ${latent.reason}`}
        {latent.terms.length > 0 && `; terms: ${latent.terms.join(', ')}`}
      </p>
      {missing && <p class="note">{missing}</p>}
      {detail && (
        <>
          <div class="halves">
            <section>
              <h2>Words that fire it</h2>
              {detail.words.length === 0 ? (
                <p class="empty">No word fires it.</p>
              ) : (
                <table class="narrow words">
                  <tbody>
                    {[...detail.words]
                      .sort((a, b) => b.activation - a.activation)
                      .map((word) => (
                        <tr key={word.word}>
                          <th scope="row">{word.word}</th>
                          <td class="bar">
                            <div class="filled" style={{ width: `${(100 * word.activation) / largest}%` }} />
                          </td>
                          <td class="figure">{word.activation.toFixed(2)}</td>
                          <td class="figure quiet">× {word.count}</td>
                        </tr>
                      ))}
                  </tbody>
                </table>
              )}
            </section>
            {detail.histogram && (
              <section>
                <h2>How strongly it fires</h2>
                <Histogram counts={detail.histogram} />
              </section>
            )}
          </div>
          <h2>Pictures that fire it</h2>
          <Pictures data={data} hits={detail.hits} subject={latent.label ?? `latent ${index}`} />
        </>
      )}
      {carried.length > 0 && (
        <>
          <h2>Concepts it carries</h2>
          <p class="chips">
            {carried.map((concept) => (
              <a class="chip" key={concept.concept} href={conceptLink(concept.concept)}>
                {concept.concept}
              </a>
            ))}
          </p>
        </>
      )}
    </main>
  )
}
