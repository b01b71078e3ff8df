import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openStore } from '../ts/index.js'
import { verifyStore } from '../ts/store.js'
import { errorOf, shared, temporary } from './support/data.js'

const work = temporary()

test('a store knows its pairs', async () => {
  const store = await openStore(shared('train'))
  expect(store).toMatchObject({ pairs: 48 })
  expect(store.tokens.vision).toBe(48 * 196)
  expect(store.meta.provenance).toMatchObject({ dataset: { scenes: { pairs: 48, seed: 1 } } })
  const pair = store.pair(3)
  expect(pair.visionGrid).toEqual([14, 14])
  expect(pair.vision).toHaveLength(196 * store.dVision)
  expect(pair.text).toHaveLength(pair.textIds.length * store.dText)
  expect(pair.caption.length).toBeGreaterThan(3)
  expect(pair.image).toContain('scene')
  expect(pair.vision.every((value) => Number.isFinite(value))).toBe(true)
  expect(store.info(3).boxes?.length).toBeGreaterThan(0)
  expect([...(store.thumbnail(3) ?? []).slice(0, 2)]).toEqual([0xff, 0xd8])
})

test.each([-1, 48, 1.5, Number.NaN])('pair(%p) is refused', async (index) => {
  const store = await openStore(shared('train'))
  expect(await errorOf(() => store.pair(index))).toMatchObject({ code: 'E_OPTION', details: { option: 'pair' } })
})

test('a caption that does not exist is refused', async () => {
  const store = await openStore(shared('train'))
  expect(await errorOf(() => store.pair(0, { caption: 5 }))).toMatchObject({ details: { option: 'caption' } })
})

test('a closed store says so; closing twice is fine', async () => {
  const store = await openStore(shared('train'))
  store.dispose()
  await store[Symbol.asyncDispose]()
  expect(await errorOf(() => store.pair(0))).toMatchObject({ code: 'E_DISPOSED' })
})

test('verify finds one flipped byte of a shard, by file', async () => {
  const report = await (await openStore(shared('train'))).verify()
  expect(report.files.length).toBeGreaterThanOrEqual(3)
  const copy = join(work, 'flipped')
  cpSync(shared('train'), copy, { recursive: true })
  const shard = readdirSync(copy).find((name) => name.startsWith('shard')) as string
  const bytes = readFileSync(join(copy, shard))
  bytes[bytes.length - 9] = (bytes[bytes.length - 9] as number) ^ 1
  writeFileSync(join(copy, shard), bytes)
  const error = await errorOf(() => verifyStore(copy))
  expect(error.code).toBe('E_STORE_DAMAGED')
  expect(error.message).toContain(shard)
})

test('what is no store, and a store of a newer version', async () => {
  expect(await errorOf(() => openStore(join(work, 'nothing')))).toMatchObject({ code: 'E_NOT_A_STORE' })
  expect(await errorOf(() => openStore(work))).toMatchObject({ code: 'E_NOT_A_STORE' })
  expect(await errorOf(() => openStore(7 as unknown as string))).toMatchObject({ code: 'E_OPTION' })
  const copy = join(work, 'newer')
  cpSync(shared('train'), copy, { recursive: true })
  const manifest = join(copy, 'manifest.json')
  writeFileSync(manifest, readFileSync(manifest, 'utf8').replace('"formatVersion": 1', '"formatVersion": 99'))
  expect(await errorOf(() => openStore(copy))).toMatchObject({ code: 'E_STORE_VERSION' })
})
