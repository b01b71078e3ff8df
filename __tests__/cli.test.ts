import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bytesOf, npy, root, shared, temporary } from './support/data.js'

const work = temporary()
const bin = join(root, 'bin/lucid-sae.js')

interface Outcome {
  code: number | null
  stdout: string
  stderr: string
}

function start(args: string[]): ChildProcess {
  return spawn(process.execPath, [bin, ...args], { cwd: work, stdio: ['ignore', 'pipe', 'pipe'] })
}

function cli(...args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [bin, ...args], { cwd: work }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode, stdout, stderr }),
    )
  })
}

const shape = '--d-shared 32 --d-private 32 --k-shared 4 --k-private 4 --batch-pairs 16'.split(' ')

test('help and version', async () => {
  const help = await cli('--help')
  expect(help.code).toBe(0)
  for (const name of [
    'demo',
    'extract',
    'import',
    'merge',
    'info',
    'train',
    'evaluate',
    'interpret',
    'report',
    'verify',
    'doctor',
    'examine-backbone',
    'bench',
  ]) {
    expect(help.stdout).toContain(name)
  }
  expect((await cli('--version')).stdout.trim()).toBe('0.1.0')
  expect((await cli('train', '--help')).stdout).toContain('--mass-reweighting')
})

test('doctor --json prints one object', async () => {
  const { code, stdout } = await cli('doctor', '--json')
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({ device: 'cpu', version: '0.1.0' })
})

describe('wrong usage exits with 2, code and hint on stderr', () => {
  test.each([
    [['trian'], 'E_USAGE', "did you mean 'train'?"],
    [['serve'], 'E_OPTION', 'expected the folder of a report'],
    [['export', '--model', 'x'], 'E_OPTION', "needs the option 'out'"],
    [['export', '--model', 'x', '--out', 'y', '--format', 'onnx'], 'E_OPTION', 'saelens'],
    [['train', '--dshared', '3'], 'E_USAGE', '--d-shared'],
    [['train', '--d-shared', 'many', '--activations', 'x', '--out', 'y'], 'E_USAGE', 'expected a number'],
    [['train', '--activations', 'x'], 'E_OPTION', "needs the option 'out'"],
    [['train', '--activations', 'x', '--out', 'y', '--preset', 'papr'], 'E_UNKNOWN_OPTION', "did you mean 'paper'?"],
    [['extract', '--dataset', 'cocoa', '--out', 'x'], 'E_UNKNOWN_OPTION', "did you mean 'coco'?"],
    [['extract', '--dataset', 'coco', '--images', 'x', '--out', 'y'], 'E_OPTION', 'captions'],
    [['report', '--atlas', 'x'], 'E_OPTION', 'out'],
    [['merge', '--out', 'x'], 'E_OPTION', "needs the option 'parts'"],
    [['merge', 'a', 'b'], 'E_OPTION', "needs the option 'out'"],
    [['info'], 'E_OPTION', 'path'],
    [['bench', '--steps', '0'], 'E_OPTION', 'steps'],
  ])('%p', async (args, code, text) => {
    const outcome = await cli(...args)
    expect(outcome).toMatchObject({ code: 2, stdout: '' })
    expect(outcome.stderr).toContain(`${code}: `)
    expect(outcome.stderr).toContain(text)
  })
})

test('a failure exits with 1, and --json prints it as an object', async () => {
  const outcome = await cli('evaluate', '--model', 'none', '--activations', shared('train'), '--json')
  expect(outcome.code).toBe(1)
  const { error } = JSON.parse(outcome.stdout) as { error: { code: string; message: string } }
  expect(outcome.stderr).toContain(`${error.code}: ${error.message}`)
})

