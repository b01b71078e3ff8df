/** Questions to the model behind a served report: words, a picture, a latent turned up or down. */

import { useEffect, useRef, useState } from 'preact/hooks'
import { paintHeat } from './heat.js'

/** Whether the page is served with a model behind it; from disk it never is. */
export const isLive = (): boolean => document.querySelector('meta[name="lucid-live"]') !== null

interface Named {
  latent: number
  label: string | null
}

interface Pair {
  pair: number
  key: string
  caption: string
  score: number
}

interface Found {
  latents: (Named & { weight: number })[]
  images: Pair[]
}

interface Place {
  peak: [number, number]
  heat: string
}

interface Explained {
  grid: [number, number]
  concepts: (Place & { concept: string; confidence: number })[]
  latents: (Named & Place & { activation: number })[]
  neighbours: Pair[]
}

interface Steered extends Named {
  change: number
  cosine: number
  heat: string
  grid: [number, number]
  before: Pair[]
  after: Pair[]
}

async function ask<T>(name: string, question: BodyInit): Promise<T> {
  const response = await fetch(`/api/${name}`, { method: 'POST', body: question })
  const text = await response.text()
  if (!response.ok) {
    let message = text
    try {
      const { error } = JSON.parse(text) as { error: { message: string; hint?: string } }
      message = error.hint ? `${error.message}: ${error.hint}` : error.message
    } catch {
      // A plain refusal is its own message.
    }
    throw new Error(message)
  }
  return JSON.parse(text) as T
}

const name = ({ latent, label }: Named): string => label ?? `latent ${latent}`

/** Runs a question and keeps its answer, or what went wrong. */
function useAnswer<T>(): [T | undefined, string, boolean, (work: () => Promise<T>) => void] {
  const [found, setFound] = useState<T>()
  const [fault, setFault] = useState('')
  const [busy, setBusy] = useState(false)
  const run = (work: () => Promise<T>) => {
    setBusy(true)
    setFault('')
    work()
      .then(setFound, (error: Error) => setFault(error.message))
      .finally(() => setBusy(false))
  }
  return [found, fault, busy, run]
}

function Chips({ entries }: { entries: (Named & { value: number })[] }) {
  return (
    <p class="chips">
      {entries.map((entry) => (
        <a class="chip" key={entry.latent} href={`#/latent/${entry.latent}`}>
          {name(entry)} <span class="quiet">{entry.value.toFixed(2)}</span>
        </a>
      ))}
    </p>
  )
}

function Tiles({ pairs, choose }: { pairs: Pair[]; choose?: (pair: number) => void }) {
  return (
    <ul class="tiles">
      {pairs.map(({ pair, caption, score }) => (
        <li key={pair}>
          <div class="tile">
            <img src={`/api/thumbnail/${pair}`} alt="" loading="lazy" />
            <span>
              <span class="value">{score.toFixed(2)}</span> {caption}
            </span>
            {choose && (
              <button type="button" class="theme" onClick={() => choose(pair)}>
                steer this picture
              </button>
            )}
          </div>
        </li>
      ))}
    </ul>
  )
}

/** The page of questions. */
export function Ask() {
  const [pair, setPair] = useState(0)
  return (
    <main>
      <h1>Ask</h1>
      <p class="lead">Everything here is computed now, by the model on this machine.</p>
      <Words choose={setPair} />
      <Picture />
      <Steer pair={pair} choose={setPair} />
    </main>
  )
}

function Words({ choose }: { choose: (pair: number) => void }) {
  const [phrase, setPhrase] = useState('')
  const [found, fault, busy, run] = useAnswer<Found>()
  return (
    <section>
      <h2>Words → latents and pictures</h2>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault()
          run(() => ask<Found>('search', JSON.stringify({ phrase })))
        }}
      >
        <input
          class="field"
          aria-label="a phrase"
          placeholder="a phrase"
          value={phrase}
          onInput={(event) => setPhrase(event.currentTarget.value)}
        />
        <button type="submit" class="theme" disabled={busy || phrase.trim() === ''}>
          {busy ? 'asking …' : 'ask'}
        </button>
      </form>
      {fault && <p class="note">{fault}</p>}
      {found && (
        <div class="answer">
          <Chips entries={found.latents.map((entry) => ({ ...entry, value: entry.weight }))} />
          <Tiles pairs={found.images} choose={choose} />
        </div>
      )}
    </section>
  )
}

