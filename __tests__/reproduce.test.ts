import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { openStore, reproduce, splitStore, train, trainMany } from '../ts/index.js'
import { ladder, modelsFor, recommended, rivals, sharedOnly } from '../ts/reproduce/plan.js'
import { apart, paired, studentQuantile, summarise } from '../ts/reproduce/statistics.js'
import { latex, markdown, ours, published, type Table, words } from '../ts/reproduce/table.js'
import { errorOf, shared, temporary, tiny } from './support/data.js'

const work = temporary()

test("Student's quantiles are those of the printed tables", () => {
  const printed: [number, number][] = [
    [1, 12.706],
    [2, 4.303],
    [3, 3.182],
    [4, 2.776],
    [5, 2.571],
    [9, 2.262],
    [10, 2.228],
    [30, 2.042],
    [120, 1.98],
  ]
  for (const [freedom, value] of printed) expect(studentQuantile(freedom)).toBeCloseTo(value, 3)
})

test('means, deviations, intervals, and differences by seed', () => {
  expect(summarise([])).toBeUndefined()
  expect(summarise([2])).toEqual({ mean: 2, std: 0, values: [2] })
  const found = summarise([1, 2, 3, 4, 5])
  expect(found?.mean).toBe(3)
  expect(found?.std).toBeCloseTo(Math.sqrt(2.5), 12)
  expect(found?.interval?.[0]).toBeCloseTo(3 - (2.7764451 * Math.sqrt(2.5)) / Math.sqrt(5), 6)
  expect(paired([1, 2], [1])).toBeUndefined()
  expect(paired([1, undefined], [1, 1])).toBeUndefined()
  // The same difference on every seed is apart from zero however much the seeds differ.
  expect(apart(paired([10, 20, 30], [9, 19, 29.1]))).toBe(true)
  expect(apart(paired([10, 20, 30], [9, 21, 30]))).toBe(false)
  expect(apart(paired([1], [0]))).toBeUndefined()
})

const table: Table = {
  id: 'x',
  title: 'A <title> & more',
  columns: [{ name: 'up', better: 'up' }, { name: 'down', better: 'down' }, { name: 'paper' }],
  rows: [
    { name: 'a_b', cells: [ours(summarise([0.1, 0.3])), ours(summarise([0.5])), published(0.4106)] },
    { name: 'c|d', cells: [ours(summarise([0.4, 0.4])), ours(summarise([0.6])), published(undefined)] },
    {
      name: 'control',
      control: true,
      cells: [ours(summarise([9])), ours(undefined, 'no boxes'), words('50 % <b>\nx')],
    },
  ],
  notes: ['Published: elsewhere.'],
}

test('a table in Markdown: best of ours in bold, reasons below, nothing of a name becomes markup', () => {
  expect(markdown(table).split('\n')).toEqual([
    '### A <title> & more',
    '',
    '|  | up ↑ | down ↓ | paper |',
    '|---|--:|--:|--:|',
    '| a\\_b | 0.200 ± 0.141 | **0.500** | 0.4106† |',
    '| c\\|d | **0.400 ± 0.000** | 0.600 | – |',
    '| control | 9.000 | – | 50 % \\<b\\> x |',
    '',
    '† Published: elsewhere.',
    '– no boxes',
    '',
  ])
})

test('the same in LaTeX', () => {
  const text = latex(table)
  expect(text).toContain('a\\_b & $0.200 \\pm 0.141$ & \\textbf{\\boldmath $0.500$} & $0.4106^\\dagger$ \\\\')
  expect(text).toContain('50 \\% <b> x')
  expect(text).toContain('A <title> \\& more')
})

test('the ladder differs by one part a rung, and r = 1 has the same latents and entries', () => {
  for (const scale of ['demo', 'paper'] as const) {
    const [first] = ladder(scale)
    for (const rung of ladder(scale)) expect(rung.fields).toEqual(first?.fields)
    const one = sharedOnly(scale).fields
    const { dShared = 0, dPrivate = 0, kShared = 0, kPrivate = 0 } = first?.fields ?? {}
    expect(one).toMatchObject({ dShared: dShared + dPrivate, dPrivate: 0, kShared: kShared + kPrivate, kPrivate: 0 })
    expect(dShared / (dShared + dPrivate)).toBe(0.25)
    for (const rival of rivals(scale)) {
      const shape = rival.fields
      expect((shape.dShared ?? 0) + (shape.dPrivate ?? 0)).toBe(dShared + dPrivate)
      expect((shape.kShared ?? 0) + (shape.kPrivate ?? 0)).toBe(kShared + kPrivate)
      // Floors are not trained.
      if (shape.lr !== 0) expect(shape.steps).toBe(first?.fields.steps)
    }
    expect(modelsFor(new Set(['table5']), scale)).toEqual([recommended(scale)])
    const names = modelsFor(new Set(['table2', 'table3', 'ladder', 'rivals']), scale).map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
  }
})

