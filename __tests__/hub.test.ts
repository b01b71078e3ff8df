import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { extract, openStore } from '../ts/index.js'
import { root, temporary } from './support/data.js'

const work = temporary()
const folder = join(root, 'crates/lucid-vlm/mini')
const commit = 'c0ffee'.padEnd(40, '0')
const requests: string[] = []
let server: Server
let endpoint: string

const gitHash = (bytes: Buffer): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')

/** A hub with one model, `tests/mini`: the files of the embedded backbone. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  const path = request.url ?? ''
  requests.push(`${request.method} ${path}`)
  if (path === '/api/models/tests/mini/revision/main') {
    const siblings = readdirSync(folder).map((rfilename) => ({ rfilename }))
    response.end(JSON.stringify({ sha: commit, siblings }))
    return
  }
  const file = path.startsWith(`/tests/mini/resolve/${commit}/`) ? path.slice(path.lastIndexOf('/') + 1) : ''
  if (!readdirSync(folder).includes(file)) {
    response.writeHead(404, { 'x-error-code': 'RepoNotFound' }).end()
    return
  }
  const bytes = readFileSync(join(folder, file))
  response.writeHead(200, { etag: `"${gitHash(bytes)}"`, 'content-length': bytes.length, 'x-repo-commit': commit })
  response.end(request.method === 'HEAD' ? undefined : bytes)
}

beforeAll(async () => {
  server = createServer(answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})

afterAll(() => new Promise((resolve) => server.close(resolve)))

interface Outcome {
  code: number | null
  stdout: string
  stderr: string
}

/** The command line in a process of its own: the addon reads the environment of the process, not that of a test. */
function cli(args: string[], more: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  const { HF_TOKEN: _, HF_HUB_CACHE: __, ...env } = process.env
  const hub = { HF_ENDPOINT: endpoint, HF_HOME: join(work, 'hf'), HF_HUB_OFFLINE: '', NO_PROXY: '127.0.0.1' }
  return new Promise((resolve) => {
    const options = { cwd: work, env: { ...env, ...hub, ...more } }
    const child = execFile(
      process.execPath,
      [join(root, 'bin/lucid-sae.js'), ...args],
      options,
      (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    )
  })
}

const scenes = ['extract', '--dataset', 'scenes', '--pairs', '4', '--seed', '5', '--json']

test('a backbone of the hub gives the activations that its folder gives', async () => {
  const dataset = { scenes: { pairs: 4, seed: 5 } }
  const local = await extract({ backbone: folder, dataset, out: join(work, 'local') })

  const first = await cli([...scenes, '--backbone', 'tests/mini', '--out', 'named'])
  expect(first).toMatchObject({ code: 0 })
  expect(first.stderr).toMatch(/download .* MB/)
  const named = await openStore(join(work, 'named'))
  expect(named.meta.fingerprint).toBe(local.meta.fingerprint)
  expect(named.meta.provenance).toMatchObject({ backbone: { id: `tests/mini@${commit}` } })
  const gets = requests.filter((request) => request.startsWith('GET /tests'))
  expect(gets).toHaveLength(readdirSync(folder).length)

  requests.length = 0
  const again = await cli([...scenes, '--backbone', `tests/mini@${commit}`, '--out', 'again'])
  const offline = await cli([...scenes, '--backbone', 'tests/mini', '--out', 'offline'], { HF_HUB_OFFLINE: '1' })
  expect([again.code, offline.code, requests]).toEqual([0, 0, []])
  expect(JSON.parse(offline.stdout).meta.fingerprint).toBe(local.meta.fingerprint)
})

test('a name that leads nowhere says why', async () => {
  const error = async (backbone: string, more?: NodeJS.ProcessEnv) => {
    const { code, stdout } = await cli([...scenes, '--backbone', backbone, '--out', 'refused'], more)
    expect(code).not.toBe(0)
    return JSON.parse(stdout).error
  }
  expect(await error('siglip')).toMatchObject({
    code: 'E_BACKBONE',
    message: expect.stringContaining('not a name of the form owner/name'),
    hint: expect.any(String),
  })
  expect(await error('tests/none')).toMatchObject({
    code: 'E_BACKBONE',
    message: expect.stringContaining('no such repository'),
    details: { option: 'backbone', name: 'tests/none' },
  })
  expect(await error('tests/other', { HF_HUB_OFFLINE: '1' })).toMatchObject({
    code: 'E_BACKBONE',
    message: expect.stringContaining('HF_HUB_OFFLINE'),
  })
  expect(await error('tests/mini', { HF_ENDPOINT: 'nowhere' })).toMatchObject({ code: 'E_OPTION' })
})
