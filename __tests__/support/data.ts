import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { LucidError } from '../../ts/index.js'

/** The repository. */
export const root = join(__dirname, '..', '..')

/** Something the set-up made: `train`, `held-out`, `run` or `atlas`. */
export function shared(name: 'train' | 'held-out' | 'run' | 'atlas'): string {
  const folder = process.env.LUCID_TEST_DATA
  if (!folder) throw new Error('the test data were not made')
  return join(folder, name)
}

/** The sizes of the shared run. */
export const tiny = { dShared: 32, dPrivate: 32, kShared: 4, kPrivate: 4, batchPairs: 16, lr: 0.003 } as const

/** A new folder, removed after the tests of the file. */
export function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'lucid-test-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** The error that `work` throws or rejects with. */
export async function errorOf(work: () => unknown): Promise<LucidError> {
  try {
    await work()
  } catch (error) {
    return error as LucidError
  }
  throw new Error('nothing was thrown')
}

/** A tensor of a safetensors file. */
export interface Tensor {
  dtype: string
  shape: number[]
  bytes: Buffer
}

/** A safetensors file, read without our reader. */
export function readSafetensors(file: string): { tensors: Record<string, Tensor>; metadata: Record<string, string> } {
  const bytes = readFileSync(file)
  const length = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, unknown>
  const { __metadata__: metadata = {}, ...entries } = header
  const tensors: Record<string, Tensor> = {}
  for (const [name, entry] of Object.entries(entries)) {
    const { dtype, shape, data_offsets } = entry as { dtype: string; shape: number[]; data_offsets: [number, number] }
    tensors[name] = { dtype, shape, bytes: bytes.subarray(8 + length + data_offsets[0], 8 + length + data_offsets[1]) }
  }
  return { tensors, metadata: metadata as Record<string, string> }
}

/** The numbers of a tensor, whatever its type. */
export function numbers(tensor: Tensor): number[] {
  const { dtype, bytes } = tensor
  const at = (size: number, read: (offset: number) => number): number[] =>
    Array.from({ length: bytes.length / size }, (_, i) => read(i * size))
  switch (dtype) {
    case 'F64':
      return at(8, (o) => bytes.readDoubleLE(o))
    case 'F32':
      return at(4, (o) => bytes.readFloatLE(o))
    case 'I32':
      return at(4, (o) => bytes.readInt32LE(o))
    case 'U32':
      return at(4, (o) => bytes.readUInt32LE(o))
    case 'U8':
      return at(1, (o) => bytes.readUInt8(o))
    case 'F16':
      return at(2, (o) => half(bytes.readUInt16LE(o)))
    default:
      throw new Error(`no reader for ${dtype}`)
  }
}

/** The value of a half-precision number. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

/** Writes a `.npy` file (version 1, little-endian, row-major). */
export function npy(descr: '<f4' | '<f8' | '<i4' | '<i8', shape: readonly number[], data: Uint8Array): Buffer {
  const dimensions = shape.length === 1 ? `${shape[0]},` : shape.join(', ')
  const head = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${dimensions}), }`
  const padded = `${head.padEnd(Math.ceil((head.length + 11) / 64) * 64 - 11)}\n`
  const prefix = Buffer.from([0x93, ...Buffer.from('NUMPY'), 1, 0, padded.length & 0xff, padded.length >> 8])
  return Buffer.concat([prefix, Buffer.from(padded, 'latin1'), data])
}

/** The bytes of a typed array. */
export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
}