test('the whole way: extract, train, evaluate, interpret, report, verify', async () => {
  const extract = await cli('extract', '--dataset', 'scenes', '--pairs', '20', '--seed', '9', '--out', 'acts', '--json')
  expect(extract.code).toBe(0)
  expect(JSON.parse(extract.stdout)).toMatchObject({ pairs: 20 })
  writeFileSync(join(work, 'config.json'), JSON.stringify({ activations: 'acts', steps: 3, lr: 1, dShared: 32 }))
  const train = await cli(
    'train',
    '--config',
    'config.json',
    '--out',
    'run',
    '--lr',
    '0.003',
    ...shape,
    '--no-center',
    '--json',
  )
  expect(train.stderr).toContain('train 3/3')
  expect(JSON.parse(train.stdout)).toMatchObject({ config: { lr: 0.003, steps: 3, center: false, dShared: 32 } })
  const evaluate = await cli('evaluate', '--model', 'run', '--activations', 'acts', '--out', 'evaluation', '--quiet')
  expect(evaluate).toMatchObject({ code: 0, stderr: '' })
  expect(evaluate.stdout).toContain('cross R²')
  const concepts = ['--concepts', 'red,blue,sky', '--min-hits', '1', '--no-idf']
  const interpret = await cli('interpret', '--model', 'run', '--activations', 'acts', '--out', 'atlas', ...concepts)
  expect(interpret.code).toBe(0)
  const report = await cli(
    'report',
    '--atlas',
    'atlas',
    '--run',
    'run',
    '--evaluation',
    'evaluation',
    '--out',
    'report',
    '--json',
  )
  expect(report.code).toBe(0)
  expect(existsSync(join(work, 'report', 'index.html'))).toBe(true)
  for (const folder of ['acts', 'run', 'atlas']) expect(await cli('verify', folder)).toMatchObject({ code: 0 })
  expect(await cli('verify', work)).toMatchObject({ code: 1 })
}, 120_000)

test('import of .npy files, with captions one a line', async () => {
  const floats = Float32Array.from({ length: 48 }, (_, i) => Math.sin(i))
  writeFileSync(join(work, 'v.npy'), npy('<f4', [2, 4, 6], bytesOf(floats)))
  writeFileSync(join(work, 't.npy'), npy('<f4', [3, 4], bytesOf(floats.subarray(0, 12))))
  writeFileSync(join(work, 'n.npy'), npy('<i8', [2], bytesOf(BigInt64Array.from([1n, 2n]))))
  writeFileSync(join(work, 'captions.txt'), 'a cat\na dog\n')
  const files = ['--vision', 'v.npy', '--text', 't.npy', '--text-lengths', 'n.npy', '--captions', 'captions.txt']
  const outcome = await cli('import', ...files, '--vision-grid', '2,2', '--out', 'imported', '--json', '--quiet')
  expect(outcome).toMatchObject({ code: 0, stderr: '' })
  expect(JSON.parse(outcome.stdout)).toMatchObject({ pairs: 2, dVision: 6, dText: 4 })
  const again = await cli('import', ...files, '--out', 'imported')
  expect(again.code).toBe(1)
  expect(again.stderr).toContain('E_EXISTS: ')
})

test('a reader that closes the pipe is no failure', async () => {
  const child = start(['train', '--help'])
  child.stdout?.destroy()
  let stderr = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0)
  expect(stderr).toBe('')
})

/** Resolves once the child's stderr holds `text`. */
function seen(child: ChildProcess, text: string): Promise<void> {
  let all = ''
  return new Promise((resolve, reject) => {
    child.stderr?.on('data', (chunk: Buffer) => {
      all += chunk.toString()
      if (all.includes(text)) resolve()
    })
    child.once('exit', () => reject(new Error(`ended before '${text}': ${all}`)))
  })
}

test('Ctrl-C finishes the step, writes a checkpoint and says how to go on', async () => {
  const args = ['train', '--activations', shared('train'), '--out', 'stopped', '--steps', '100000', ...shape]
  const child = start(args)
  let stderr = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  await seen(child, 'train ')
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  child.kill('SIGINT')
  expect(await ended).toBe(130)
  expect(stderr).toContain('checkpoint')
  expect(stderr).toContain('lucid-sae train --resume')
  const resumed = start(['train', '--resume', '--activations', shared('train'), '--out', 'stopped'])
  await seen(resumed, 'train ')
  resumed.kill('SIGINT')
  resumed.kill('SIGINT')
  expect(await new Promise((resolve) => resumed.once('exit', resolve))).toBe(130)
}, 60_000)

test('the quick demo makes a report with controls', async () => {
  const { code, stdout, stderr } = await cli('demo', '--quick', '--out', 'demo', '--json')
  expect(stderr).toContain('extract')
  expect(code).toBe(0)
  const summary = JSON.parse(stdout)
  expect(summary.stages.map((stage: { name: string }) => stage.name)).toEqual([
    'extract',
    'extract held-out',
    'train',
    'train separate',
    'evaluate',
    'evaluate separate',
    'interpret',
    'report',
  ])
  expect(summary.evaluation.cross.t2v.controls).toHaveProperty('shuffledCaption')
  expect(summary.baseline.truth).toHaveProperty('identityRate')
  expect(existsSync(join(work, 'demo', 'report', 'index.html'))).toBe(true)
}, 120_000)
