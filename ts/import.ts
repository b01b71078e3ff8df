import { describe, LucidError, optionError } from './errors.js'
import type { WorkEvent } from './events.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'
import { type ActivationStore, openStoreNow, type StorePrecision } from './store.js'

/** An array in memory: values row by row, and its dimensions. */
export interface ArraySource {
  data: Float32Array
  shape: readonly number[]
}

/** Numbers in memory, or in a `.npy` or `.safetensors` file. `tensor` names the array of a safetensors file. */
export type ActivationInput = ArraySource | string | { file: string; tensor?: string }

/** Numbers of tokens in memory or in a file. */
export type LengthsInput = readonly number[] | Uint32Array | Int32Array | string | { file: string; tensor?: string }

/** Options of {@link importActivations}. */
export interface ImportOptions {
  /** Patch states: [pairs, T_v, d_v], or [Σ T_v, d_v] with `visionLengths`. */
  vision: ActivationInput
  /** Token states: [Σ T_t, d_t] with `textLengths`, or padded [pairs, T_max, d_t] with `textLengths`. */
  text: ActivationInput
  /** Valid tokens of each pair; needed, unless the safetensors file of `text` holds a tensor of that name. */
  textLengths?: LengthsInput
  /** Patches of each pair, where they differ. */
  visionLengths?: LengthsInput
  /** Rows and columns of the patch grid; a square where the number of patches is one. */
  visionGrid?: readonly [rows: number, columns: number]
  /** Width of a patch's state, where the shape of `vision` does not tell it. */
  dVision?: number
  /** Width of a token's state, where the shape of `text` does not tell it. */
  dText?: number
  /** Name of each image. */
  images?: readonly string[]
  /** Caption of each image. */
  captions?: readonly string[]
  /** Folder of the new store. */
  out: string
  /** How activations are stored. Default `'f32'`. */
  precision?: StorePrecision
  /** Pairs in a file of the store. Default 1024. */
  pairsPerShard?: number
  /** Replace an existing store under `out`. Default false. */
  overwrite?: boolean
}

/** @internal Names for checks and the command line. */
export const importOptionNames = [
  'vision',
  'text',
  'textLengths',
  'visionLengths',
  'visionGrid',
  'dVision',
  'dText',
  'images',
  'captions',
  'out',
  'precision',
  'pairsPerShard',
  'overwrite',
] as const

/** The part of an input that travels as JSON, and the part that travels as an array. */
function source(option: string, input: ActivationInput): { json: unknown; data: Float32Array | undefined } {
  if (typeof input === 'string') return { json: { file: input }, data: undefined }
  if (typeof input === 'object' && input !== null) {
    if ('file' in input) return { json: input, data: undefined }
    if (ArrayBuffer.isView(input.data) && Array.isArray(input.shape)) {
      if (Object.prototype.toString.call(input.data) !== '[object Float32Array]') {
        throw new LucidError('E_TYPE', `option '${option}' holds a ${describe(input.data)}; expected a Float32Array`, {
          details: { option, found: describe(input.data), expected: 'Float32Array' },
          hint: 'convert it with Float32Array.from',
        })
      }
      return { json: { shape: input.shape }, data: input.data }
    }
  }
  throw optionError(option, input, 'a file name, { file, tensor } or { data: Float32Array, shape }')
}

function lengths(option: string, input: LengthsInput | undefined): unknown {
  if (input === undefined) return undefined
  if (typeof input === 'string') return { file: input }
  if (Array.isArray(input) || ArrayBuffer.isView(input)) return { values: Array.from(input as ArrayLike<number>) }
  if (typeof input === 'object' && 'file' in input) return input
  throw optionError(option, input, 'an array of integers, a file name or { file, tensor }')
}

/**
 * Makes a store of activations that come from elsewhere: arrays, `.npy` or `.safetensors` files.
 *
 * @example
 * ```ts
 * import { importActivations } from 'lucid-sae'
 *
 * const store = await importActivations({
 *   vision: 'vision.npy', // [pairs, patches, d]
 *   text: 'text.npy', // [all tokens, d]
 *   textLengths: 'lengths.npy',
 *   out: 'acts',
 * })
 * console.log(store.pairs)
 * ```
 */
export function importActivations(options: ImportOptions, control: Control = {}): Run<ActivationStore, WorkEvent> {
  return new Run(
    () => {
      const checked = checkOptions('importActivations', options, importOptionNames, ['vision', 'text', 'out'])
      const vision = source('vision', checked.vision)
      const text = source('text', checked.text)
      const json = toJson({
        ...checked,
        vision: vision.json,
        text: text.json,
        textLengths: lengths('textLengths', checked.textLengths),
        visionLengths: lengths('visionLengths', checked.visionLengths),
      })
      return native.startImport(json, vision.data, text.data)
    },
    () => openStoreNow(options.out),
    control,
  )
}
