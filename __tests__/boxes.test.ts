/** Boxes from elsewhere that are odd, wrong or many. */

import { type Box, evaluate, openStore } from '../ts/index.js'
import { errorOf, shared } from './support/data.js'

const options = { model: shared('run'), activations: shared('held-out'), bootstrap: 0 } as const
const box = (x: number, y: number, width: number, height: number, rest: Partial<Box> = {}): Box => ({
  x,
  y,
  width,
  height,
  ...rest,
})

/** The key and the size of the first image, and an evaluation with boxes on it. */
async function withBoxes(make: (size: [number, number]) => Box[]) {
  const store = await openStore(shared('held-out'))
  // The scenes of the store are 112 pixels a side.
  const boxes = { [store.pair(0).image]: make([112, 112]) }
  return evaluate({ ...options, boxes, targets: ['union', 'best', 'category'], heatmaps: ['code'] })
}

test('an image with 500 boxes: their union is that of one where they are the same', async () => {
  const same = (count: number) => withBoxes(() => Array.from({ length: count }, () => box(10, 10, 40, 30)))
  const [many, one] = [await same(500), await same(1)]
  expect(many.grounding?.code?.union).toEqual(one.grounding?.code?.union)
  expect(many.grounding?.code?.best).toEqual(one.grounding?.code?.best)
  expect(many.grounding?.code?.union?.images).toBe(1)
})

test('what of a box lies outside the image counts for nothing', async () => {
  const clipped = await withBoxes(([width, height]) => [box(width - 20, height - 20, 500, 500)])
  const inside = await withBoxes(([width, height]) => [box(width - 20, height - 20, 20, 20)])
  expect(clipped.grounding).toEqual(inside.grounding)
  const nowhere = await withBoxes(([width]) => [box(width + 5, 0, 10, 10), box(5, 5, 0, 10)])
  expect(nowhere.grounding ?? {}).toEqual({})
  expect(nowhere.skipped?.grounding).toContain('no pair has a box')
})

test('a category that no caption names is left out, with the reason', async () => {
  const found = await withBoxes(() => [box(0, 0, 20, 20, { category: 'zeppelin' })])
  expect(found.grounding?.code?.category).toBeUndefined()
  expect(found.skipped?.['grounding.*.category']).toBe('no caption names the category of a box')
})

test('boxes that are none are refused, and so are those of images the store has not', async () => {
  for (const bad of [box(0, 0, -5, 10), box(Number.NaN, 0, 5, 5), box(0, 0, 5, Number.POSITIVE_INFINITY)]) {
    const error = await errorOf(() => withBoxes(() => [bad]))
    expect([bad, error.code]).toEqual([bad, expect.stringMatching(/^E_/)])
    expect(error.message).not.toContain('panicked')
  }
  const error = await errorOf(() => evaluate({ ...options, boxes: { 'no such.jpg': [box(0, 0, 1, 1)] } }))
  expect(error.code).toBe('E_OPTION')
  expect(error.message).toContain('no such.jpg')
  expect((await errorOf(() => evaluate({ ...options, targets: ['everything' as never] }))).code).toBe(
    'E_UNKNOWN_OPTION',
  )
})

test('masks that come with boxes are measured beside them, and must fit the image', async () => {
  // Runs down the columns: pixels 10 to 39 of the columns 10 to 49.
  const columns = Array.from({ length: 39 }, () => [30, 82]).flat()
  const counts = [112 * 10 + 10, ...columns, 30, 112 * 112 - (112 * 49 + 40)]
  const mask = { size: [112, 112], counts } as const
  const found = await withBoxes(() => [box(10, 10, 40, 30, { mask })])
  const [boxed, masked] = [found.grounding?.code?.union, found.maskGrounding?.code?.union]
  expect(masked?.controls.uniform.massAtObj).toBeCloseTo(1200 / 112 ** 2, 9)
  expect(masked?.massAtObj).toBeCloseTo(boxed?.massAtObj ?? Number.NaN, 9)
  // One box as the scene has one object, but not its box: the scene's mask is not this box's.
  expect((await withBoxes(() => [box(10, 10, 40, 30)])).maskGrounding ?? {}).toEqual({})
  for (const [bad, says] of [
    [{ size: [2, 2], counts: [4] }, 'a mask of 2 × 2'],
    [{ size: [112, 112], counts: [5] }, '5 pixels in all, expected 12544'],
    [{ size: [112, 112], counts: '?!' }, 'COCO'],
  ] as const) {
    const error = await errorOf(() => withBoxes(() => [box(10, 10, 40, 30, { mask: bad })]))
    expect([error.code, error.message]).toEqual([expect.stringMatching(/^E_/), expect.stringContaining(says)])
  }
})
