/** Serves a report on this machine, with questions to the model behind it. */

import { randomBytes, timingSafeEqual } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, realpath } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { LucidError, optionError } from '../errors.js'
import { explore } from '../explore.js'
import type { Atlas } from '../interpret.js'
import type { Model } from '../model.js'
import { checkOptions } from '../options.js'
import { type ActivationStore, openStoreNow } from '../store.js'
import { servedFile } from './files.js'
import { Bucket, Queue } from './limits.js'
import { answer, type LiveQueries } from './queries.js'

export type { LiveQueries } from './queries.js'

/** Options of {@link serve}. */
export interface ServeOptions {
  /** Folder of the report. */
  report: string
  /** The model behind it, for live questions. */
  model?: string | Model
  /** The store that questions look through. */
  activations?: string | ActivationStore
  /** The backbone the model was trained on. Default `'mini'`. */
  backbone?: string
  /** Names of latents, and the concepts to look for in a picture. */
  atlas?: string | Atlas
  /** Default 4173; 0 takes a free one. */
  port?: number
  /** @internal What answers in place of the model. */
  queries?: LiveQueries
}

/** @internal Names for checks and the command line. */
export const serveOptionNames = ['report', 'model', 'activations', 'backbone', 'atlas', 'port', 'queries'] as const

/** A report that is being served. */
export interface ServedReport extends AsyncDisposable {
  /** Address to open, with the token of this run. */
  readonly url: string
  readonly port: number
  /** Resolves once the server has ended. */
  readonly closed: Promise<void>
  /** Ends open connections and the server. */
  close(): Promise<void>
}

const HOST = '127.0.0.1'
const PORT = 4173
const COOKIE = 'lucid-token'
/** Questions that may wait, and how many a second. */
const LIMITS = { waiting: 8, burst: 20, rate: 5 }
/** Milliseconds in which a request must have come, and its head. */
const PATIENCE = { request: 30_000, headers: 10_000, idle: 5_000 }
/** Scripts, styles and pictures of the report itself, and nothing else. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
const HEADERS = {
  'Content-Security-Policy': POLICY,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
} as const

/**
 * Serves a report on 127.0.0.1 with live questions: words to latents and pictures, a picture to concepts and heat maps, steering. Only
 * who has the address with its token sees anything. Ends with `close()`.
 *
 * @example
 * ```ts
 * import { serve } from 'lucid-sae'
 *
 * await using served = await serve({ report: 'report', model: 'runs/a', activations: 'acts', port: 0 })
 * console.log(served.url)
 * ```
 */
export async function serve(options: ServeOptions): Promise<ServedReport> {
  const {
    report,
    model,
    activations,
    backbone,
    atlas,
    port = PORT,
    queries,
  } = checkOptions('serve', options, serveOptionNames, ['report'])
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw optionError('port', port, 'from 0 to 65535')
  if ((model === undefined) !== (activations === undefined)) {
    throw optionError('model', model, 'model and activations together, or neither')
  }
  const root = await reportFolder(report)
  let live = queries
  if (!live && model !== undefined && activations !== undefined) {
    const store = typeof activations === 'string' ? openStoreNow(activations) : activations
    const explorer = await explore({
      model,
      activations: store,
      ...(backbone === undefined ? {} : { backbone }),
      ...(atlas === undefined ? {} : { atlas }),
    })
    live = {
      search: (...args) => explorer.search(...args),
      explainImage: (...args) => explorer.explainImage(...args),
      nearest: (...args) => explorer.nearest(...args),
      steer: (...args) => explorer.steer(...args),
      thumbnail: (pair) => (pair < store.pairs ? store.thumbnail(pair) : undefined),
    }
  }
  return listen(new Site(root, live), port)
}

/** The folder of a report, resolved; refused where it holds none, or one of a newer version. */
async function reportFolder(report: string): Promise<string> {
  if (typeof report !== 'string' || report === '') throw optionError('report', report, 'the folder of a report')
  const folder = resolve(report)
  let format: unknown
  try {
    const data = JSON.parse(await readFile(join(folder, 'data', 'report.json'), 'utf8')) as { format?: unknown }
    format = data.format
    await readFile(join(folder, 'index.html'))
  } catch (error) {
    throw new LucidError('E_NOT_A_REPORT', `${folder} is not a report: ${(error as Error).message}`, {
      details: { option: 'report', file: folder },
      hint: 'write one with lucid-sae report',
    })
  }
  if (format !== 2) {
    throw new LucidError(
      'E_VERSION',
      `the report ${folder} is of format ${String(format)}; this version serves format 2`,
      {
        details: { file: folder, found: format, expected: 2 },
        hint: 'write the report again with this version',
      },
    )
  }
  return realpath(folder)
}

async function listen(site: Site, port: number): Promise<ServedReport> {
  const server = createServer((request, response) => {
    site.respond(request, response).catch(() => response.destroy())
  })
  server.requestTimeout = PATIENCE.request
  server.headersTimeout = PATIENCE.headers
  server.keepAliveTimeout = PATIENCE.idle
  server.maxConnections = 64
  await new Promise<void>((done, failed) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      failed(
        error.code === 'EADDRINUSE'
          ? new LucidError('E_BUSY', `port ${port} is in use`, {
              details: { option: 'port', found: port, expected: 'a free port' },
              hint: 'choose another with --port, or --port 0 for any free one',
            })
          : new LucidError('E_IO', `cannot listen on ${HOST}:${port}: ${error.message}`, {
              details: { option: 'port' },
            }),
      )
    })
    server.listen(port, HOST, done)
  })
  const taken = (server.address() as AddressInfo).port
  site.port = taken
  return handle(server, site, taken)
}

