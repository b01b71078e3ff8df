/** The report page: routes in the hash, so that links work from disk. */

import { render } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import type { ReportData } from '../schema.js'
import { Compare } from './compare.js'
import { Concept, Concepts } from './concepts.js'
import { loadScript } from './data.js'
import { Latent, Latents } from './latents.js'
import { Ask, isLive } from './live.js'
import { Method } from './method.js'
import { Overview } from './overview.js'
import { PairPage, Pairs } from './pairs.js'
import { Search } from './search.js'

function useHash(): string {
  const [hash, setHash] = useState(location.hash)
  useEffect(() => {
    const changed = () => {
      setHash(location.hash)
      scrollTo(0, 0)
    }
    addEventListener('hashchange', changed)
    return () => removeEventListener('hashchange', changed)
  }, [])
  return hash
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function Page({ data, hash, query }: { data: ReportData; hash: string; query: string }) {
  const [path = '', parameters = ''] = hash.replace(/^#\/?/, '').split('?')
  const [view, ...rest] = path.split('/')
  const name = decode(rest.join('/'))
  if (view === 'latents') return <Latents data={data} query={query} />
  if (view === 'latent') return <Latent data={data} index={Number(name)} />
  if (view === 'concepts') return <Concepts data={data} query={query} />
  if (view === 'concept') return <Concept data={data} concept={name} />
  if (view === 'pairs') return <Pairs data={data} query={query} />
  if (view === 'pair') {
    const word = new URLSearchParams(parameters).get('word')
    return <PairPage data={data} index={Number(name)} word={word === null ? undefined : Number(word)} />
  }
  if (view === 'ask' && isLive()) return <Ask />
  if (view === 'compare') return <Compare data={data} />
  if (view === 'method') return <Method data={data} />
  if (query.trim() !== '') return <Search data={data} query={query} />
  return <Overview data={data} />
}

/** A button and no link: the hash is the route. */
function skip(): void {
  const main = document.querySelector('main')
  main?.setAttribute('tabindex', '-1')
  main?.focus()
}

/** Pages that the search box filters; from any other it leads to the results. */
const LISTS = ['', 'latents', 'concepts', 'pairs']

const THEMES = ['auto', 'light', 'dark'] as const
type ThemeName = (typeof THEMES)[number]

/** The theme chosen last; some browsers keep nothing for pages from disk. */
function keptTheme(): ThemeName {
  try {
    const kept = localStorage.getItem('lucid-theme')
    return THEMES.find((theme) => theme === kept) ?? 'auto'
  } catch {
    return 'auto'
  }
}

function keepTheme(theme: ThemeName): void {
  try {
    localStorage.setItem('lucid-theme', theme)
  } catch {
    // It holds until the page is closed.
  }
}

/** Light, dark, or as the system has it. */
function Theme() {
  const [theme, setTheme] = useState<ThemeName>(keptTheme)
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? 'auto'
  useEffect(() => {
    document.documentElement.dataset.theme = theme
    keepTheme(theme)
  }, [theme])
  return (
    <button
      type="button"
      class="theme"
      aria-label={`theme: ${theme}; switch to ${next}`}
      onClick={() => setTheme(next)}
    >
      {{ auto: '◐', light: '☀', dark: '☾' }[theme]}
    </button>
  )
}

/** The data of a report that follows a run is read again until the run is done. */
function useData(first: ReportData): ReportData {
  const [data, setData] = useState(first)
  const { watching } = data
  useEffect(() => {
    if (!watching || watching.done) return
    const look = async () => {
      // The address changes, so that no copy is taken from a cache.
      await loadScript(`data/report.js?${Date.now()}`).catch(() => undefined)
      const found = window.LUCID_REPORT
      if (found && found.watching?.at !== watching.at) setData(found)
    }
    const timer = setInterval(look, Math.max(1000, 1000 * watching.every))
    return () => clearInterval(timer)
  }, [watching])
  return data
}

function App({ data: first }: { data: ReportData }) {
  const data = useData(first)
  const hash = useHash()
  const [query, setQuery] = useState('')
  const [view = ''] = hash.replace(/^#\/?/, '').split(/[/?]/)
  const search = (text: string) => {
    setQuery(text)
    // From the page of one latent or concept a search leads back to results.
    if (!LISTS.includes(view)) location.hash = '#/'
  }
  const searching = view === '' && query.trim() !== ''
  const link = (name: string, text: string) => (
    <a href={`#/${name}`} aria-current={!searching && (view === name || `${view}s` === name) ? 'page' : undefined}>
      {text}
    </a>
  )
  return (
    <>
      <button type="button" class="skip" onClick={skip}>
        Skip to the content
      </button>
      <header>
        <a class="brand" href="#/">
          lucid-sae
        </a>
        <nav aria-label="pages">
          {link('', 'Overview')}
          {link('latents', 'Latents')}
          {link('concepts', 'Concepts')}
          {link('pairs', 'Pairs')}
          {isLive() && link('ask', 'Ask')}
          {link('compare', 'Compare')}
          {link('method', 'Method')}
        </nav>
        <input
          type="search"
          placeholder="Search words, latents, captions"
          aria-label="Search"
          value={query}
          onInput={(event) => search(event.currentTarget.value)}
        />
        <Theme />
      </header>
      <Page data={data} hash={hash} query={query} />
      <footer>
        Made with lucid-sae {data.version} on {data.created}. The same data lies in <code>data/*.json</code>.
      </footer>
    </>
  )
}

const place = document.getElementById('app')
loadScript('data/report.js').then(
  () => {
    const data = window.LUCID_REPORT
    if (place && data) {
      document.title = `${data.title} · lucid-sae`
      render(<App data={data} />, place)
    }
  },
  (error: Error) => {
    if (place) place.textContent = error.message
  },
)
