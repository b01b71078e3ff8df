import { type Config, configFromJson } from './config.js'
import { call, describe, LucidError, optionError } from './errors.js'
import { type NativeModel, native } from './native.js'

/** Image patches or text tokens. */
export type Modality = 'vision' | 'text'

/** Which latents take part. */
export type Block = 'joint' | 'shared' | 'private'

/**
 * Sparse codes of n tokens with k slots each: first the shared block by falling value, then the private block; a slot
 * that holds no latent has index 0xFFFFFFFF and value 0.
 */
export interface Codes<A extends Float32Array | Float64Array = Float32Array> {
  /** Latent indices [n · k]. */
  readonly indices: Uint32Array
  /** Values [n · k]. */
  readonly values: A
  /** Slots of a token: kShared + kPrivate, or as many as the fullest token needs where the model has thresholds. */
  readonly k?: number
  /** Shared latents: indices below are of the shared block. */
  readonly dShared?: number
}

/** Activations or codes of one image and one caption. */
export interface MatchInput {
  /** Raw patch states [T_v · d_v], or their codes. */
  vision: Float32Array | Codes
  /** Raw token states [T_t · d_t], or their codes. */
  text: Float32Array | Codes
}

/** The transport plan between the patches and tokens of a pair. */
export interface Match {
  /** Π [T_v · T_t], row by row (a row is a patch). */
  readonly plan: Float32Array
  readonly patches: number
  readonly tokens: number
  /** Mass of each token (column marginal). */
  readonly columnMarginal: Float32Array
  /** Σ_i |Σ_j Π_ij − r_i|. */
  readonly marginalError: number
  readonly transportCost: number
  readonly entropy: number
  readonly iterations: number
}

/** What a model is and where it comes from. */
export interface ModelInfo {
  readonly dVision: number
  readonly dText: number
  readonly dShared: number
  readonly dPrivate: number
  /** Values in all parameters together. */
  readonly parameters: number
  /** Steps it was trained, where known. */
  readonly steps?: number
  /** Fingerprint of the training store, where known. */
  readonly storeFingerprint?: string
  readonly [field: string]: unknown
}

/** A LUCID model: one sparse autoencoder a modality, with shared latents in common. */
export class Model implements AsyncDisposable {
  /** Every resolved value it was trained with. */
  readonly config: Readonly<Config>
  /** The folder it was loaded from or saved to, where there is one. */
  readonly path: string | undefined
  #native: NativeModel | undefined

  /** @internal */
  constructor(model: NativeModel, path?: string) {
    this.#native = model
    this.path = path
    this.config = configFromJson(JSON.parse(call(() => model.config())))
  }

  /** @internal The handle for other calls into the addon. */
  get native(): NativeModel {
    if (!this.#native) throw new LucidError('E_DISPOSED', 'the model was disposed', { hint: 'load it again' })
    return this.#native
  }

  /**
   * Codes of raw activations [n · d]; the model's own normalisation is applied inside.
   *
   * @example
   * ```ts
   * import { loadModel, openStore } from 'lucid-sae'
   *
   * const model = await loadModel('runs/a')
   * const store = await openStore('acts')
   * const codes = model.encode(store.pair(0).vision, 'vision')
   * console.log(codes.indices.subarray(0, codes.k)) // latents of the first patch
   * ```
   */
  encode(activations: Float32Array, modality: Modality): Required<Codes> {
    checkModality(modality)
    checkFloats('activations', activations)
    const { indices, values, k } = call(() => this.native.encode(activations, modality))
    return { indices, values, k, dShared: this.config.dShared }
  }

  /** Reconstructions [n · d] in the units of the raw activations, from the whole code or one block, bias included. */
  decode(codes: Codes, modality: Modality, options: { block?: Block } = {}): Float32Array {
    checkModality(modality)
    const block = options.block ?? 'joint'
    if (!['joint', 'shared', 'private'].includes(block)) {
      throw optionError('block', block, "'joint', 'shared' or 'private'")
    }
    checkCodes('codes', codes)
    return call(() => this.native.decode(codes.indices, codes.values, modality, block, codes.k))
  }

  /** Which patches and tokens of a pair belong together: the transport plan between their shared codes. */
  match(pair: MatchInput): Match {
    if (typeof pair !== 'object' || pair === null) throw optionError('pair', pair, 'an object with vision and text')
    const vision = this.#codes(pair.vision, 'vision')
    const text = this.#codes(pair.text, 'text')
    const result = call(() =>
      this.native.match(vision.indices, vision.values, text.indices, text.values, vision.k, text.k),
    )
    const { plan, columnMarginal } = result
    return Object.freeze({
      plan,
      columnMarginal,
      patches: result.patches,
      tokens: result.tokens,
      marginalError: result.marginalError,
      transportCost: result.transportCost,
      entropy: result.entropy,
      iterations: result.iterations,
    })
  }

  #codes(input: Float32Array | Codes, modality: Modality): Codes {
    if (ArrayBuffer.isView(input)) return this.encode(input as Float32Array, modality)
    checkCodes(modality, input)
    return input
  }

  /** Writes the model folder (`config.json`, `model.safetensors`) under `path`, by rename once it is complete. */
  async save(path: string): Promise<void> {
    if (typeof path !== 'string' || path === '') throw optionError('path', path, 'a folder to write')
    call(() => this.native.save(path))
  }

  /** Sizes, steps and origin. */
  info(): ModelInfo {
    return JSON.parse(call(() => this.native.info())) as ModelInfo
  }

  /** Frees the parameters; using the model afterwards throws `E_DISPOSED`. */
  dispose(): void {
    this.#native = undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose()
  }
}

function checkModality(modality: string): void {
  if (modality !== 'vision' && modality !== 'text') throw optionError('modality', modality, "'vision' or 'text'")
}

function checkFloats(name: string, value: unknown): void {
  // By tag, not `instanceof`: arrays may come from another realm (a worker, a test runner).
  if (Object.prototype.toString.call(value) !== '[object Float32Array]') {
    throw new LucidError('E_TYPE', `${name} is ${describe(value)}; expected a Float32Array`, {
      details: { option: name, found: describe(value), expected: 'Float32Array' },
    })
  }
}

function checkCodes(name: string, codes: Codes): void {
  const tag = (value: unknown): string => Object.prototype.toString.call(value)
  const right =
    typeof codes === 'object' &&
    codes !== null &&
    tag(codes.indices) === '[object Uint32Array]' &&
    tag(codes.values) === '[object Float32Array]'
  if (!right) throw optionError(name, codes, 'codes { indices: Uint32Array, values: Float32Array }')
}

/** Loads a model folder in the same turn. */
export function loadModelNow(path: string): Model {
  if (typeof path !== 'string' || path === '') throw optionError('model', path, 'a Model or the folder of one')
  return new Model(
    call(() => native.NativeModel.load(path)),
    path,
  )
}

/**
 * Loads a model from the folder of a run, of a checkpoint, or of a saved model.
 *
 * @example
 * ```ts
 * import { loadModel } from 'lucid-sae'
 *
 * await using model = await loadModel('runs/a')
 * console.log(model.config.dShared, model.info().parameters)
 * ```
 */
export async function loadModel(path: string): Promise<Model> {
  return loadModelNow(path)
}

/** A model given as such or as its folder. */
export function modelOf(model: string | Model): Model {
  return typeof model === 'string' ? loadModelNow(model) : model
}
