import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ImportOptions, importActivations, interpret, train } from '../ts/index.js'
import { bytesOf, errorOf, npy, temporary, tiny } from './support/data.js'

const work = temporary()
const pairs = 6
const [patches, dVision, dText] = [4, 8, 6]
const lengths = [1, 2, 3, 1, 2, 3]
const tokens = 12

/** Numbers that differ everywhere. */
const wave = (count: number): Float32Array => Float32Array.from({ length: count }, (_, i) => Math.sin(i * i + 1))
const vision = { data: wave(pairs * patches * dVision), shape: [pairs, patches, dVision] }
const text = { data: wave(tokens * dText), shape: [tokens, dText] }
let made = 0
const options = (change: Partial<ImportOptions> = {}): ImportOptions => {
  made += 1
  return { vision, text, textLengths: lengths, out: join(work, `acts-${made}`), ...change }
}

test('arrays come back as they went in', async () => {
  const captions = lengths.map((_, i) => `caption ${i}`)
  const images = lengths.map((_, i) => `photo-${i}.jpg`)
  const store = await importActivations(options({ captions, images }))
  expect(store).toMatchObject({ pairs, dVision, dText })
  const third = store.pair(2)
  expect([...third.vision]).toEqual([...vision.data.subarray(2 * patches * dVision, 3 * patches * dVision)])
  expect([...third.text]).toEqual([...text.data.subarray(3 * dText, 6 * dText)])
  expect(third).toMatchObject({ image: 'photo-2.jpg', caption: 'caption 2', visionGrid: [2, 2] })
})

test('npy files give the same store, on which a model trains', async () => {
  const file = (name: string, bytes: Buffer): string => {
    writeFileSync(join(work, name), bytes)
    return join(work, name)
  }
  const fromFiles = await importActivations(
    options({
      vision: file('v.npy', npy('<f4', vision.shape, bytesOf(vision.data))),
      text: file('t.npy', npy('<f8', text.shape, bytesOf(Float64Array.from(text.data)))),
      textLengths: file('n.npy', npy('<i4', [pairs], bytesOf(Int32Array.from(lengths)))),
    }),
  )
  const fromArrays = await importActivations(options())
  expect([...fromFiles.pair(5).text]).toEqual([...fromArrays.pair(5).text])
  const model = await train({ ...tiny, activations: fromFiles, out: join(work, 'run'), steps: 2, batchPairs: 3 })
  expect(model.info()).toMatchObject({ dVision, dText, steps: 2 })
})

test('imported activations run to their report: without a backbone the captions are the concepts', async () => {
  const captions = lengths.map((_, i) => `caption ${i}`)
  const store = await importActivations(options({ captions }))
  const run = join(work, 'run-to-report')
  const model = await train({ ...tiny, activations: store, out: run, steps: 2, batchPairs: 3 })
  const atlas = await interpret({ model, activations: store, minHits: 1 })
  expect(atlas.concepts.map((concept) => concept.name)).toEqual(captions)
  const folder = join(work, 'report')
  await atlas.report(folder, { run })
  const data = JSON.parse(readFileSync(join(folder, 'data', 'report.json'), 'utf8')) as { latents: unknown[] }
  expect(data.latents).toHaveLength(tiny.dShared)
})

test('the array may change while the import runs', async () => {
  const data = vision.data.slice()
  const run = importActivations(options({ vision: { data, shape: vision.shape } }))
  data.fill(0)
  expect((await run).pair(0).vision[0]).toBe(vision.data[0])
})

describe('bad input', () => {
  const refuse = (change: Partial<ImportOptions>) => errorOf(() => importActivations(options(change)))

  test('NaN, by pair', async () => {
    const data = vision.data.slice()
    data[patches * dVision + 3] = Number.NaN
    const error = await refuse({ vision: { data, shape: vision.shape } })
    expect(error.code).toBe('E_NON_FINITE')
    expect(error.message).toContain('pair-000001')
  })

  test('an empty text set', async () => {
    expect(await refuse({ textLengths: [0, 3, 3, 1, 2, 3] })).toMatchObject({ code: 'E_EMPTY' })
  })

  test('lengths and shapes that do not fit', async () => {
    expect(await refuse({ textLengths: [1, 2, 3, 1, 2, 9] })).toMatchObject({ code: 'E_SHAPE' })
    expect(await refuse({ textLengths: [1, 2, 3] })).toMatchObject({ code: 'E_SHAPE' })
    expect(await refuse({ vision: { data: vision.data, shape: [pairs, patches, 9] } })).toMatchObject({
      code: 'E_SHAPE',
    })
    expect(await refuse({ captions: ['one'] })).toMatchObject({ code: 'E_SHAPE' })
  })

  test('wrong types', async () => {
    expect(await refuse({ vision: { data: [1] as never, shape: [1] } })).toMatchObject({ code: 'E_OPTION' })
    const doubles = new Float64Array(4) as unknown as Float32Array
    expect(await refuse({ vision: { data: doubles, shape: [4] } })).toMatchObject({ code: 'E_TYPE' })
    expect((await refuse({ vision: join(work, 'none.npy') })).code).toMatch(/^E_/)
  })

  test('a full disk leaves nothing under the name', async () => {
    // A folder cannot be made below a file, which is the same path through the writer as any other failure to write.
    writeFileSync(join(work, 'file'), 'x')
    expect(await refuse({ out: join(work, 'file', 'acts') })).toMatchObject({ code: 'E_IO' })
  })
})
