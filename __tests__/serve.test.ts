/** `serve`: who may see what, and what strange requests come to; then the page itself in a browser. */

import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { loadAtlas, openStore, type ServedReport, serve } from '../ts/index.js'
import { writeReport } from '../ts/report/index.js'
import { Bucket, Queue } from '../ts/serve/limits.js'
import type { LiveQueries } from '../ts/serve/queries.js'
import { violationsOfSchemes } from './support/accessibility.js'
import { errorOf, root, shared, temporary } from './support/data.js'
import { handmadeAtlas, picture } from './support/report-atlas.js'

const work = temporary()
const report = join(work, 'report')
const open: ServedReport[] = []

beforeAll(async () => {
  await writeReport(handmadeAtlas(6, 4, ['a red star', 'blue circle']), {}, report)
  writeFileSync(join(work, 'secret.json'), '"secret"')
  symlinkSync(join(work, 'secret.json'), join(report, 'data', 'link.json'))
  writeFileSync(join(report, '.hidden.json'), '"hidden"')
  mkdirSync(join(report, '.git'))
  writeFileSync(join(report, '.git', 'config.json'), '"hidden"')
})

afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

async function served(options: Partial<Parameters<typeof serve>[0]> = {}): Promise<ServedReport> {
  const found = await serve({ report, port: 0, ...options })
  open.push(found)
  return found
}

interface Answer {
  status: number
  head: string
  body: string
}

/** Sends bytes as they are: a browser or a client library would tidy them first. */
function raw(port: number, request: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(request))
    const parts: Buffer[] = []
    socket.on('data', (part) => parts.push(part))
    socket.on('error', reject)
    socket.on('close', () => {
      const text = Buffer.concat(parts).toString('latin1')
      const [head = '', ...rest] = text.split('\r\n\r\n')
      resolve({ status: Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1] ?? 0), head, body: rest.join('\r\n\r\n') })
    })
  })
}

const tokenOf = ({ url }: ServedReport): string => new URL(url).searchParams.get('token') ?? ''

function get(to: ServedReport, path: string, lines: string[] = [], method = 'GET'): Promise<Answer> {
  const own = lines.some((line) => /^host:/i.test(line)) ? [] : [`Host: 127.0.0.1:${to.port}`]
  const head = [
    `${method} ${path} HTTP/1.1`,
    ...own,
    `Cookie: lucid-token=${tokenOf(to)}`,
    'Connection: close',
    ...lines,
  ]
  return raw(to.port, `${head.join('\r\n')}\r\n\r\n`)
}

