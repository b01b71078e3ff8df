import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type StepEvent, type TrainOptions, train } from '../ts/index.js'
import { errorOf, shared, temporary, tiny } from './support/data.js'

const work = temporary()
let made = 0
const options = (change: Partial<TrainOptions> = {}): TrainOptions => {
  made += 1
  return { ...tiny, activations: shared('train'), out: join(work, `run-${made}`), steps: 6, ...change }
}
const weights = (folder: string): Buffer => readFileSync(join(folder, 'model.safetensors'))

test('the loss falls, events tell it, and the folder holds model and log', async () => {
  const given = options({ steps: 30, evalEvery: 15, checkpointEvery: 15, validation: shared('held-out') })
  const run = train(given)
  const kinds = new Map<string, number>()
  const steps: StepEvent[] = []
  for await (const event of run) {
    kinds.set(event.type, (kinds.get(event.type) ?? 0) + 1)
    if (event.type === 'step') steps.push(event)
  }
  const model = await run
  expect(kinds.get('eval')).toBe(2)
  expect(kinds.get('checkpoint')).toBe(2)
  expect(kinds.get('done')).toBe(1)
  const [first, last] = [steps[0], steps.at(-1)] as [StepEvent, StepEvent]
  expect(last.step).toBe(30)
  expect(last.steps).toBe(30)
  expect(last.loss).toBeLessThan(first.loss)
  expect(last.r2.vision).toBeGreaterThan(0)
  const log = readFileSync(join(given.out, 'metrics.jsonl'), 'utf8').trim().split('\n')
  expect(log.filter((line) => JSON.parse(line).type === 'step')).toHaveLength(30)
  expect(model.info()).toMatchObject({ steps: 30, dShared: 32 })
  expect(model.config).toMatchObject({ dShared: 32, steps: 30, lr: 0.003 })
})

test('the same bits with one thread and with two', async () => {
  const [one, two] = [options({ threads: 1 }), options({ threads: 2 })]
  await train(one)
  await train(two)
  expect(weights(one.out).equals(weights(two.out))).toBe(true)
})

test('an interrupted run, resumed with the store and the folder alone, ends in the same bits', async () => {
  const whole = options({ steps: 40 })
  await train(whole)
  const part = options({ steps: 40 })
  const run = train(part)
  for await (const event of run) {
    if (event.type === 'step' && event.step >= 3) break
  }
  run.cancel()
  const error = await errorOf(() => run)
  expect(error.code).toBe('E_CANCELLED')
  expect(existsSync(join(part.out, 'model.safetensors'))).toBe(false)
  expect(readdirSync(join(part.out, 'checkpoints'))).not.toHaveLength(0)
  const model = await train({ activations: part.activations, out: part.out, resume: true })
  expect(model.info().steps).toBe(40)
  expect(weights(part.out).equals(weights(whole.out))).toBe(true)
})

test('in bf16: other bits, the same whatever the threads, nearly the same loss', async () => {
  const losses: number[] = []
  const folders = (['f32', 'bf16', 'bf16'] as const).map((precision, index) =>
    options({ precision, threads: 1 + (index % 2), steps: 30 }),
  )
  for (const given of folders) {
    let loss = Number.NaN
    const run = train(given)
    for await (const event of run) if (event.type === 'step') loss = event.loss
    expect((await run).config.precision).toBe(given.precision)
    losses.push(loss)
  }
  const [exact, one, two] = folders.map(({ out }) => weights(out)) as [Buffer, Buffer, Buffer]
  expect(two.equals(one)).toBe(true)
  expect(one.equals(exact)).toBe(false)
  expect(losses[1]).toBeCloseTo(losses[0] as number, 1)
})

test('init starts from a model folder', async () => {
  const given = options({ init: shared('run'), steps: 1, lr: 0, weightDecay: 0, unitNormDecoder: false })
  await train(given)
  expect(existsSync(join(given.out, 'config.json'))).toBe(true)
})

describe('bad input', () => {
  const refuse = (change: object) => errorOf(() => train(options(change as Partial<TrainOptions>)))

  test('options', async () => {
    expect(await refuse({ dshared: 3 })).toMatchObject({ code: 'E_UNKNOWN_OPTION', details: { suggestion: 'dShared' } })
    expect(await refuse({ preset: 'defualt' })).toMatchObject({
      code: 'E_UNKNOWN_OPTION',
      details: { suggestion: 'default' },
    })
    expect(await refuse({ kShared: 99 })).toMatchObject({ code: 'E_OPTION', details: { option: 'kShared' } })
    expect(await refuse({ lr: 'fast' })).toMatchObject({ code: 'E_OPTION', details: { option: 'lr' } })
    expect(await refuse({ precision: 'fp8' })).toMatchObject({ code: 'E_OPTION', details: { option: 'precision' } })
    expect(await refuse({ threads: 0 })).toMatchObject({ code: 'E_OPTION', details: { option: 'threads' } })
    expect(await refuse({ device: 'cuda:4096' })).toMatchObject({ code: 'E_DEVICE' })
    expect(await refuse({ activations: undefined })).toMatchObject({
      code: 'E_OPTION',
      details: { option: 'activations' },
    })
    expect(await refuse({ activations: join(work, 'none') })).toMatchObject({ code: 'E_NOT_A_STORE' })
    expect((await refuse({ init: join(work, 'none') })).code).toMatch(/^E_/)
  })

  test('a folder that holds a run is not overwritten', async () => {
    const before = weights(shared('run'))
    expect(await refuse({ out: shared('run') })).toMatchObject({ code: 'E_BUSY' })
    expect(weights(shared('run')).equals(before)).toBe(true)
  })

  test('resuming with another configuration names the field', async () => {
    const copy = join(work, 'copy')
    cpSync(shared('run'), copy, { recursive: true })
    const error = await refuse({ out: copy, resume: true, steps: undefined, seed: 5 })
    expect(error.message).toContain('seed')
    const other = await refuse({ out: copy, resume: true, steps: undefined, precision: 'bf16' })
    expect(other.message).toContain('precision')
  })

  test('a damaged model is refused as one to start from', async () => {
    const copy = join(work, 'damaged')
    cpSync(shared('run'), copy, { recursive: true })
    const bytes = weights(copy)
    bytes[bytes.length - 1] = (bytes[bytes.length - 1] as number) ^ 1
    writeFileSync(join(copy, 'model.safetensors'), bytes)
    expect(await refuse({ init: copy })).toMatchObject({ code: 'E_DAMAGED' })
  })
})
