/** Activations to sparse codes and back. */
import type { DeviceChoice } from '../device.js'
import { call, optionError } from '../errors.js'
import type { Block, Codes } from '../model.js'
import { native } from '../native.js'
import { checkOptions, toJson } from '../options.js'
import {
  type CodeSizes,
  checkCodes,
  checkDevice,
  type Exact,
  type Floats,
  sameKind,
  sharedOf,
  sizeNames,
  slots,
} from './arrays.js'

/** Options of {@link encodeTopK}. */
export interface EncodeTopKOptions<A extends Floats> {
  /** [n · d]. */
  activations: A
  /** [d · K], row by row. */
  W_enc: A
  /** [K]. */
  b_enc: A
  /** [d]. */
  b_dec: A
  dShared: number
  kShared: number
  kPrivate: number
  topk?: 'split' | 'global'
  device?: DeviceChoice
}

/**
 * Codes of activations: Top-k of the positive pre-activations W_encᵀ(h − b_dec) + b_enc, ties to the lower index.
 *
 * @example
 * ```ts
 * import { encodeTopK } from 'lucid-sae/kernels'
 *
 * const codes = encodeTopK({
 *   activations: new Float64Array([1, 0, 0, 2]),
 *   W_enc: new Float64Array([1, 0, 0, 1]), // two latents, width 2
 *   b_enc: new Float64Array(2),
 *   b_dec: new Float64Array(2),
 *   dShared: 1,
 *   kShared: 1,
 *   kPrivate: 1,
 * })
 * console.log(codes.indices, codes.values)
 * ```
 */
export function encodeTopK<A extends Floats>(options: EncodeTopKOptions<A>): Required<Codes<Exact<A>>> {
  checkOptions(
    'encodeTopK',
    options,
    ['activations', 'W_enc', 'b_enc', 'b_dec', 'dShared', 'kShared', 'kPrivate', 'topk', 'device'],
    ['activations', 'W_enc', 'b_enc', 'b_dec', 'dShared', 'kShared', 'kPrivate'],
  )
  const { activations, W_enc, b_enc, b_dec, dShared, kShared, kPrivate, topk = 'split', device } = options
  checkDevice(device)
  const type = sameKind({ activations, W_enc, b_enc, b_dec })
  if (!Number.isInteger(dShared) || dShared < 0 || dShared > b_enc.length) {
    throw optionError('dShared', dShared, `an integer from 0 to ${b_enc.length}, the length of b_enc`)
  }
  const dPrivate = b_enc.length - dShared
  for (const [name, k, most] of [
    ['kShared', kShared, topk === 'split' ? dShared : b_enc.length],
    ['kPrivate', kPrivate, topk === 'split' ? dPrivate : b_enc.length],
  ] as const) {
    if (!Number.isInteger(k) || k < 0 || k > most) throw optionError(name, k, `an integer from 0 to ${most}`)
  }
  const json = toJson({ dShared, dPrivate, kShared, kPrivate, topk })
  const result = call(() =>
    native[`encodeTopk${type}`](json, activations as never, W_enc as never, b_enc as never, b_dec as never),
  )
  return { indices: result.indices, values: result.values as Exact<A>, k: kShared + kPrivate, dShared }
}

/** Options of {@link decode}. */
export interface DecodeOptions<A extends Floats> extends CodeSizes {
  codes: Codes<A>
  /** [K · d], row by row. */
  W_dec: A
  /** [d]. */
  b_dec: A
  /** Which latents take part; `'shared'` and `'private'` need dShared. Default `'joint'`. */
  block?: Block
}

/** Reconstructions [n · d]: W_decᵀ z + b_dec, from the whole code or one block. */
export function decode<A extends Floats>(options: DecodeOptions<A>): Exact<A> {
  checkOptions('decode', options, ['codes', 'W_dec', 'b_dec', 'block', ...sizeNames], ['codes', 'W_dec', 'b_dec'])
  const { codes, W_dec, b_dec, block = 'joint', device } = options
  checkDevice(device)
  checkCodes('codes', codes)
  const type = sameKind({ 'codes.values': codes.values, W_dec, b_dec })
  if (!['joint', 'shared', 'private'].includes(block)) {
    throw optionError('block', block, "'joint', 'shared' or 'private'")
  }
  const latents = W_dec.length / b_dec.length
  if (block !== 'joint' && options.dShared === undefined && codes.dShared === undefined) {
    throw optionError('dShared', undefined, 'the number of shared latents (or pass codes that carry it)')
  }
  const dShared = sharedOf(options, codes, latents)
  const json = toJson({ dShared, dPrivate: latents - dShared, kShared: slots(options, codes), kPrivate: 0, block })
  return call(() =>
    native[`decode${type}`](json, codes.indices, codes.values as never, W_dec as never, b_dec as never),
  ) as Exact<A>
}
