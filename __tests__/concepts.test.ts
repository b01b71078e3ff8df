import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type InterpretOptions, interpret } from '../ts/index.js'
import { errorOf, shared, temporary } from './support/data.js'

const work = temporary()

const named = async (concepts: NonNullable<InterpretOptions['concepts']>) => {
  const atlas = await interpret({ model: shared('run'), activations: shared('train'), concepts, topImages: 0 })
  return atlas.concepts.map(({ name, category }) => [name, category])
}

function file(name: string, text: string): string {
  const path = join(work, name)
  writeFileSync(path, text)
  return path
}

test('every kind of list names the same concepts', async () => {
  const expected = [
    ['red', 'color'],
    ['sea', null],
  ]
  const synonyms = ['crimson']
  expect(await named([{ name: 'red', category: 'color', synonyms }, 'sea'])).toEqual(expected)
  expect(await named(file('a.txt', 'red\tcolor\n\nsea\r\n'))).toEqual(expected)
  expect(await named(file('a.tsv', '\uFEFFred\tcolor\tcrimson | scarlet\nsea\t\n'))).toEqual(expected)
  expect(await named(file('a.jsonl', '{"name":"red","category":"color","synonyms":["crimson"]}\n"sea"\n'))).toEqual(
    expected,
  )
  expect(await named(file('a.json', '[{"name":"red","category":"color"},"sea"]'))).toEqual(expected)
})

test('synonyms change the code of a concept', async () => {
  const weights = async (synonyms: string[]) => {
    const concepts = [{ name: 'red', synonyms }, 'blue', 'green']
    const atlas = await interpret({ model: shared('run'), activations: shared('train'), concepts, topImages: 0 })
    return atlas.concepts[0]?.latents
  }
  expect(await weights([])).toEqual(await weights([]))
  expect(await weights(['green'])).not.toEqual(await weights([]))
})

test('a bad line is named with its file', async () => {
  const refused = async (name: string, text: string) => errorOf(() => named(file(name, text)))
  for (const [name, text, line] of [
    ['b.tsv', 'red\tcolor\tcrimson\tmore\n', 1],
    ['b.jsonl', '"red"\n{"nam":"sea"}\n', 2],
    ['c.jsonl', '"red"\n{\n', 2],
    ['b.txt', 'red\nsea\nred\n', 3],
    ['c.txt', '\n\n', 1],
    ['d.txt', 'red\n\tcolor\n', 2],
    ['b.json', '["red",\n 7]', 0],
  ] as const) {
    const error = await refused(name, text)
    expect([name, error.code]).toEqual([name, 'E_CONCEPTS'])
    expect(error.message).toContain(name)
    if (line > 0) expect(error.details).toMatchObject({ line })
  }
  expect(await errorOf(() => named(join(work, 'nothing.txt')))).toMatchObject({ code: 'E_IO' })
  expect(await errorOf(() => named(['red', '  ']))).toMatchObject({ code: 'E_OPTION' })
})

test('the default library is large and typed; a rate of false hits is kept and recorded', async () => {
  const atlas = await interpret({
    model: shared('run'),
    activations: shared('train'),
    concepts: 'library',
    fdr: 0.2,
    maxImages: 20,
    topImages: 0,
  })
  expect(atlas.concepts.length).toBeGreaterThan(300)
  expect(new Set(atlas.concepts.map(({ category }) => category)).size).toBe(8)
  const found = atlas.data.falseDiscovery
  expect(found?.target).toBe(0.2)
  expect(found?.aboveByChance).toBeLessThanOrEqual(0.2 * (found?.above ?? 0))
  const wrong = { model: shared('run'), activations: shared('train'), concepts: ['red'] }
  expect(await errorOf(() => interpret({ ...wrong, fdr: 2 }))).toMatchObject({ code: 'E_OPTION' })
  expect(await errorOf(() => interpret({ ...wrong, fdr: 0.1, threshold: 1 }))).toMatchObject({ code: 'E_OPTION' })
})
