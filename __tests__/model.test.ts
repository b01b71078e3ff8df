import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Codes, loadModel, openStore } from '../ts/index.js'
import { errorOf, shared, temporary, tiny } from './support/data.js'

const work = temporary()

test('encode and decode have the shapes they say', async () => {
  const [model, store] = [await loadModel(shared('run')), await openStore(shared('train'))]
  const { vision } = store.pair(0)
  const codes = model.encode(vision, 'vision')
  expect(codes).toMatchObject({ k: 8, dShared: 32 })
  expect(codes.indices).toHaveLength(196 * 8)
  const sharedSlots = Array.from({ length: 196 }, (_, i) => [...codes.indices.subarray(i * 8, i * 8 + 4)]).flat()
  expect(sharedSlots.every((index) => index < 32 || index === 0xffffffff)).toBe(true)
  const joint = model.decode(codes, 'vision')
  expect(joint).toHaveLength(vision.length)
  const error = (out: Float32Array): number =>
    out.reduce((sum, value, i) => sum + (value - (vision[i] as number)) ** 2, 0)
  expect(error(joint)).toBeLessThan(error(model.decode(codes, 'vision', { block: 'private' })))
})

test('a plan has the marginals of its pair', async () => {
  const [model, store] = [await loadModel(shared('run')), await openStore(shared('train'))]
  const pair = store.pair(0)
  const match = model.match(pair)
  const tokens = pair.textIds.length
  expect(match).toMatchObject({ patches: 196, tokens })
  const column = Array.from({ length: 196 }, (_, i) => match.plan[i * tokens] as number).reduce((a, b) => a + b, 0)
  expect(column).toBeCloseTo(match.columnMarginal[0] as number, 5)
  expect(match.columnMarginal.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5)
  const again = model.match({ vision: model.encode(pair.vision, 'vision'), text: model.encode(pair.text, 'text') })
  expect(Buffer.from(again.plan.buffer).equals(Buffer.from(match.plan.buffer))).toBe(true)
})

test('a saved model is the same model', async () => {
  const model = await loadModel(shared('run'))
  await model.save(join(work, 'saved'))
  const copy = await loadModel(join(work, 'saved'))
  expect(copy.config).toEqual(model.config)
  expect(Object.isFrozen(copy.config)).toBe(true)
  const { text } = (await openStore(shared('train'))).pair(5)
  expect([...copy.encode(text, 'text').values]).toEqual([...model.encode(text, 'text').values])
})

test('a disposed model says so', async () => {
  const model = await loadModel(shared('run'))
  model.dispose()
  await model[Symbol.asyncDispose]()
  expect(await errorOf(() => model.info())).toMatchObject({ code: 'E_DISPOSED' })
})

describe('bad input', () => {
  test('activations', async () => {
    const model = await loadModel(shared('run'))
    expect(await errorOf(() => model.encode(new Float32Array(7), 'vision'))).toMatchObject({ code: 'E_SHAPE' })
    expect(await errorOf(() => model.encode([1] as never, 'vision'))).toMatchObject({ code: 'E_TYPE' })
    expect(await errorOf(() => model.encode(new Float32Array(1), 'image' as never))).toMatchObject({ code: 'E_OPTION' })
    const { dVision } = model.info()
    const bad = new Float32Array(dVision).fill(Number.NaN)
    expect((await errorOf(() => model.encode(bad, 'vision'))).message).toMatch(/NaN|finite/)
  })

  test('codes', async () => {
    const model = await loadModel(shared('run'))
    const codes = (indices: number[]): Codes => ({
      indices: new Uint32Array(indices),
      values: new Float32Array(indices.length).fill(1),
    })
    expect(await errorOf(() => model.decode(codes([1, 2, 3]), 'vision'))).toMatchObject({ code: 'E_SHAPE' })
    const beyond = codes([tiny.dShared + tiny.dPrivate, 1, 2, 3, 4, 5, 6, 7])
    expect(await errorOf(() => model.decode(beyond, 'vision'))).toMatchObject({ code: 'E_SHAPE' })
    expect(await errorOf(() => model.decode(codes([0]), 'vision', { block: 'all' as never }))).toMatchObject({
      code: 'E_OPTION',
    })
    expect(await errorOf(() => model.match({ vision: codes([]), text: codes([]) }))).toMatchObject({ code: 'E_SHAPE' })
  })

  test('folders: none, damaged, newer', async () => {
    expect((await errorOf(() => loadModel(join(work, 'none')))).code).toMatch(/^E_/)
    const damage = (name: string, change: (folder: string) => void): string => {
      const copy = join(work, name)
      cpSync(shared('run'), copy, { recursive: true })
      change(copy)
      return copy
    }
    const flipped = damage('flipped', (folder) => {
      const file = join(folder, 'model.safetensors')
      const bytes = readFileSync(file)
      bytes[bytes.length - 5] = (bytes[bytes.length - 5] as number) ^ 4
      writeFileSync(file, bytes)
    })
    expect(await errorOf(() => loadModel(flipped))).toMatchObject({ code: 'E_DAMAGED' })
    const newer = damage('newer', (folder) => {
      const file = join(folder, 'config.json')
      writeFileSync(file, readFileSync(file, 'utf8').replace('"formatVersion": 1', '"formatVersion": 99'))
    })
    expect(await errorOf(() => loadModel(newer))).toMatchObject({ code: 'E_VERSION' })
  })
})
