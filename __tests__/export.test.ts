import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { exportModel, loadModel, openStore } from '../ts/index.js'
import { errorOf, numbers, readSafetensors, shared, temporary } from './support/data.js'

const work = temporary()

test('an exported block encodes a raw state as the model does', async () => {
  const out = join(work, 'for-saelens')
  await using model = await loadModel(shared('run'))
  const written = await exportModel({ model, out })
  expect(written).toEqual({
    out,
    format: 'saelens',
    autoencoders: ['vision-shared', 'vision-private', 'text-shared', 'text-private'],
  })
  expect(readdirSync(out).toSorted()).toEqual([...written.autoencoders].toSorted())
  const config = JSON.parse(readFileSync(join(out, 'vision-shared', 'cfg.json'), 'utf8'))
  expect(config).toMatchObject({ architecture: 'topk', d_sae: 32, k: 4, apply_b_dec_to_input: true })

  const { tensors } = readSafetensors(join(out, 'vision-shared', 'sae_weights.safetensors'))
  const [wEnc, bEnc, bDec] = ['W_enc', 'b_enc', 'b_dec'].map((name) => numbers(tensors[name] as never)) as number[][]
  const state = (await openStore(shared('train'))).pair(0).vision.subarray(0, config.d_in)
  const dense = (bEnc as number[]).map((bias, latent) =>
    state.reduce((sum, h, i) => sum + (h - (bDec?.[i] ?? 0)) * (wEnc?.[i * 32 + latent] ?? 0), bias),
  )
  const codes = model.encode(state, 'vision')
  const best = dense.map((value, latent) => ({ value, latent })).toSorted((a, b) => b.value - a.value)
  for (const [slot, { value, latent }] of best
    .slice(0, 4)
    .filter(({ value }) => value > 0)
    .entries()) {
    expect(codes.indices[slot]).toBe(latent)
    expect(codes.values[slot]).toBeCloseTo(value, 3)
  }
})

test('a folder that is there, and a format nobody knows, are refused', async () => {
  const model = shared('run')
  expect(await errorOf(() => exportModel({ model, out: work }))).toMatchObject({
    code: 'E_OPTION',
    details: { option: 'out' },
  })
  const format = 'onnx' as 'saelens'
  expect(await errorOf(() => exportModel({ model, out: join(work, 'x'), format }))).toMatchObject({
    code: 'E_OPTION',
    details: { option: 'format', found: "'onnx'" },
  })
  expect(await errorOf(() => exportModel({ model: join(work, 'none'), out: join(work, 'x') }))).toMatchObject({
    code: expect.stringMatching(/^E_/),
  })
})
