import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root, shared, temporary } from './support/data.js'

const work = temporary()
const index = pathToFileURL(join(root, 'dist/index.js')).href
const options = JSON.stringify({
  activations: shared('train'),
  dShared: 32,
  dPrivate: 32,
  kShared: 4,
  kPrivate: 4,
  batchPairs: 16,
})

/** Runs a module in a process of its own; it must end by itself. */
function run(source: string): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const args = ['--input-type=module', '-e', source]
    const child = execFile(process.execPath, args, { cwd: work, timeout: 30_000 }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode, stdout, stderr }),
    )
  })
}

test('a process ends after its work', async () => {
  const source = `import { train } from '${index}'
    const model = await train({ ...${options}, steps: 2, out: 'a' })
    console.log(model.info().steps)`
  expect(await run(source)).toMatchObject({ code: 0, stdout: '2\n' })
})

test('a run nobody awaits still ends before the process does', async () => {
  const source = `import { train } from '${index}'; train({ ...${options}, steps: 2, out: 'b' })`
  expect(await run(source)).toMatchObject({ code: 0 })
  const check = `import { loadModel } from '${index}'; console.log((await loadModel('b')).info().steps)`
  expect(await run(check)).toMatchObject({ stdout: '2\n' })
})

test('require gives the same interface', async () => {
  const source = `import { createRequire } from 'node:module'
    const lucid = createRequire('${pathToFileURL(join(root, 'package.json')).href}')('lucid-sae')
    console.log(typeof lucid.train, lucid.device().device)`
  const { code, stdout } = await run(source)
  expect(code).toBe(0)
  expect(stdout).toBe('function cpu\n')
})

test('the addon works in a worker, also one that is ended in mid-run', async () => {
  const source = `import { Worker } from 'node:worker_threads'
    const body = (steps, out) => \`import('${index}').then(async ({ train }) => {
      const { parentPort } = await import('node:worker_threads')
      const run = train({ ...${options}, steps: \${steps}, out: '\${out}' })
      for await (const event of run) if (event.type === 'step') parentPort.postMessage(event.step)
      parentPort.postMessage('done')
    })\`
    const first = new Worker(body(2, 'c'), { eval: true })
    const messages = []
    first.on('message', (message) => messages.push(message))
    await new Promise((resolve) => first.once('exit', resolve))
    console.log(messages.at(-1))
    const second = new Worker(body(100000, 'd'), { eval: true })
    await new Promise((resolve) => second.once('message', resolve))
    await second.terminate()
    console.log('terminated')
    process.exit(0)`
  const { code, stdout } = await run(source)
  expect(stdout).toBe('done\nterminated\n')
  expect(code).toBe(0)
})