test('several runs on one stream have the bits of each alone', async () => {
  const runs = [
    { ...tiny, steps: 8, seed: 1, out: join(work, 'many-a') },
    { ...tiny, steps: 6, seed: 1, preset: 'ot-only' as const, out: join(work, 'many-b') },
  ]
  const steps = [0, 0]
  const run = trainMany({ activations: shared('train'), runs })
  for await (const event of run) if (event.type === 'step') steps[event.run] = event.step
  expect(await run).toEqual(runs.map(({ out }) => out))
  expect(steps).toEqual([8, 6])
  for (const options of runs) {
    const alone = join(work, 'alone')
    await train({ ...options, activations: shared('train'), out: alone })
    const weights = (folder: string): Buffer => readFileSync(join(folder, 'model.safetensors'))
    expect(weights(options.out).equals(weights(alone))).toBe(true)
    rmSync(alone, { recursive: true })
  }
  const twice = await errorOf(() => trainMany({ activations: shared('train'), runs: [runs[0], runs[0]] as never }))
  expect(twice).toMatchObject({ code: 'E_OPTION', details: { option: 'out' } })
  const unknown = { activations: shared('train'), runs: [{ ...runs[0], setps: 3 }] } as never
  expect(await errorOf(() => trainMany(unknown))).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
})

test('a divided store holds every pair once', async () => {
  const whole = await openStore(shared('train'))
  const split = { activations: whole, rest: join(work, 'rest'), heldOut: join(work, 'held'), share: 0.25 }
  const { rest, heldOut } = await splitStore(split)
  expect(heldOut.pairs).toBe(Math.round(0.25 * whole.pairs))
  const keys = [rest, heldOut].flatMap((store) => Array.from({ length: store.pairs }, (_, i) => store.info(i).key))
  expect(keys.sort()).toEqual(Array.from({ length: whole.pairs }, (_, i) => whole.info(i).key).sort())
  expect(await errorOf(() => splitStore({ ...split, share: 1.5 }))).toMatchObject({
    code: 'E_OPTION',
    details: { option: 'share' },
  })
})

test('the tables come out complete, and a second call trains nothing', async () => {
  const out = join(work, 'tables')
  const options = { activations: shared('train'), heldOut: shared('held-out'), seeds: 2, steps: 4, out }
  const stages = new Set<string>()
  const run = reproduce({ ...options, tables: ['table2', 'table3', 'table4', 'table6', 'ladder'] })
  for await (const event of run) if (event.type === 'progress') stages.add(event.stage)
  const found = await run
  expect([...stages].sort()).toEqual(['evaluate', 'train'])
  const ids = found.tables.map(({ id }) => id)
  expect(ids).toEqual(expect.arrayContaining(['table2', 'table3-union', 'table3-phrase', 'table4', 'table6', 'ladder']))
  // Scenes know everything: no number of ours is missing, and each has a value for both seeds.
  for (const { id, rows } of found.tables) {
    for (const { name, cells } of rows) {
      for (const cell of cells) {
        const missing = cell.kind === 'absent' && cell.reason !== 'not published'
        expect([id, name, missing && cell.reason]).toEqual([id, name, false])
        if (cell.kind === 'ours') expect(cell.value.values).toHaveLength(2)
      }
    }
  }
  expect(readFileSync(join(out, 'tables.md'), 'utf8')).toBe(found.markdown)
  expect(JSON.parse(readFileSync(join(out, 'tables.json'), 'utf8'))).toMatchObject({ format: 'lucid-tables' })
  expect(readFileSync(join(out, 'tables.tex'), 'utf8')).toContain('\\toprule')

  const models = readdirSync(join(out, 'models'))
  expect(models).toHaveLength(10)
  const times = models.map((name) => statSync(join(out, 'models', name, 'model.safetensors')).mtimeMs)
  const again = await reproduce({ ...options, tables: ['table4', 'table2'] })
  expect(again.tables.map(({ id }) => id)).toEqual(['table2', 'table4'])
  expect(again.tables[0]).toEqual(found.tables[0])
  expect(models.map((name) => statSync(join(out, 'models', name, 'model.safetensors')).mtimeMs)).toEqual(times)
})

test('stopped work goes on where it was', async () => {
  const out = join(work, 'stopped')
  const options = { activations: shared('train'), heldOut: shared('held-out'), seeds: 1, steps: 60, out }
  const run = reproduce({ ...options, tables: ['table4'] })
  for await (const event of run) {
    if (event.type === 'progress' && event.stage === 'train') break
  }
  run.cancel()
  expect(await errorOf(() => run)).toMatchObject({ code: 'E_CANCELLED' })
  expect(existsSync(join(out, 'tables.md'))).toBe(false)
  const { tables } = await reproduce({ ...options, tables: ['table4'] })
  expect(tables).toHaveLength(1)
  const stopped = AbortSignal.abort(new Error('enough'))
  expect(await errorOf(() => reproduce({ ...options }, { signal: stopped }))).toMatchObject({ message: 'enough' })
})

test('wrong options are named', async () => {
  const bad = async (options: object): Promise<unknown> =>
    errorOf(() => reproduce({ out: join(work, 'no'), ...options }))
  expect(await bad({ tables: ['table7'] })).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
  expect(await bad({ tables: [] })).toMatchObject({ code: 'E_OPTION', details: { option: 'tables' } })
  expect(await bad({ seeds: 0 })).toMatchObject({ code: 'E_OPTION', details: { option: 'seeds' } })
  expect(await bad({ steps: 1.5 })).toMatchObject({ code: 'E_OPTION', details: { option: 'steps' } })
  expect(await bad({ presetScale: 'huge' })).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
  expect(await bad({ heldOut: shared('held-out') })).toMatchObject({ details: { option: 'heldOut' } })
  expect(await bad({ activations: join(work, 'nothing') })).toMatchObject({ code: 'E_NOT_A_STORE' })
})