function handle(server: Server, site: Site, port: number): ServedReport {
  const closed = new Promise<void>((done) => {
    server.once('close', () => done())
  })
  const close = async (): Promise<void> => {
    site.stop()
    server.close()
    server.closeAllConnections()
    await closed
  }
  return { url: `http://${HOST}:${port}/?token=${site.token}`, port, closed, close, [Symbol.asyncDispose]: close }
}

class Site {
  readonly token = randomBytes(16).toString('base64url')
  port = 0
  readonly #root: string
  readonly #queries: LiveQueries | undefined
  readonly #queue = new Queue(LIMITS.waiting)
  readonly #bucket = new Bucket(LIMITS.burst, LIMITS.rate)
  readonly #ending = new AbortController()

  constructor(root: string, queries: LiveQueries | undefined) {
    this.#root = root
    this.#queries = queries
  }

  /** Stops what is being computed. */
  stop(): void {
    this.#ending.abort(new LucidError('E_CANCELLED', 'the server is ending'))
  }

  async respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value)
    const { method = '', headers } = request
    const own = [`${HOST}:${this.port}`, `localhost:${this.port}`]
    // Another name that leads to this machine is a page of someone else's.
    if (!own.includes(headers.host ?? '')) return refuse(response, 403, 'another host')
    if (headers.origin !== undefined && !own.some((host) => headers.origin === `http://${host}`)) {
      return refuse(response, 403, 'another origin')
    }
    if (!['GET', 'HEAD', 'POST'].includes(method)) {
      response.setHeader('Allow', 'GET, HEAD, POST')
      return refuse(response, 405, 'method')
    }
    const target = request.url ?? '/'
    const cut = target.indexOf('?')
    const path = cut === -1 ? target : target.slice(0, cut)
    const token = new URLSearchParams(cut === -1 ? '' : target.slice(cut + 1)).get('token')
    if (path === '/' && token !== null && this.#knows(token)) {
      // The token leaves the address bar, and scripts never see it.
      response.setHeader('Set-Cookie', `${COOKIE}=${this.token}; HttpOnly; SameSite=Strict; Path=/`)
      response.setHeader('Location', '/')
      return refuse(response, 303, 'the report')
    }
    if (!this.#knows(cookie(headers.cookie))) return refuse(response, 403, 'open the address that serve printed')
    if (path.startsWith('/api/')) return this.#ask(path.slice(5), request, response)
    if (method === 'POST') return refuse(response, 405, 'method')
    return this.#send(path, method, response)
  }

  #knows(token: string | undefined): boolean {
    const [found, expected] = [Buffer.from(token ?? ''), Buffer.from(this.token)]
    return found.length === expected.length && timingSafeEqual(found, expected)
  }

  async #send(path: string, method: string, response: ServerResponse): Promise<void> {
    const file = await servedFile(this.#root, path)
    if (!file) return refuse(response, 404, 'no such file')
    response.setHeader('Content-Type', file.type)
    if (file.type.startsWith('text/html')) {
      const page = livePage(await readFile(file.path, 'utf8'), this.#queries !== undefined)
      response.setHeader('Content-Length', Buffer.byteLength(page))
      response.end(method === 'HEAD' ? undefined : page)
      return
    }
    response.setHeader('Content-Length', file.bytes)
    if (method === 'HEAD') {
      response.end()
      return
    }
    await pipeline(createReadStream(file.path), response)
  }

  async #ask(name: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const queries = this.#queries
    if (!queries) return refuse(response, 404, 'the report is served without a model')
    const picture = /^thumbnail\/(\d{1,9})$/.exec(name)
    if (picture && request.method !== 'POST') {
      const bytes = queries.thumbnail(Number(picture[1]))
      if (!bytes) return refuse(response, 404, 'no such picture')
      response.setHeader('Content-Type', 'image/jpeg')
      response.end(bytes)
      return
    }
    if (request.method !== 'POST') return refuse(response, 405, 'method')
    if (!this.#bucket.take()) {
      response.setHeader('Retry-After', '1')
      return refuse(response, 429, 'too many questions at once')
    }
    if (this.#queue.full) {
      response.setHeader('Retry-After', '2')
      return refuse(response, 503, 'busy with other questions')
    }
    try {
      const found = await this.#queue.run(() => answer(queries, name, request, this.#ending.signal))
      if (found === undefined) return refuse(response, 404, 'no such question')
      response.setHeader('Content-Type', 'application/json; charset=utf-8')
      response.end(JSON.stringify(found))
    } catch (error) {
      const known = error instanceof LucidError ? error : undefined
      const status = known?.code === 'E_TOO_LARGE' ? 413 : known ? 400 : 500
      response.setHeader('Content-Type', 'application/json; charset=utf-8')
      response.setHeader('Connection', 'close')
      response.statusCode = status
      const { code = 'E_INTERNAL', message = 'the question could not be answered', hint } = known ?? {}
      response.end(JSON.stringify({ error: { code, message, hint } }))
    }
  }
}

/** The page with its policy in the header in place of its own, and told whether there is a model to ask. */
function livePage(page: string, live: boolean): string {
  const bare = page.replace(/<meta\s+http-equiv="Content-Security-Policy"[^>]*>/i, '')
  return live ? bare.replace('<head>', '<head><meta name="lucid-live" content="yes">') : bare
}

function cookie(header: string | undefined): string | undefined {
  for (const part of (header ?? '').split(';')) {
    const [name, value] = part.trim().split('=', 2)
    if (name === COOKIE) return value
  }
  return undefined
}

function refuse(response: ServerResponse, status: number, text: string): void {
  response.statusCode = status
  response.setHeader('Content-Type', 'text/plain; charset=utf-8')
  response.end(`${text}\n`)
}
