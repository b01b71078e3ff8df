import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { type BackboneExamination, type ExamineBackboneOptions, examineBackbone } from '../ts/index.js'
import { errorOf, root } from './support/data.js'

const few = { scenes: 12, probeScenes: 3, seed: 5 } as const

test('a backbone is examined beside an untrained one, with progress', async () => {
  const run = examineBackbone(few)
  const stages = new Set<string>()
  for await (const event of run) if (event.type === 'progress') stages.add(event.stage)
  const found: BackboneExamination = await run
  expect([...stages]).toEqual(['swaps', 'retrieval', 'patches', 'tokens'])
  expect(found.options).toEqual(few)
  expect(found.backbone).toMatchObject({ id: 'mini' })
  const color = found.swaps.unseen.find(({ kind }) => kind === 'color')
  expect(color).toMatchObject({ chance: 0.5, goal: 0.95, untrained: { kind: 'color', count: color?.count } })
  expect(found.retrieval.map(({ among }) => among)).toEqual(['independent', 'families', 'withinFamily'])
  // 256 pictures, of which the mini backbone finds most and an untrained one hardly any.
  expect(found.retrieval[0]?.recall).toBeGreaterThan(0.3)
  expect(found.retrieval[0]?.untrained).toBeLessThan(0.1)
  const hooks = new Set(found.patchProbes.map(({ hook }) => hook))
  expect([...hooks].slice(-1)).toEqual(['vision.post_ln'])
  expect(found.locality.map(({ hook }) => hook)).toEqual([...hooks])
  expect(new Set(found.tokenProbes.map((probe) => probe.of))).toEqual(new Set(['ownWord', 'restOfPhrase', 'filler']))
  for (const probe of [...found.patchProbes, ...found.tokenProbes]) {
    for (const score of [probe.unseen, probe.heldOut]) {
      if (!score) continue
      for (const share of [score.accuracy, score.chance, score.untrained]) {
        expect(share).toBeGreaterThanOrEqual(0)
        expect(share).toBeLessThanOrEqual(1)
      }
    }
  }
  expect(found.markdown).toContain('| one word swapped |')
})

test('the command prints the tables, and one object with --json', async () => {
  const flags = ['--scenes', '2', '--probe-scenes', '1', '--seed', '5']
  const run = (...more: string[]): Promise<string> =>
    new Promise((resolve, reject) => {
      const args = [join(root, 'bin/lucid-sae.js'), 'examine-backbone', ...flags, '--quiet', ...more]
      execFile(process.execPath, args, (error, stdout) => (error ? reject(error) : resolve(stdout)))
    })
  const found = JSON.parse(await run('--json')) as BackboneExamination
  expect(found.options).toEqual({ scenes: 2, probeScenes: 1, seed: 5 })
  expect(await run()).toBe(found.markdown)
})

test('it stops when told to', async () => {
  const run = examineBackbone({ probeScenes: 2, scenes: 500 })
  const iterate = async (): Promise<void> => {
    for await (const event of run) if (event.type === 'progress') run.cancel()
  }
  expect(await errorOf(iterate)).toMatchObject({ code: 'E_CANCELLED' })
  expect(await errorOf(() => run.result)).toMatchObject({ code: 'E_CANCELLED' })
})

test('bad options are refused by name', async () => {
  const refuse = (options: ExamineBackboneOptions) => errorOf(() => examineBackbone(options))
  expect(await refuse({ scenes: 0 })).toMatchObject({ code: 'E_OPTION', details: { option: 'scenes' } })
  expect(await refuse({ probeScenes: 0 })).toMatchObject({ code: 'E_OPTION', details: { option: 'probeScenes' } })
  // The scenes of the mini backbone's training.
  expect(await refuse({ seed: 1 })).toMatchObject({ code: 'E_OPTION', details: { option: 'seed' } })
  expect(await refuse({ scene: 3 } as object)).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
  expect((await refuse({ backbone: join(root, 'no-backbone') })).code).toMatch(/^E_/)
  expect(await refuse({ threads: 0 })).toMatchObject({ code: 'E_OPTION', details: { option: 'threads' } })
})
