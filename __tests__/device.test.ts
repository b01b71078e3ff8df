import { spawnSync } from 'node:child_process'
import { device } from '../ts/device.js'
import { encodeTopK } from '../ts/kernels.js'
import { errorOf } from './support/data.js'

test('device says what is used and why', () => {
  const report = device()
  expect(report.device).toBe('cpu')
  expect(['no-driver', 'stub', 'broken', 'no-device', 'devices']).toContain(report.cuda.kind)
  // Where a GPU can be used, the reason says how to ask for it instead.
  const usable = report.cuda.kind === 'devices' && report.cuda.devices.some((found) => found.usable)
  expect(report.reason).toContain(usable ? "device 'cuda'" : report.cuda.reason)
  expect(report.cpu.threads).toBeGreaterThanOrEqual(1)
  const sets = ['portable', 'neon', 'avx2', 'avx512', 'amx']
  expect(sets.slice(0, sets.indexOf(process.env.LUCID_CPU ?? 'amx') + 1)).toContain(report.cpu.instructionSet)
})

test('LUCID_CPU limits the instruction set, and a name that is none is refused', () => {
  const script = "console.log(JSON.stringify(require('./native/index.cjs').device()))"
  const under = (LUCID_CPU: string) =>
    spawnSync(process.execPath, ['-e', script], { env: { ...process.env, LUCID_CPU }, encoding: 'utf8' })
  const report = JSON.parse(JSON.parse(under('portable').stdout))
  expect(report.cpu.instructionSet).toBe('portable')
  const refused = under('sse9')
  expect(refused.status).not.toBe(0)
  expect(refused.stderr).toContain('LUCID_CPU')
  expect(refused.stderr).toContain('avx2')
})

test('a device that cannot be used is refused when it is named', async () => {
  const one = new Float32Array([1])
  const options = { activations: one, W_enc: one, b_enc: one, b_dec: one, dShared: 1, kShared: 1, kPrivate: 0 }
  const error = await errorOf(() => encodeTopK({ ...options, device: 'cuda' }))
  expect(error.code).toBe('E_DEVICE')
  expect(error.details).toMatchObject({ option: 'device', found: 'cuda' })
  expect(error.hint).toContain('auto')
  for (const device of ['gpu', 'cuda:', 'cuda:-1', 'cuda:x', 'cuda:99999999999999999999']) {
    const error = await errorOf(() => encodeTopK({ ...options, device: device as 'cuda' }))
    expect(error).toMatchObject({ code: 'E_OPTION', details: { option: 'device' } })
  }
  expect(encodeTopK({ ...options, device: 'auto' }).indices[0]).toBe(0)
})
