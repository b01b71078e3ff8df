/** A picture and its caption under the transport plan: a word shows its patches, a patch its words. */

import { useEffect, useRef, useState } from 'preact/hooks'
import type { ReportData, ReportPair, ReportToken } from '../schema.js'
import { pairDetail } from './data.js'
import { decodeHeat, paintHeat } from './heat.js'

/** Every pair, as a small picture. */
export function Pairs({ data, query }: { data: ReportData; query: string }) {
  if ('reason' in data.pairs) {
    return (
      <main>
        <h1>Pairs</h1>
        <p class="empty">There are no pairs: {data.pairs.reason}.</p>
      </main>
    )
  }
  const wanted = query.toLowerCase()
  const found = data.pairs.list.flatMap((pair, index) =>
    pair.caption.toLowerCase().includes(wanted) ? [{ ...pair, index }] : [],
  )
  return (
    <main>
      <h1>Pairs</h1>
      <p class="lead">
        A photo and its caption, matched word by patch through the transport plan. Open one, then point at a word or at
        a patch.
      </p>
      <ul class="tiles">
        {found.map(({ file, caption, index }) => (
          <li key={index}>
            <a class="tile" href={`#/pair/${index}`}>
              <img src={file} alt="" loading="lazy" />
              <span>{caption}</span>
            </a>
          </li>
        ))}
      </ul>
      {found.length === 0 && <p class="empty">No caption matches.</p>}
    </main>
  )
}

const named = (data: ReportData, latent: number): string =>
  data.latents.find((candidate) => candidate.latent === latent)?.label ?? `latent ${latent}`

/** Latents that a word and its patches share, by the smaller activation times the word's heat there. */
function carriers(pair: ReportPair, token: ReportToken): { latent: number; weight: number }[] {
  const heat = decodeHeat(token.heat)
  const weights = new Map<number, number>()
  for (const { latent, value } of token.latents) {
    let weight = 0
    for (const [patch, entries] of pair.patches.entries()) {
      const other = entries.find((entry) => entry.latent === latent)
      if (other) weight += ((heat[patch] ?? 0) / 255) * Math.min(value, other.value)
    }
    weights.set(latent, weight)
  }
  return [...weights].map(([latent, weight]) => ({ latent, weight })).sort((a, b) => b.weight - a.weight)
}

/** The word whose mass lies on the fewest patches: the one to look at first. */
function sharpest(pair: ReportPair): number {
  const spread = (token: ReportToken): number => {
    const heat = decodeHeat(token.heat)
    return heat.reduce((sum, value) => sum + value, 0) / Math.max(1, Math.max(...heat))
  }
  let best = 0
  let least = Number.POSITIVE_INFINITY
  for (const [at, token] of pair.tokens.entries()) {
    if (token.text === '') continue
    const found = spread(token)
    if (found < least) [best, least] = [at, found]
  }
  return best
}

/** What is pointed at. */
type Focus = { token: number } | { patch: number } | undefined

/** One pair. */
export function PairPage({ data, index, word }: { data: ReportData; index: number; word: number | undefined }) {
  const list = 'list' in data.pairs ? data.pairs.list : []
  const [pair, setPair] = useState<ReportPair>()
  const [missing, setMissing] = useState('')
  useEffect(() => {
    setPair(undefined)
    setMissing('')
    let current = true
    if (list[index]) {
      pairDetail(data, index).then(
        (found) => current && setPair(found),
        (error: Error) => current && setMissing(error.message),
      )
    }
    return () => {
      current = false
    }
  }, [data, index])
  if (!list[index]) return <main>There is no pair {index}.</main>
  return (
    <main>
      <p class="crumbs">
        <a href="#/pairs">Pairs</a> / {index}
        <span class="steps">
          {index > 0 && <a href={`#/pair/${index - 1}`}>← previous</a>}
          {index + 1 < list.length && <a href={`#/pair/${index + 1}`}>next →</a>}
        </span>
      </p>
      <h1 class="caption">{list[index]?.caption}</h1>
      {missing && <p class="note">{missing}</p>}
      {pair && <Matched key={index} data={data} pair={pair} index={index} word={word} />}
    </main>
  )
}

