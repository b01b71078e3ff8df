import { execFile, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { CudaState, DeviceReport } from '../ts/index.js'
import { root, shared, temporary, tiny } from './support/data.js'

// What a user's machine may have in place of a working GPU, acted by a libcuda of our own in a process of its own.

const work = temporary()
const index = pathToFileURL(join(root, 'dist/index.js')).href
const kernels = pathToFileURL(join(root, 'dist/kernels.js')).href

function library(folder: string, name = 'libcuda.so.1'): string {
  return join(work, folder, name)
}

/** Builds the fake as `folder/libcuda.so.1`, or says why it cannot be built. */
function build(folder: string, ...flags: string[]): string | undefined {
  if (process.platform !== 'linux') return `the fake libcuda is for Linux, this is ${process.platform}`
  mkdirSync(join(work, folder))
  const source = join(__dirname, 'support/fake-libcuda.c')
  const args = ['-shared', '-fPIC', ...flags, '-o', library(folder), source]
  const { error, status, stderr } = spawnSync('cc', args, { encoding: 'utf8' })
  if (error) return 'no C compiler (cc)'
  return status === 0 ? undefined : `cc failed: ${stderr}`
}

const reason = build('fake') ?? build('stub', '-DSTUB') ?? build('hollow', '-DHOLLOW')
const suite = reason === undefined ? describe : describe.skip
const skipped = reason === undefined ? '' : ` (skipped: ${reason})`

interface Refusal {
  code: string
  message: string
  details: { option?: string; found?: string; reason?: string; cuda?: CudaState }
}
interface Outcome {
  report: DeviceReport
  /** What `train({ device })` did: its steps, or its error. */
  named: { steps: number } | Refusal
  warnings: string[]
  /** The steps of `train({ device: 'auto' })`. */
  auto?: { steps: number; warnings: string[] }
}

const settings = JSON.stringify({ activations: shared('train'), ...tiny })

/** Runs a module in a process whose libcuda is that of `folder`. */
function child(
  source: string,
  folder: string,
  faults: Record<string, string | number> = {},
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const env = {
    ...process.env,
    LD_LIBRARY_PATH: join(work, folder),
    FAKE_LOG: join(work, 'log.json'),
    ...Object.fromEntries(Object.entries(faults).map(([name, value]) => [name, String(value)])),
  }
  return new Promise((resolve) => {
    const args = ['--input-type=module', '-e', source]
    const started = execFile(process.execPath, args, { cwd: work, env, timeout: 30_000 }, (_error, stdout, stderr) =>
      resolve({ status: started.exitCode, stdout, stderr }),
    )
  })
}

/** Asks for the device, trains on a named one and then on `'auto'`, with a libcuda whose faults `faults` names. */
async function act(
  folder: string,
  faults: Record<string, string | number> = {},
  { device = 'cuda', auto = false, steps = 2 } = {},
): Promise<Outcome> {
  const out = join(work, 'out')
  const source = `import { device, train } from '${index}'
    const report = device()
    async function run(choice) {
      const warnings = []
      const started = train({ ...${settings}, steps: ${steps}, device: choice, out: '${out}-' + choice.replace(':', '') })
      for await (const event of started) if (event.type === 'warning') warnings.push(event.code + ' ' + event.message)
      return { steps: (await started.result).info().steps, warnings }
    }
    const warnings = []
    const named = await run('${device}').catch(({ code, message, details }) => ({ code, message, details }))
    const auto = ${auto} ? await run('auto') : undefined
    console.log(JSON.stringify({ report, named, warnings: named.warnings ?? [], auto }))`
  const outcome = await child(source, folder, faults)
  for (const choice of [device.replace(':', ''), 'auto']) {
    rmSync(`${out}-${choice}`, { recursive: true, force: true })
  }
  // A panic would print here, a crash would have no exit code.
  expect(outcome).toMatchObject({ status: 0, stderr: '' })
  return JSON.parse(outcome.stdout) as Outcome
}

/** What the fake saw. */
type Counts =
  | 'initialised'
  | 'modules'
  | 'launches'
  | 'locked'
  | 'freed'
  | 'late'
  | 'torn'
  | 'graphs'
  | 'replays'
  | 'changes'
function log(): Record<Counts, number> {
  return JSON.parse(readFileSync(join(work, 'log.json'), 'utf8')) as ReturnType<typeof log>
}

function refusal(outcome: Outcome): Refusal {
  expect(outcome.named).toHaveProperty('code')
  return outcome.named as Refusal
}

suite(`a driver that does not start${skipped}`, () => {
  test.each([
    [1, 'CUDA_ERROR_INVALID_VALUE'],
    [2, 'CUDA_ERROR_OUT_OF_MEMORY'],
    [3, 'CUDA_ERROR_NOT_INITIALIZED'],
    [4, 'CUDA_ERROR_DEINITIALIZED'],
    [46, 'CUDA_ERROR_DEVICE_UNAVAILABLE'],
    [101, 'CUDA_ERROR_INVALID_DEVICE'],
    [102, 'CUDA_ERROR_DEVICE_NOT_LICENSED'],
    [201, 'CUDA_ERROR_INVALID_CONTEXT'],
    [214, 'CUDA_ERROR_ECC_UNCORRECTABLE'],
    [222, 'CUDA_ERROR_UNSUPPORTED_PTX_VERSION'],
    [302, 'CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND'],
    [303, 'CUDA_ERROR_SHARED_OBJECT_INIT_FAILED'],
    [304, 'CUDA_ERROR_OPERATING_SYSTEM'],
    [719, 'CUDA_ERROR_LAUNCH_FAILED'],
    [800, 'CUDA_ERROR_NOT_PERMITTED'],
    [801, 'CUDA_ERROR_NOT_SUPPORTED'],
    [802, 'CUDA_ERROR_SYSTEM_NOT_READY'],
    [803, 'CUDA_ERROR_SYSTEM_DRIVER_MISMATCH'],
    [804, 'CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE'],
    [805, 'CUDA_ERROR_MPS_CONNECTION_FAILED'],
    [999, 'CUDA_ERROR_UNKNOWN'],
    [12345, 'an unknown code'],
    [-1, 'an unknown code'],
  ])('cuInit gives %i', async (code, name) => {
    // One of them also trains on the CPU: the rest of the way is the same for all.
    const outcome = await act('fake', { FAKE_INIT: code }, { auto: code === 999 })
    expect(outcome.report).toMatchObject({ device: 'cpu', cuda: { kind: 'broken', code } })
    expect(outcome.report.reason).toContain(`cuInit gave ${code} (${name})`)
    expect(refusal(outcome)).toMatchObject({ code: 'E_DEVICE', details: { option: 'device', found: 'cuda' } })
    expect(refusal(outcome).message).toContain(name)
    if (code === 999) expect(outcome.auto).toEqual({ steps: 2, warnings: [] })
  })

  test.each(['FAKE_VERSION_RESULT', 'FAKE_COUNT_RESULT'])('%s is 999', async (fault) => {
    const outcome = await act('fake', { [fault]: 999 })
    expect(outcome.report.cuda).toMatchObject({ kind: 'broken', code: 999 })
    expect(refusal(outcome).code).toBe('E_DEVICE')
  })

  test('the stub of the toolkit', async () => {
    const outcome = await act('stub', {}, { auto: true })
    expect(outcome.report).toMatchObject({ device: 'cpu', cuda: { kind: 'stub' } })
    expect(refusal(outcome).message).toContain('stub')
    expect(outcome.auto).toEqual({ steps: 2, warnings: [] })
    expect((await act('fake', { FAKE_INIT: 34 })).report.cuda.kind).toBe('stub')
  })

  test('a stub beside a driver: cudarc would take the stub, so that is what is reported', async () => {
    mkdirSync(join(work, 'both'))
    copyFileSync(library('stub'), library('both', 'libcuda.so'))
    copyFileSync(library('fake'), library('both'))
    const outcome = await act('both')
    expect(outcome.report.cuda.kind).toBe('stub')
    expect(refusal(outcome).code).toBe('E_DEVICE')
  })

  test('a file that is no library', async () => {
    mkdirSync(join(work, 'text'))
    writeFileSync(library('text'), 'not a library\n'.repeat(500))
    writeFileSync(library('text', 'libcuda.so'), 'not a library\n'.repeat(500))
    const outcome = await act('text', {}, { auto: true })
    expect(outcome.report).toMatchObject({ device: 'cpu', cuda: { kind: 'no-driver' } })
    expect(outcome.report.reason).toContain('invalid ELF header')
    expect(refusal(outcome).code).toBe('E_DEVICE')
    expect(outcome.auto).toEqual({ steps: 2, warnings: [] })
  })

  test('a library without functions', async () => {
    const outcome = await act('hollow')
    expect(outcome.report.cuda).toEqual({ kind: 'broken', code: null, reason: 'the libcuda found lacks cuInit' })
    expect(refusal(outcome).code).toBe('E_DEVICE')
  })

  test('no device', async () => {
    const none = { FAKE_INIT: 100, CUDA_VISIBLE_DEVICES: '' }
    for (const faults of [none, { FAKE_COUNT: 0, CUDA_VISIBLE_DEVICES: '' }, { ...none, FAKE_COUNT_RESULT: 100 }]) {
      const outcome = await act('fake', faults)
      expect(outcome.report.cuda.kind).toBe('no-device')
      expect(outcome.report.reason).toContain("CUDA_VISIBLE_DEVICES is ''")
      expect(refusal(outcome).code).toBe('E_DEVICE')
    }
  })
})

suite(`a device that cannot be used${skipped}`, () => {
  test.each<[string, Record<string, string | number>, string]>([
    [
      'old driver',
      { FAKE_DRIVER: 11080 },
      'it knows CUDA 11.8, and the kernels need 12.0, which is driver 525 or newer',
    ],
    ['old GPU', { FAKE_CAPABILITY: 70 }, 'compute capability 7.0 is below 7.5'],
    ['little memory', { FAKE_MIB: 512 }, '512 MiB of memory are too little'],
    ['unreachable', { FAKE_DEVICE_RESULT: 46 }, 'cuDeviceGet gave 46 (CUDA_ERROR_DEVICE_UNAVAILABLE)'],
    ['nameless', { FAKE_NAME_RESULT: 999 }, 'cuDeviceGetName gave 999'],
    ['without attributes', { FAKE_ATTRIBUTE_RESULT: 101 }, 'cuDeviceGetAttribute gave 101'],
    ['without memory', { FAKE_MEMORY_RESULT: 2 }, 'cuDeviceTotalMem gave 2'],
  ])('%s', async (_name, faults, text) => {
    const outcome = await act('fake', faults)
    expect(outcome.report).toMatchObject({
      device: 'cpu',
      cuda: { kind: 'devices', devices: [{ ordinal: 0, usable: false, reason: expect.stringContaining(text) }] },
    })
    expect(outcome.report.reason).toContain(text)
    expect(refusal(outcome)).toMatchObject({ code: 'E_DEVICE', message: expect.stringContaining(text) })
  })

  // cudarc panics at the first call of a function that is missing, and in a drop that ends the process. What a run calls is
  // in the fake, or the runs below would fail; the probe must have looked for each.
  test('a library that lacks a function, any of them', async () => {
    const fake = readFileSync(join(__dirname, 'support/fake-libcuda.c'), 'utf8')
    const functions = [...fake.matchAll(/^int (cu\w+)\(/gm)].map(([, name]) => name as string)
    expect(functions.length).toBeGreaterThan(25)
    const source = `import { device } from '${index}'; console.log(device().reason)`
    for (const name of functions) {
      expect(build(name, `-D${name}=hidden`)).toBeUndefined()
      const { stdout, status } = await child(source, name)
      expect(`${status} ${stdout}`).toMatch(new RegExp(`^0 .*the libcuda found lacks ${name}$`, 'm'))
    }
    const outcome = await act('cuCtxSetCurrent')
    expect(refusal(outcome)).toMatchObject({ code: 'E_DEVICE', message: expect.stringContaining('cuCtxSetCurrent') })
  })

  test('an index out of range', async () => {
    const outcome = await act('fake', { FAKE_COUNT: 2 }, { device: 'cuda:2' })
    expect(refusal(outcome)).toMatchObject({ code: 'E_DEVICE', details: { found: 'cuda:2' } })
    expect(refusal(outcome).message).toContain('there is no device 2: the driver shows 2 CUDA devices, counted from 0')
  })

  test.each<[string, Record<string, string | number>, string]>([
    ['context', { FAKE_RETAIN: 2 }, 'CUDA_ERROR_OUT_OF_MEMORY'],
    ['thread', { FAKE_CURRENT: 201 }, 'CUDA_ERROR_INVALID_CONTEXT'],
    ['stream', { FAKE_STREAM: 46 }, 'cuStreamCreate'],
    ['event', { FAKE_EVENT: 46 }, 'cuStreamCreate'],
    ['kernels', { FAKE_MODULE: 209 }, 'the driver does not take the kernels'],
    ['function', { FAKE_FUNCTION: 500 }, 'the driver does not take the kernels'],
    ['shared memory', { FAKE_FUNCTION_ATTRIBUTE: 1 }, 'the driver does not take the kernels'],
    ['launch', { FAKE_LAUNCH: 719 }, 'CUDA_ERROR_LAUNCH_FAILED'],
    ['copy', { FAKE_COPY: 700 }, 'CUDA_ERROR_ILLEGAL_ADDRESS'],
    ['wait', { FAKE_SYNCHRONISE: 999 }, 'CUDA_ERROR_UNKNOWN'],
    ['silence', { FAKE_IDLE: 1 }, 'a first kernel gave [0.0, 0.0]'],
  ])('opening it fails: %s', async (_name, faults, text) => {
    const outcome = await act('fake', faults, { auto: true })
    expect(refusal(outcome)).toMatchObject({ code: 'E_UNAVAILABLE', details: { option: 'device' } })
    expect(refusal(outcome).message).toContain(text)
    expect(outcome.auto?.steps).toBe(2)
  })
})

suite(`a device that can be used${skipped}`, () => {
  test("'cuda' trains on it and says what is not known", async () => {
    const outcome = await act('fake')
    expect(outcome.named).toMatchObject({ steps: 2 })
    expect(outcome.warnings).toEqual([expect.stringMatching(/^W_DEVICE .*been run on compute capability 9\.0 only/)])
    // The fake's kernels compute nothing; that they were called shows which way the run went.
    expect(log().launches).toBeGreaterThan(100)
    expect(log().modules).toBeGreaterThan(5)
  })

  test('also from a device without memory pools', async () => {
    expect((await act('fake', { FAKE_POOLS: 0 })).named).toMatchObject({ steps: 2 })
  })

  test('pairs that do not fit are copied from page-locked memory, which is given back once it is read', async () => {
    expect((await act('fake', { FAKE_AVAILABLE: 1000 })).named).toMatchObject({ steps: 2 })
    const { locked, freed, late, torn } = log()
    // Patches and words of each step at least; nothing was freed on either side of a copy under way, no event after its context.
    expect(locked).toBeGreaterThanOrEqual(2)
    expect(late).toBeGreaterThanOrEqual(4)
    expect({ freed, torn }).toEqual({ freed: locked, torn: 0 })
  })

  test('and from ordinary memory where the system grants no other', async () => {
    expect((await act('fake', { FAKE_AVAILABLE: 1000, FAKE_HOST_ALLOC: 2 })).named).toMatchObject({ steps: 2 })
    expect(log()).toMatchObject({ locked: 0, late: 0 })
  })

  test('a wait for copies that fails is a typed error', async () => {
    const outcome = await act('fake', { FAKE_AVAILABLE: 1000, FAKE_WAIT: 999 })
    expect(refusal(outcome)).toMatchObject({ code: 'E_DEVICE' })
    expect(refusal(outcome).message).toContain('cuMemcpyHtoDAsync')
  })

  test('launches are given as graphs where that is asked for', async () => {
    expect((await act('fake', {}, { steps: 6 })).named).toMatchObject({ steps: 6 })
    const { launches, graphs } = log()
    expect(graphs).toBe(0)
    expect((await act('fake', { LUCID_CUDA_GRAPHS: 1 }, { steps: 6 })).named).toMatchObject({ steps: 6 })
    const counts = log()
    // As many kernels; made once and set anew for pairs of other lengths; none is left, nor outlives its context.
    expect(counts).toMatchObject({ launches, graphs: 0, torn: 0 })
    expect(counts.replays).toBeGreaterThan(10)
    expect(counts.changes).toBeGreaterThan(10)
  })

  test.each(['FAKE_GRAPH', 'FAKE_INSTANTIATE', 'FAKE_SET'])(
    'a driver that refuses them (%s) has them one by one',
    async (fault) => {
      const faults = { LUCID_CUDA_GRAPHS: 1, [fault]: 801 }
      expect((await act('fake', faults, { steps: 6 })).named).toMatchObject({ steps: 6 })
      expect(log().replays).toBeLessThan(10)
    },
  )

  test.each([{ FAKE_REPLAY: 719 }, { FAKE_LAUNCH_AT: 400 }])(
    'a device lost in a graph (%j) is a typed error',
    async (fault) => {
      const outcome = await act('fake', { LUCID_CUDA_GRAPHS: 1, ...fault }, { steps: 6 })
      expect(refusal(outcome)).toMatchObject({ code: 'E_DEVICE' })
      expect(refusal(outcome).message).toContain('CUDA_ERROR_LAUNCH_FAILED')
      expect(log().replays).toBeGreaterThan(0)
    },
  )

  test("'auto' does not take it, and says so", async () => {
    const outcome = await act('fake', { FAKE_LAUNCH: 719, FAKE_COUNT: 2 }, { auto: true })
    expect(outcome.report).toMatchObject({
      device: 'cpu',
      cuda: { kind: 'devices', driverVersion: '12.4', devices: [{ usable: true, computeCapability: '8.6' }, {}] },
    })
    expect(outcome.report.reason).toMatch(/a usable CUDA device is present .* ask for it with device 'cuda'/)
    expect(outcome.auto?.steps).toBe(2)
    expect(outcome.auto?.warnings).toEqual([expect.stringMatching(/^W_DEVICE .*a usable CUDA device/)])
  })

  test("'auto' takes one of a kind that was tried, without a warning", async () => {
    const outcome = await act('fake', { FAKE_CAPABILITY: 90 }, { auto: true })
    expect(outcome.report).toMatchObject({ device: 'cuda:0', reason: expect.stringContaining('is used') })
    expect(outcome.warnings).toEqual([])
    expect(outcome.auto).toMatchObject({ steps: 2, warnings: [] })
  })

  test("'auto' goes on with the CPU where it does not open", async () => {
    const outcome = await act('fake', { FAKE_CAPABILITY: 90, FAKE_LAUNCH: 719 }, { auto: true })
    expect(refusal(outcome).code).toBe('E_UNAVAILABLE')
    expect(outcome.auto?.steps).toBe(2)
    expect(outcome.auto?.warnings).toEqual([expect.stringMatching(/^W_DEVICE the CPU is used: .*LAUNCH_FAILED/)])
  })

  test("'cuda' takes the first that can be used, 'cuda:0' only that one", async () => {
    const faults = { FAKE_COUNT: 2, FAKE_CAPABILITY: 70 }
    expect((await act('fake', faults)).named).toMatchObject({ steps: 2 })
    expect((await act('fake', faults, { device: 'cuda:1' })).named).toMatchObject({ steps: 2 })
    expect(refusal(await act('fake', faults, { device: 'cuda:0' })).message).toContain('7.0 is below 7.5')
  })

  test('a slice of a GPU is called one', async () => {
    const { report, named } = await act('fake', { FAKE_NAME: 'NVIDIA A100-SXM4-40GB MIG 1g.5gb', FAKE_CAPABILITY: 80 })
    const mig = { mig: true, usable: true, reason: expect.stringContaining('a MIG slice') }
    expect(report.cuda).toMatchObject({ kind: 'devices', devices: [mig] })
    expect(named).toMatchObject({ steps: 2 })
  })

  test('a device lost in mid-run is a typed error', async () => {
    const outcome = await act('fake', { FAKE_LAUNCH_AT: 150 })
    expect(refusal(outcome)).toMatchObject({ code: 'E_DEVICE' })
    expect(refusal(outcome).message).toContain('CUDA_ERROR_LAUNCH_FAILED')
  })

  test('work without CUDA kernels refuses it', async () => {
    const source = `import { encodeTopK } from '${kernels}'
      const one = new Float32Array([1])
      const options = { activations: one, W_enc: one, b_enc: one, b_dec: one, dShared: 1, kShared: 1, kPrivate: 0 }
      try { encodeTopK({ ...options, device: 'cuda' }) } catch (error) { console.log(error.code, error.message) }`
    const { stdout, status } = await child(source, 'fake')
    expect(status).toBe(0)
    expect(stdout).toMatch(/^E_DEVICE .*this work runs on the CPU/)
  })

  test('the probe is made on first use, once', async () => {
    await act('fake', { FAKE_INIT: 999 }, { auto: true })
    expect(log().initialised).toBe(1)
    const untouched = { FAKE_LOG: join(work, 'untouched.json') }
    expect((await child(`await import('${index}')`, 'fake', untouched)).status).toBe(0)
    expect(() => readFileSync(join(work, 'untouched.json'))).toThrow('ENOENT')
  })
})

suite(`doctor --gpu${skipped}`, () => {
  async function doctor(folder: string, ...options: string[]): Promise<{ status: number; output: string }> {
    const env = { ...process.env, LD_LIBRARY_PATH: join(work, folder) }
    const args = [join(root, 'bin/lucid-sae.js'), 'doctor', '--gpu', ...options]
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: work, env, encoding: 'utf8' })
    return { status: status ?? -1, output: stdout + stderr }
  }

  test('finds that a device which accepts every launch computes nothing', async () => {
    const { status, output } = await doctor('fake')
    expect(status).not.toBe(0)
    expect(output).toMatch(/WRONG +Top-k values: 1.0e\+0 of 1e-4 allowed/)
    expect(output).toContain('12 of 12 results of Fake GPU 0 are wrong')
  })

  test('says why there is nothing to test', async () => {
    const { status, output } = await doctor('stub')
    expect(status).not.toBe(0)
    expect(output).toContain("option 'device' is 'cuda', which cannot be used")
    expect((await doctor('fake', 'cuda:7')).output).toContain("'cuda:7'")
  })
})