test('the address with its token opens the report; without it nothing is shown', async () => {
  const found = await served()
  const anonymous = await raw(
    found.port,
    `GET / HTTP/1.1\r\nHost: 127.0.0.1:${found.port}\r\nConnection: close\r\n\r\n`,
  )
  expect(anonymous.status).toBe(403)
  expect(anonymous.body).not.toContain('<html')
  for (const token of ['', 'x', tokenOf(found).slice(1), `${tokenOf(found)}x`]) {
    const wrong = await raw(
      found.port,
      `GET /?token=${token} HTTP/1.1\r\nHost: 127.0.0.1:${found.port}\r\nConnection: close\r\n\r\n`,
    )
    expect(wrong.status).toBe(403)
  }
  const first = await raw(
    found.port,
    `GET /?token=${tokenOf(found)} HTTP/1.1\r\nHost: 127.0.0.1:${found.port}\r\nConnection: close\r\n\r\n`,
  )
  expect(first.status).toBe(303)
  expect(first.head).toMatch(/Set-Cookie: lucid-token=[\w-]{22}; HttpOnly; SameSite=Strict; Path=\//)
  const page = await get(found, '/')
  expect(page.status).toBe(200)
  expect(page.body).toContain('<div id="app">')
  expect(page.body).not.toContain('http-equiv="Content-Security-Policy"')
  for (const name of [
    "Content-Security-Policy: default-src 'none'",
    'X-Content-Type-Options: nosniff',
    'Referrer-Policy: no-referrer',
    'Cross-Origin-Opener-Policy: same-origin',
  ]) {
    expect(page.head).toContain(name)
  }
  // Another run, another token.
  expect(tokenOf(await served())).not.toBe(tokenOf(found))
})

test('other hosts, other origins and other methods are refused', async () => {
  const found = await served()
  expect((await get(found, '/', ['Host: evil.example'])).status).toBe(403)
  expect((await get(found, '/', [`Host: evil.example:${found.port}`])).status).toBe(403)
  expect((await get(found, '/', [`Host: localhost:${found.port}`])).status).toBe(200)
  expect((await get(found, '/', ['Origin: http://evil.example'])).status).toBe(403)
  expect((await get(found, '/', ['Origin: null'])).status).toBe(403)
  expect((await get(found, '/', [`Origin: http://127.0.0.1:${found.port}`])).status).toBe(200)
  for (const method of ['PUT', 'DELETE', 'OPTIONS', 'PATCH'])
    expect((await get(found, '/', [], method)).status).toBe(405)
  expect((await get(found, '/', ['Content-Length: 0'], 'POST')).status).toBe(405)
  const head = await get(found, '/data/report.json', [], 'HEAD')
  expect(head).toMatchObject({ status: 200, body: '' })
  expect(head.head).toMatch(/Content-Length: \d{3,}/)
})

test('nothing outside the report is sent, whatever the path', async () => {
  const found = await served()
  expect((await get(found, '/data/report.json')).status).toBe(200)
  expect((await get(found, '/page.js')).head).toContain('Content-Type: text/javascript')
  for (const path of [
    '/../secret.json',
    '/data/../../secret.json',
    '/%2e%2e/secret.json',
    '/data/%2e%2e/%2e%2e/secret.json',
    '/..%2fsecret.json',
    '/..%5csecret.json',
    '/..\\secret.json',
    '/%252e%252e/secret.json',
    '/data/link.json',
    '/.hidden.json',
    '/.git/config.json',
    '//etc/passwd',
    '/etc/passwd',
    '/data/report.json%00.html',
    '/data/',
    '/data',
    '/C:/secret.json',
    '/data/report.json:stream',
    '/%',
    '/%ff',
    `/${'a'.repeat(4000)}.json`,
    '/api/../data/report.json',
    'http://evil.example/secret.json',
    '*',
  ]) {
    const { status, body } = await get(found, path)
    expect([path, status >= 400]).toEqual([path, true])
    expect(body).not.toContain('secret"')
    expect(body).not.toContain('hidden"')
  }
  // Lines that are no HTTP at all end the connection, not the server.
  for (const bytes of ['\0\0\0\0', 'GET\r\n\r\n', `GET / HTTP/1.1\r\n${'X: y\r\n'.repeat(5000)}\r\n`]) {
    const { status } = await raw(found.port, bytes)
    expect([0, 400, 431]).toContain(status)
  }
  expect((await get(found, '/')).status).toBe(200)
})

/** Answers that take as long as told. */
function slow(): { queries: LiveQueries; free: () => void; asked: () => number } {
  let asked = 0
  let free: () => void = () => undefined
  const gate = new Promise<void>((resolve) => {
    free = resolve
  })
  const queries: LiveQueries = {
    search: async (phrase) => {
      asked += 1
      await gate
      return { phrase, tokens: [], latents: [], images: [] }
    },
    explainImage: async () => ({ grid: [1, 1], size: [1, 1], concepts: [], latents: [], neighbours: [] }),
    nearest: async () => [],
    steer: async () => {
      throw new Error('a fault with a /secret/path in it')
    },
    thumbnail: (pair) => (pair === 1 ? picture(3) : undefined),
  }
  return { queries, free, asked: () => asked }
}

const post = (to: ServedReport, name: string, text: string): Promise<Answer> =>
  raw(
    to.port,
    [
      `POST /api/${name} HTTP/1.1`,
      `Host: 127.0.0.1:${to.port}`,
      `Cookie: lucid-token=${tokenOf(to)}`,
      'Connection: close',
      `Content-Length: ${Buffer.byteLength(text)}`,
      '',
      text,
    ].join('\r\n'),
  )

test('questions wait their turn, and too many are turned away', async () => {
  const { queries, free, asked } = slow()
  const found = await served({ queries })
  const answers = Array.from({ length: 15 }, () => post(found, 'search', '{"phrase":"red"}'))
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(asked()).toBe(1)
  free()
  const statuses = (await Promise.all(answers)).map(({ status }) => status)
  // One under way and eight waiting.
  expect(statuses.filter((status) => status === 200)).toHaveLength(9)
  expect(statuses.filter((status) => status === 503)).toHaveLength(6)
  const more = await Promise.all(Array.from({ length: 20 }, () => post(found, 'nearest', '{"latent":1}')))
  expect(more.some(({ status, head }) => status === 429 && head.includes('Retry-After: 1'))).toBe(true)
})

test('a bad question has a clear answer, and a fault tells nothing of this machine', async () => {
  const { queries, free } = slow()
  free()
  const found = await served({ queries })
  expect(JSON.parse((await post(found, 'search', '{"phrase":"red"}')).body)).toMatchObject({ phrase: 'red' })
  for (const text of ['', '{', '[]', '"red"', '{"phrase":7}', `{"phrase":"${'x'.repeat(1001)}"}`]) {
    const { status, body } = await post(found, 'search', text)
    expect(status).toBe(400)
    expect(JSON.parse(body)).toMatchObject({ error: { code: 'E_OPTION' } })
  }
  expect((await post(found, 'search', `{"phrase":"${'x'.repeat(20_000)}"}`)).status).toBe(413)
  const fault = await post(found, 'steer', '{"image":1,"latent":2,"factor":3}')
  expect(fault.status).toBe(500)
  expect(fault.body).not.toContain('secret')
  expect((await post(found, 'taste', '{}')).status).toBe(404)
  expect((await get(found, '/api/search')).status).toBe(405)
  expect((await get(found, '/api/thumbnail/1')).status).toBe(200)
  expect((await get(found, '/api/thumbnail/2')).status).toBe(404)
  expect((await get(found, '/api/thumbnail/x')).status).toBe(405)
  const without = await served()
  expect((await post(without, 'search', '{"phrase":"red"}')).status).toBe(404)
})

test('what cannot be served is named', async () => {
  const found = await served()
  expect(await errorOf(() => serve({ report, port: found.port }))).toMatchObject({
    code: 'E_BUSY',
    details: { found: found.port },
  })
  expect(await errorOf(() => serve({ report: work, port: 0 }))).toMatchObject({ code: 'E_NOT_A_REPORT' })
  expect(await errorOf(() => serve({ report, port: 70_000 }))).toMatchObject({ code: 'E_OPTION' })
  expect(await errorOf(() => serve({ report, model: shared('run'), port: 0 }))).toMatchObject({ code: 'E_OPTION' })
  const old = join(work, 'old')
  mkdirSync(join(old, 'data'), { recursive: true })
  writeFileSync(join(old, 'index.html'), '')
  writeFileSync(join(old, 'data', 'report.json'), '{"format":1}')
  expect(await errorOf(() => serve({ report: old, port: 0 }))).toMatchObject({ code: 'E_VERSION' })
})

test('closing ends open connections at once', async () => {
  const { queries } = slow()
  const found = await serve({ report, port: 0, queries })
  const hanging = post(found, 'search', '{"phrase":"red"}').catch(() => undefined)
  await new Promise((resolve) => setTimeout(resolve, 100))
  const started = Date.now()
  await found.close()
  await found.closed
  await hanging
  expect(Date.now() - started).toBeLessThan(2000)
  await expect(raw(found.port, 'GET / HTTP/1.1\r\n\r\n')).rejects.toThrow()
})

test('the limits count as they say', async () => {
  const bucket = new Bucket(2, 1000)
  expect([bucket.take(), bucket.take()]).toEqual([true, true])
  await new Promise((resolve) => setTimeout(resolve, 20))
  expect(bucket.take()).toBe(true)
  const queue = new Queue(1)
  const order: number[] = []
  const one = queue.run(async () => void order.push(1))
  const two = queue.run(async () => void order.push(2))
  expect(queue.full).toBe(true)
  await Promise.all([one, two])
  expect(order).toEqual([1, 2])
  await expect(queue.run(() => Promise.reject(new Error('x')))).rejects.toThrow('x')
  await queue.run(async () => void order.push(3))
  expect(order).toEqual([1, 2, 3])
})

test('the command line serves until it is told to end', async () => {
  const child = spawn(process.execPath, [join(root, 'bin/lucid-sae.js'), 'serve', report, '--port', '0', '--json'])
  const line = await new Promise<string>((resolve) => child.stdout.once('data', (part) => resolve(String(part))))
  const { url, port } = JSON.parse(line) as { url: string; port: number }
  expect(new URL(url).port).toBe(String(port))
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  child.kill('SIGINT')
  expect(await ended).toBe(0)
})

const binary = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium'
const browserTest = existsSync(binary) ? it : it.skip

browserTest(
  `a reader asks the model for words, a picture and a steered latent${existsSync(binary) ? '' : ' (skipped: no Chromium)'}`,
  async () => {
    const live = join(work, 'live')
    await writeReport(await loadAtlas(shared('atlas')), {}, live)
    const found = await served({
      report: live,
      model: shared('run'),
      activations: shared('train'),
      atlas: shared('atlas'),
    })
    const browser = await chromium.launch({ executablePath: binary, args: ['--no-sandbox', '--disable-gpu'] })
    try {
      const page = await browser.newPage()
      const faults: string[] = []
      page.on('console', (message) => {
        if (message.type() === 'error') faults.push(message.text())
      })
      page.on('pageerror', (error) => faults.push(error.message))
      await page.goto(found.url)
      await page.waitForSelector('h1')
      expect(page.url()).not.toContain('token')
      await page.click('a[href="#/ask"]')
      const { caption } = (await openStore(shared('train'))).pair(0)
      await page.fill('input[aria-label="a phrase"]', caption)
      await page.getByRole('button', { name: 'ask' }).click()
      await page.waitForSelector('.answer .tile img')
      expect(await page.locator('.answer .tile').count()).toBe(12)
      await page.setInputFiles('input[type=file]', {
        name: 'x.png',
        mimeType: 'image/png',
        buffer: Buffer.from(picture(60)),
      })
      await page.waitForSelector('.squashed')
      expect(await page.locator('.words-line .word').count()).toBeGreaterThan(0)
      await page.getByRole('button', { name: 'steer', exact: true }).click()
      await page.getByText('the decoded states move by').waitFor()
      expect(await violationsOfSchemes(page)).toEqual([])
      await page.setInputFiles('input[type=file]', {
        name: 'x.png',
        mimeType: 'image/png',
        buffer: Buffer.from('no picture'),
      })
      await page.waitForSelector('.note')
      // The refused picture is the one fault that the browser reports.
      expect(faults.filter((fault) => !fault.includes('400'))).toEqual([])
    } finally {
      await browser.close()
    }
  },
)
