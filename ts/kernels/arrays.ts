/** What all kernels ask of their arrays. */
import type { DeviceChoice } from '../device.js'
import { call, describe, LucidError, optionError } from '../errors.js'
import type { Codes } from '../model.js'
import { native } from '../native.js'

/** Index of a slot that holds no latent. */
export const UNUSED = 0xffffffff

/** f32 or f64. */
export type Floats = Float32Array | Float64Array

/** The exact class of an array. */
export type Exact<A extends Floats> = A extends Float32Array ? Float32Array : Float64Array

/** Whether an array is f32 or f64; by tag, since arrays may come from another realm. */
export function kind(option: string, array: unknown): 'F32' | 'F64' {
  const tag = Object.prototype.toString.call(array)
  if (tag === '[object Float32Array]') return 'F32'
  if (tag === '[object Float64Array]') return 'F64'
  throw typeError(option, array, 'a Float32Array or a Float64Array')
}

/** The error of a value of the wrong type. */
export function typeError(option: string, found: unknown, expected: string): LucidError {
  return new LucidError('E_TYPE', `option '${option}' is ${describe(found)}; expected ${expected}`, {
    details: { option, found: describe(found), expected },
  })
}

/** The kind of the first array; refuses any other that differs. */
export function sameKind(arrays: Record<string, unknown>): 'F32' | 'F64' {
  let first: 'F32' | 'F64' | undefined
  for (const [option, array] of Object.entries(arrays)) {
    if (array === undefined) continue
    const found = kind(option, array)
    first ??= found
    if (found !== first) {
      throw typeError(option, array, `a ${first === 'F32' ? 'Float32Array' : 'Float64Array'} like the others`)
    }
  }
  return first ?? 'F32'
}

/** Numbers of tokens as the addon wants them. */
export function lengthsOf(option: string, lengths: Uint32Array | readonly number[]): Uint32Array {
  if (Object.prototype.toString.call(lengths) === '[object Uint32Array]') return lengths as Uint32Array
  if (Array.isArray(lengths) || ArrayBuffer.isView(lengths)) {
    const numbers = Array.from(lengths as ArrayLike<number>)
    if (numbers.every((length) => Number.isInteger(length) && length >= 0)) return Uint32Array.from(numbers)
  }
  throw typeError(option, lengths, 'a Uint32Array')
}

/** Tokens of all pairs together. */
export function sum(lengths: Uint32Array): number {
  return lengths.reduce((total, length) => total + length, 0)
}

/** Refuses a device that cannot be used. */
export function checkDevice(device: DeviceChoice | undefined): void {
  if (device !== undefined) call(() => native.checkDevice(device))
}

/** Sizes of codes: their slots a token, and where the shared block ends. */
export interface CodeSizes {
  /** Shared latents; taken from the codes where they carry it. */
  dShared?: number
  /** Slots of the shared block of a token. */
  kShared?: number
  /** Slots of the private block of a token. */
  kPrivate?: number
  /** Slots of a token. Default kShared + kPrivate, or what the codes or the lengths tell. */
  k?: number
  device?: DeviceChoice
}

/** Names of {@link CodeSizes}. */
export const sizeNames = ['dShared', 'kShared', 'kPrivate', 'k', 'device'] as const

/** Slots of a token. */
export function slots(sizes: CodeSizes, codes: Codes<Floats>, tokens?: number): number {
  if (sizes.k !== undefined) return sizes.k
  if (sizes.kShared !== undefined) return sizes.kShared + (sizes.kPrivate ?? 0)
  if (codes.k !== undefined) return codes.k
  if (tokens !== undefined && tokens > 0) return codes.indices.length / tokens
  throw optionError('k', undefined, 'the number of slots of a token (or pass codes that carry k)')
}

/** Without word on dShared every latent of the codes counts as shared. */
export function sharedOf(sizes: CodeSizes, codes: Codes<Floats>, latents?: number): number {
  const known = sizes.dShared ?? codes.dShared
  if (known !== undefined) return known
  if (latents !== undefined) return latents
  let highest = 0
  for (const index of codes.indices) if (index !== UNUSED && index >= highest) highest = index + 1
  return highest
}

/** Refuses what are no codes. */
export function checkCodes(option: string, codes: Codes<Floats>): void {
  if (typeof codes !== 'object' || codes === null) throw typeError(option, codes, 'codes { indices, values }')
  if (Object.prototype.toString.call(codes.indices) !== '[object Uint32Array]') {
    throw typeError(`${option}.indices`, codes.indices, 'a Uint32Array')
  }
  kind(`${option}.values`, codes.values)
}
