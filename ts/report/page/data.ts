/** Access to the report's data: the main object is there at start, details come as classic scripts on demand. */

import type { ReportConceptDetail, ReportData, ReportLatentDetail, ReportPair } from '../schema.js'

declare global {
  interface Window {
    /** Set by `data/report.js`. */
    LUCID_REPORT?: ReportData
    /** Called by each chunk script with its details. */
    LUCID_CHUNK?: (name: string, details: unknown) => void
  }
}

const waiting = new Map<string, (details: unknown) => void>()
const chunks = new Map<string, Promise<unknown>>()

window.LUCID_CHUNK = (name, details) => {
  waiting.get(name)?.(details)
  waiting.delete(name)
}

/** A script beside the page. `fetch` is not allowed on `file:`; a script element is. */
export function loadScript(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script')
    script.src = path
    script.onload = () => {
      script.remove()
      resolve()
    }
    script.onerror = () => {
      script.remove()
      reject(new Error(`${path} is missing from the report folder`))
    }
    document.head.append(script)
  })
}

function chunk(name: string): Promise<unknown> {
  const known = chunks.get(name)
  if (known) return known
  const loaded = new Promise<unknown>((resolve, reject) => {
    waiting.set(name, resolve)
    loadScript(`data/${name}.js`).catch(reject)
  })
  chunks.set(name, loaded)
  return loaded
}

const number = (index: number): string => String(index).padStart(3, '0')

/** Words and pictures of the latent at a position of the table. */
export async function latentDetail(data: ReportData, position: number): Promise<ReportLatentDetail | undefined> {
  const part = Math.floor(position / data.chunk.latents)
  const details = (await chunk(`latents-${number(part)}`)) as ReportLatentDetail[]
  return details[position - part * data.chunk.latents]
}

/** Pictures of the concept at a position of the table. */
export async function conceptDetail(data: ReportData, position: number): Promise<ReportConceptDetail | undefined> {
  const part = Math.floor(position / data.chunk.concepts)
  const details = (await chunk(`concepts-${number(part)}`)) as ReportConceptDetail[]
  return details[position - part * data.chunk.concepts]
}

/** The plan of the pair at a position of the list. */
export async function pairDetail(data: ReportData, position: number): Promise<ReportPair | undefined> {
  const part = Math.floor(position / data.chunk.pairs)
  const details = (await chunk(`pairs-${number(part)}`)) as ReportPair[]
  return details[position - part * data.chunk.pairs]
}
