// `npm run gpu-train -- --out folder`: training through the public API on a CUDA device. Scenes are learnt on the CPU and on the
// device, in f32 and in bf16, and evaluated on the same pictures; a run is killed and resumed, and has to end with the bits of one
// that was not; and `--large` steps (60) at the paper's sizes are timed as a user gets them. Writes gpu-train.md and gpu-train.json.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { device, evaluate, extract, importActivations, train } from '../dist/index.js'

const STEPS = 300
const KILLED_AT = 130
const LAYERS = ['vision.post_ln', 'text.block:0']
/** A model of the demo's size (ts/cli/demo.ts has chosen other k, lr and ε since): the figures in docs/gpu were made with this one. */
const CONFIG = {
  preset: 'default',
  initialise: 'coactivation',
  dShared: 96,
  dPrivate: 320,
  kShared: 10,
  kPrivate: 10,
  beta: 0.05,
  gamma: 1,
  epsilon: 0.05,
  batchPairs: 32,
  lr: 3e-3,
  steps: STEPS,
  checkpointEvery: 100,
  seed: 0,
}

const value = (name, otherwise) => {
  const at = process.argv.indexOf(name)
  return at < 0 ? otherwise : process.argv[at + 1]
}
const gpu = value('--device', 'cuda')

/** Trains; the model, its folder's hash of weights, and the median seconds of a step after the first ten. */
async function timed(options) {
  const seconds = []
  let loss = 0
  const run = train(options)
  for await (const event of run) {
    if (event.type !== 'step') continue
    loss = event.loss
    if (event.step > 10) seconds.push(event.secondsStep)
    if (value('--child')) process.stdout.write(`${event.step}\n`)
  }
  const model = await run.result
  seconds.sort((a, b) => a - b)
  const weights = readFileSync(join(options.out, 'model.safetensors'))
  return {
    model,
    loss,
    step: seconds[seconds.length >> 1],
    hash: createHash('sha256').update(weights).digest('hex'),
  }
}

/** The same run in a process of its own, killed at a step. */
function killed(config, at) {
  const file = join(config.out, '..', 'child.json')
  writeFileSync(file, JSON.stringify(config))
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, [process.argv[1], '--child', file], { stdio: ['ignore', 'pipe', 'inherit'] })
    child.stdout.on('data', (text) => {
      if (Number(String(text).trim().split('\n').at(-1)) >= at) child.kill('SIGKILL')
    })
    child.on('error', failed)
    child.on('exit', (_code, signal) =>
      signal === 'SIGKILL' ? done() : failed(new Error('the run ended before it was killed')),
    )
  })
}

/** Random states at the paper's sizes: only times are read off them. */
function random(shape) {
  let state = 1
  const data = new Float32Array(shape.reduce((a, b) => a * b))
  for (let at = 0; at < data.length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    data[at] = state / 2 ** 31
  }
  return { data, shape }
}

async function main() {
  const out = resolve(value('--out', 'gpu-train'))
  mkdirSync(out, { recursive: true })
  const work = mkdtempSync(join(tmpdir(), 'gpu-train-'))
  try {
    const at = (name) => join(work, name)
    const found = device()
    const name = found.cuda.kind === 'devices' ? found.cuda.devices[0].name : found.reason
    const scenes = (pairs, seed) => ({ scenes: { pairs, seed, split: 'train' } })
    const [pairs, heldOut] = [600, 200]
    const activations = await extract({ backbone: 'mini', layers: LAYERS, dataset: scenes(pairs, 1), out: at('train') })
      .result
    const unseen = await extract({ backbone: 'mini', layers: LAYERS, dataset: scenes(heldOut, 2), out: at('held-out') })
      .result
    const runs = []
    for (const [on, precision] of [
      ['cpu', 'f32'],
      [gpu, 'f32'],
      ['cpu', 'bf16'],
      [gpu, 'bf16'],
    ]) {
      const run = await timed({ ...CONFIG, precision, activations, device: on, out: at(`run-${runs.length}`) })
      const scores = await evaluate({ model: run.model, activations: unseen, bootstrap: 0 }).result
      runs.push({ on, precision, ...run, scores })
    }
    const again = await timed({ ...CONFIG, activations, device: gpu, out: at('again') })
    const resumedAt = at('resumed')
    mkdirSync(resumedAt)
    await killed({ ...CONFIG, activations: at('train'), device: gpu, out: resumedAt }, KILLED_AT)
    const resumed = await timed({ ...CONFIG, activations, device: gpu, out: resumedAt, resume: true })
    const same = again.hash === runs[1].hash && resumed.hash === runs[1].hash

    const pairsLarge = 256
    const steps = Number(value('--large', 60))
    const large = {}
    if (steps > 10) {
      const big = await importActivations({
        vision: random([2 * pairsLarge, 196, 768]),
        text: random([2 * pairsLarge * 64, 768]),
        textLengths: new Array(2 * pairsLarge).fill(64),
        out: at('paper'),
        precision: 'bf16',
      }).result
      const paper = {
        preset: 'paper',
        activations: big,
        steps,
        batchPairs: pairsLarge,
        device: gpu,
        checkpointEvery: 0,
      }
      for (const precision of ['f32', 'bf16']) {
        large[precision] = (await timed({ ...paper, precision, out: at(`paper-${precision}`) })).step
      }
    }

    const text = [
      `# Training through the API on ${name}`,
      '',
      `${pairs} scenes, ${STEPS} steps of ${CONFIG.batchPairs} pairs, measured on ${heldOut} other scenes; ${cpus().length} processor cores.`,
      '',
      '| | precision | last loss | self R² patches | words | cross R² T→V | V→T | ms a step |',
      '|---|---|--:|--:|--:|--:|--:|--:|',
      ...runs.map(({ on, precision, loss, scores, step }) => {
        const { r2, cross } = scores
        const numbers = [r2.vision.joint, r2.text.joint, cross.t2v.shared, cross.v2t.shared].map((one) =>
          one.toFixed(3),
        )
        return `| ${on} | ${precision} | ${loss.toFixed(4)} | ${numbers.join(' | ')} | ${(1e3 * step).toFixed(2)} |`
      }),
      '',
      `Twice on the device, and killed at step ${KILLED_AT} and resumed: ${same ? 'the same bits' : 'OTHER BITS'}.`,
      '',
      ...(large.f32
        ? [
            `A step at the paper's sizes (256 pairs of 196 patches and 64 words, d 768, 6144 latents a side) takes ${(1e3 * large.f32).toFixed(2)} ms, in bf16 ${(1e3 * large.bf16).toFixed(2)} ms.`,
            '',
          ]
        : []),
    ].join('\n')
    process.stdout.write(text)
    writeFileSync(join(out, 'gpu-train.md'), text)
    const report = { device: found, runs: runs.map(({ model: _, ...run }) => run), same, paperSecondsStep: large }
    writeFileSync(join(out, 'gpu-train.json'), `${JSON.stringify(report, null, 1)}\n`)
    process.exitCode = same ? 0 : 1
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

const child = value('--child')
if (child) await timed(JSON.parse(readFileSync(child, 'utf8')))
else await main()
