import { join } from 'node:path'
import { bench, extract, LucidError, train } from '../ts/index.js'
import { errorOf, shared, temporary, tiny } from './support/data.js'

const work = temporary()
let made = 0
const long = (control = {}) => {
  made += 1
  return train({ ...tiny, activations: shared('train'), out: join(work, `long-${made}`), steps: 100_000 }, control)
}
const small = {
  dVision: 8,
  dText: 8,
  dShared: 8,
  dPrivate: 8,
  kShared: 2,
  kPrivate: 2,
  patches: 4,
  tokens: 3,
  steps: 2,
}

/** Resolves after the run's first step. */
async function firstStep(run: ReturnType<typeof long>): Promise<void> {
  for await (const event of run) if (event.type === 'step') return
}

test('a run is awaitable, and its result is the same promise every time', async () => {
  const run = bench(small)
  const [a, b] = [await run, await run.result]
  expect(a).toBe(b)
  expect(await run.finally(() => undefined)).toBe(a)
})

test('a run that nobody iterates finishes, and its last events are still there', async () => {
  const run = bench(small)
  await run
  const types: string[] = []
  for await (const event of run) types.push(event.type)
  expect(types.at(-1)).toBe('done')
})

test('a slow reader sees the newest step', async () => {
  const run = train({ ...tiny, activations: shared('train'), out: join(work, 'slow'), steps: 20 })
  await run
  const steps: number[] = []
  for await (const event of run) if (event.type === 'step') steps.push(event.step)
  expect(steps).toEqual([20])
})

test('leaving the loop does not stop the work', async () => {
  const run = bench(small)
  for await (const _ of run) break
  expect((await run).steps).toBe(2)
})

test('cancel stops within a step and rejects with E_CANCELLED', async () => {
  const run = long()
  await firstStep(run)
  run.cancel()
  run.cancel()
  expect(await errorOf(() => run)).toMatchObject({ code: 'E_CANCELLED' })
})

describe('AbortSignal', () => {
  test('aborted before: nothing starts', async () => {
    const out = join(work, 'never')
    const run = extract({ dataset: { scenes: { pairs: 2 } }, out }, { signal: AbortSignal.abort(new Error('no')) })
    await expect(run.result).rejects.toThrow('no')
  })

  test('aborted while running: the reason, within 250 ms', async () => {
    const controller = new AbortController()
    const run = long({ signal: controller.signal })
    await firstStep(run)
    const started = performance.now()
    controller.abort()
    const error = await errorOf(() => run)
    expect(performance.now() - started).toBeLessThan(250 + 250)
    expect(error.name).toBe('AbortError')
    expect(error).toBe(controller.signal.reason)
    await run[Symbol.asyncDispose]()
  })

  test('aborted afterwards: no effect', async () => {
    const controller = new AbortController()
    const run = bench(small, { signal: controller.signal })
    await run
    controller.abort()
    expect((await run).steps).toBe(2)
  })
})

test('a failed run throws in the loop too, and is no unhandled rejection', async () => {
  const run = train({ ...tiny, activations: join(work, 'none'), out: join(work, 'x') })
  const error = await errorOf(async () => {
    for await (const _ of run) expect(_).toBeDefined()
  })
  expect(error).toBeInstanceOf(LucidError)
  expect(await errorOf(() => run)).toBe(error)
})

test('disposing stops the work', async () => {
  const run = long()
  await firstStep(run)
  await run[Symbol.asyncDispose]()
  expect(await errorOf(() => run)).toMatchObject({ code: 'E_CANCELLED' })
})

test('bench gives the time of a step', async () => {
  const result = await bench({ ...small, batchPairs: 3, threads: 1 })
  expect(result).toMatchObject({ steps: 2, tokensPerStep: 21, threads: 1 })
  expect(result.microsecondsPerToken).toBeGreaterThan(0)
  expect(result.stateBytes).toBe(2 * (8 * 16 + 16 + 16 * 8 + 8) * 4 * 4)
  expect(await errorOf(() => bench({ steps: 0 }))).toMatchObject({ code: 'E_OPTION' })
})
