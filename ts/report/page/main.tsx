/** The report page: routes in the hash, so that links work from disk. */

import { render } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import type { ReportData } from '../schema.js'
import { Concept, Concepts } from './concepts.js'
import { loadScript } from './data.js'
import { Latent, Latents } from './latents.js'
import { Overview } from './overview.js'
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

function Page({ data, route, query }: { data: ReportData; route: string[]; query: string }) {
  const [view, ...rest] = route
  const name = decode(rest.join('/'))
  if (view === 'latents') return <Latents data={data} query={query} />
  if (view === 'latent') return <Latent data={data} index={Number(name)} />
  if (view === 'concepts') return <Concepts data={data} query={query} />
  if (view === 'concept') return <Concept data={data} concept={name} />
  if (query.trim() !== '') return <Search data={data} query={query} />
  return <Overview data={data} />
}

function App({ data }: { data: ReportData }) {
  const hash = useHash()
  const [query, setQuery] = useState('')
  const route = hash.replace(/^#\/?/, '').split('/')
  const search = (text: string) => {
    setQuery(text)
    // From the page of one latent or concept a search leads back to results.
    if (route[0] === 'latent' || route[0] === 'concept') location.hash = '#/'
  }
  const link = (view: string, text: string) => (
    <a href={`#/${view}`} aria-current={route[0] === view ? 'page' : undefined}>
      {text}
    </a>
  )
  return (
    <>
      <header>
        <a class="brand" href="#/">
          lucid-sae
        </a>
        <nav aria-label="pages">
          {link('', 'Overview')}
          {link('latents', 'Latents')}
          {link('concepts', 'Concepts')}
        </nav>
        <input
          type="search"
          placeholder="Search words, latents, captions"
          aria-label="Search"
          value={query}
          onInput={(event) => search(event.currentTarget.value)}
        />
      </header>
      <Page data={data} route={route} query={query} />
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