function Matched({
  data,
  pair,
  index,
  word,
}: {
  data: ReportData
  pair: ReportPair
  index: number
  word: number | undefined
}) {
  const [rows, columns] = pair.grid
  const start = sharpest(pair)
  const [kept, setKept] = useState<Focus>({ token: word !== undefined && pair.tokens[word] ? word : start })
  // Another word in the address is another word to look at.
  useEffect(() => {
    if (word !== undefined && pair.tokens[word]) setKept({ token: word })
  }, [word, pair])
  const [hovered, setHovered] = useState<Focus>()
  const focus = hovered ?? kept
  const canvas = useRef<HTMLCanvasElement>(null)
  const token = focus && 'token' in focus ? pair.tokens[focus.token] : undefined
  const patch = focus && 'patch' in focus ? focus.patch : undefined
  useEffect(() => {
    if (canvas.current) paintHeat(canvas.current, token ? token.heat : '', pair.grid)
  }, [token, pair])
  const patchAt = (event: PointerEvent): number => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect()
    const at = (position: number, size: number, cells: number) =>
      Math.min(cells - 1, Math.max(0, Math.floor((position / size) * cells)))
    return at(event.clientY - box.top, box.height, rows) * columns + at(event.clientX - box.left, box.width, columns)
  }
  const move = (event: KeyboardEvent) => {
    const [row, column] = [Math.floor((patch ?? 0) / columns), (patch ?? 0) % columns]
    const to = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
    }[event.key]
    if (!to) return
    event.preventDefault()
    const [down = 0, right = 0] = to
    if (down < 0 || right < 0 || down >= rows || right >= columns) return
    setKept({ patch: down * columns + right })
  }
  const shares = patch === undefined ? undefined : pair.shares[patch]
  return (
    <div class="pair">
      <button
        type="button"
        class="frame large"
        aria-label={`${pair.key}, ${rows} × ${columns} patches; arrow keys choose a patch`}
        onPointerMove={(event) => setHovered({ patch: patchAt(event) })}
        onPointerLeave={() => setHovered(undefined)}
        onClick={(event) => setKept({ patch: patchAt(event as unknown as PointerEvent) })}
        onKeyDown={move}
      >
        <img src={pair.file} alt={`${pair.key}: ${pair.caption}`} />
        <canvas ref={canvas} class={token ? 'heat' : 'heat hidden'} />
        {patch !== undefined && (
          <span
            class="peak"
            style={{
              left: `${(100 * (patch % columns)) / columns}%`,
              top: `${(100 * Math.floor(patch / columns)) / rows}%`,
              width: `${100 / columns}%`,
              height: `${100 / rows}%`,
            }}
          />
        )}
      </button>
      <div class="beside">
        <p class="words-line">
          {pair.tokens.map((entry, at) => {
            const share = shares?.[at]
            const active = focus && 'token' in focus && focus.token === at
            return (
              <button
                key={at}
                type="button"
                class={active ? 'word active' : 'word'}
                aria-pressed={active === true}
                style={share === undefined ? {} : { '--share': `${share}%` }}
                onPointerEnter={() => setHovered({ token: at })}
                onPointerLeave={() => setHovered(undefined)}
                onFocus={() => setKept({ token: at })}
                onClick={() => {
                  setKept({ token: at })
                  history.replaceState(null, '', `#/pair/${index}?word=${at}`)
                }}
              >
                {entry.text === '' ? '⟨end⟩' : entry.text}
                {share !== undefined && <span class="share">{share} %</span>}
              </button>
            )
          })}
        </p>
        {token && <WordSide data={data} pair={pair} token={token} />}
        {patch !== undefined && <PatchSide data={data} pair={pair} patch={patch} />}
        <Legend />
      </div>
    </div>
  )
}

function Legend() {
  return (
    <p class="legend" aria-hidden="true">
      <span class="gradient" /> less to more of the word’s mass
    </p>
  )
}

function Chips({ data, entries }: { data: ReportData; entries: { latent: number; text: string }[] }) {
  if (entries.length === 0) return <p class="empty">none</p>
  return (
    <p class="chips">
      {entries.map(({ latent, text }) => (
        <a class="chip" key={latent} href={`#/latent/${latent}`}>
          {named(data, latent)} <span class="quiet">{text}</span>
        </a>
      ))}
    </p>
  )
}

function WordSide({ data, pair, token }: { data: ReportData; pair: ReportPair; token: ReportToken }) {
  const entries = carriers(pair, token).filter(({ weight }) => weight > 0)
  return (
    <section aria-live="polite">
      <h2>{token.text === '' ? 'the end of the sentence' : `“${token.text}”`}</h2>
      <p class="quiet">{(100 * token.mass).toFixed(1)} % of the pair’s mass</p>
      <h3>Latents that carry it to its patches, of the five strongest of either</h3>
      <Chips data={data} entries={entries.map(({ latent, weight }) => ({ latent, text: weight.toFixed(2) }))} />
      <h3>Its strongest shared latents, five at most</h3>
      <Chips data={data} entries={token.latents.map(({ latent, value }) => ({ latent, text: value.toFixed(2) }))} />
    </section>
  )
}

function PatchSide({ data, pair, patch }: { data: ReportData; pair: ReportPair; patch: number }) {
  const columns = pair.grid[1]
  const shares = (pair.shares[patch] ?? []).map((share, token) => ({ share, token }))
  const top = shares.sort((a, b) => b.share - a.share).slice(0, 4)
  return (
    <section aria-live="polite">
      <h2>
        Patch in row {Math.floor(patch / columns) + 1}, column {(patch % columns) + 1}
      </h2>
      <h3>Its words</h3>
      <ul class="plain">
        {top.map(({ share, token }) => (
          <li key={token}>
            <span class="figure">{share} %</span> {pair.tokens[token]?.text || '⟨end⟩'}
          </li>
        ))}
      </ul>
      <h3>Shared latents it fires</h3>
      <Chips
        data={data}
        entries={(pair.patches[patch] ?? []).map(({ latent, value }) => ({ latent, text: value.toFixed(2) }))}
      />
    </section>
  )
}