function Picture() {
  const [found, fault, busy, run] = useAnswer<Explained>()
  const [source, setSource] = useState('')
  const [shown, setShown] = useState<{ title: string; heat: string }>()
  const canvas = useRef<HTMLCanvasElement>(null)
  useEffect(() => () => URL.revokeObjectURL(source), [source])
  useEffect(() => {
    const first = found?.concepts[0]
    setShown(first ? { title: first.concept, heat: first.heat } : undefined)
  }, [found])
  useEffect(() => {
    if (canvas.current && found) paintHeat(canvas.current, shown?.heat ?? '', found.grid)
  }, [shown, found])
  const take = (file: File | undefined) => {
    if (!file) return
    setSource(URL.createObjectURL(file))
    run(() => ask<Explained>('explain', file))
  }
  const word = (title: string, heat: string, value: number) => (
    <button
      type="button"
      key={title}
      class={shown?.title === title ? 'word active' : 'word'}
      aria-pressed={shown?.title === title}
      onClick={() => setShown({ title, heat })}
    >
      {title} <span class="share">{value.toFixed(2)}</span>
    </button>
  )
  return (
    <section>
      <h2>A picture → concepts and latents</h2>
      <label
        class="drop"
        onDragOver={(event) => event.preventDefault()}
        onDrop={(event) => {
          event.preventDefault()
          take(event.dataTransfer?.files[0])
        }}
      >
        {busy ? 'looking …' : 'Drop a picture here, or choose one'}
        <input type="file" accept="image/*" onChange={(event) => take(event.currentTarget.files?.[0])} />
      </label>
      {fault && <p class="note">{fault}</p>}
      {found && (
        <div class="pair">
          <div class="frame">
            <img src={source} alt="what was asked about" class="squashed" />
            <canvas ref={canvas} class="heat" />
          </div>
          <div>
            <h3>Concepts</h3>
            <p class="words-line">{found.concepts.map((entry) => word(entry.concept, entry.heat, entry.confidence))}</p>
            <h3>Latents</h3>
            <p class="words-line">{found.latents.map((entry) => word(name(entry), entry.heat, entry.activation))}</p>
          </div>
        </div>
      )}
      {found && <Tiles pairs={found.neighbours} />}
    </section>
  )
}

function Steer({ pair, choose }: { pair: number; choose: (pair: number) => void }) {
  const [latent, setLatent] = useState(0)
  const [factor, setFactor] = useState(3)
  const [found, fault, busy, run] = useAnswer<Steered>()
  const canvas = useRef<HTMLCanvasElement>(null)
  useEffect(() => {
    if (canvas.current && found) paintHeat(canvas.current, found.heat, found.grid)
  }, [found])
  const field = (label: string, value: number, set: (value: number) => void) => (
    <label class="switch">
      {label}{' '}
      <input
        class="field small"
        type="number"
        min="0"
        step="any"
        value={value}
        onInput={(event) => set(Number(event.currentTarget.value))}
      />
    </label>
  )
  return (
    <section>
      <h2>Steer: turn a latent up or down</h2>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault()
          run(() => ask<Steered>('steer', JSON.stringify({ image: pair, latent, factor })))
        }}
      >
        {field('pair', pair, choose)}
        {field('latent', latent, setLatent)}
        {field('times', factor, setFactor)}
        <button type="submit" class="theme" disabled={busy}>
          {busy ? 'steering …' : 'steer'}
        </button>
      </form>
      {fault && <p class="note">{fault}</p>}
      {found && (
        <div class="pair steered">
          <div class="frame">
            <img src={`/api/thumbnail/${pair}`} alt={`pair ${pair}`} />
            <canvas ref={canvas} class="heat" />
          </div>
          <div>
            <p>
              {name(found)} × {factor}: the decoded states move by {(100 * found.change).toFixed(1)} % of their size,
              cosine {found.cosine.toFixed(3)}.
            </p>
            <h3>Nearest captions before</h3>
            <Captions pairs={found.before} />
            <h3>and after</h3>
            <Captions pairs={found.after} />
          </div>
        </div>
      )}
    </section>
  )
}

function Captions({ pairs }: { pairs: Pair[] }) {
  return (
    <ul class="plain">
      {pairs.map(({ pair, caption, score }) => (
        <li key={pair}>
          <span class="figure">{score.toFixed(2)}</span> {caption}
        </li>
      ))}
    </ul>
  )
}
