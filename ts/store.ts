import { stat } from 'node:fs/promises'
import { call, LucidError, optionError } from './errors.js'
import type { PerModality, WorkEvent } from './events.js'
import type { ExtractionSummary } from './extract.js'
import { type NativeStore, native } from './native.js'
import type { Control } from './options.js'
import { Run } from './run.js'

/** One image with one of its captions, as activations. */
export interface Pair {
  /** File name or key of the image. */
  readonly image: string
  readonly caption: string
  /** States of the patches, [T_v · d_v], row by row. */
  readonly vision: Float32Array
  /** Rows and columns of the patch grid. */
  readonly visionGrid: readonly [rows: number, columns: number]
  /** States of the valid text tokens, [T_t · d_t], row by row. */
  readonly text: Float32Array
  /** Vocabulary ids of the tokens; 0xFFFFFFFF where not known. */
  readonly textIds: Uint32Array
  /** 0: a token of the caption's text, 1: the end of the sentence. */
  readonly textKinds: Uint8Array
  /** Byte spans [start, end) of the tokens in the caption (UTF-8), in turn; 0, 0 for a token without text of its own. */
  readonly textSpans: Uint32Array
}

/** A box in pixels of the original image. */
export interface Box {
  readonly x: number
  readonly y: number
  readonly width: number
  readonly height: number
  readonly category?: string
  /** Byte span of the words in the first caption that name this box. */
  readonly phrase?: readonly [start: number, end: number]
  readonly crowd?: boolean
  /** What the box encloses, of the size of the image. */
  readonly mask?: PixelMask
}

/** Which pixels an object covers, in COCO's run-length form, as pycocotools reads and writes it. */
export interface PixelMask {
  readonly size: readonly [height: number, width: number]
  /** Runs of pixels outside and inside in turn, down the columns from the left, in COCO's text; a list of runs is read too. */
  readonly counts: string | readonly number[]
}

/** What a store knows about a pair besides its activations. */
export interface PairInfo {
  readonly key: string
  readonly captions: readonly string[]
  readonly visionGrid: readonly [rows: number, columns: number]
  /** Width and height of the original image. */
  readonly size?: readonly [width: number, height: number]
  readonly boxes?: readonly Box[]
}

/** How a store keeps its numbers; `'int8'` with one scale a patch or token. */
export type StorePrecision = 'f32' | 'f16' | 'bf16' | 'int8'

/** What rounding to the precision changed, measured while the store was written. */
export interface PrecisionError {
  /** States that were compared. */
  readonly tokens: number
  /** Σ‖x̂ − x‖² over them. */
  readonly squaredError: number
  /** Σ‖x‖² over them. */
  readonly squaredNorm: number
  /** √(squaredError / squaredNorm). */
  readonly relativeRms: number
  /** Largest difference of one number. */
  readonly maxAbs: number
  /** Mean cosine between a state and what is stored of it. */
  readonly meanCosine: number
  readonly minCosine: number
}

/** The manifest of a store. */
export interface StoreMeta {
  readonly format: string
  readonly formatVersion: number
  readonly precision: StorePrecision
  /** Absent in stores of older versions. */
  readonly precisionError?: PerModality<PrecisionError>
  readonly dVision: number
  readonly dText: number
  readonly pairs: number
  readonly captions: number
  /** Patches, and valid tokens of all captions. */
  readonly tokens: PerModality
  /** Pairs of a full shard; absent in stores of older versions. */
  readonly pairsPerShard?: number
  readonly shards: readonly { readonly name: string; readonly pairs: number; readonly bytes: number }[]
  readonly files: readonly { readonly name: string; readonly bytes: number }[]
  /** Program and version that wrote it. */
  readonly createdBy: string
  /** Hash of the content. */
  readonly fingerprint: string
  readonly statistics: {
    readonly variance: PerModality
    readonly meanSquare: PerModality
    readonly pooledVariance: PerModality
    readonly tokens: PerModality
  }
  /** Backbone, hooks, data set … */
  readonly provenance: Readonly<Record<string, unknown>> | null
  readonly [field: string]: unknown
}

/** What {@link ActivationStore.verify} compared. */
export interface VerifyReport {
  readonly store: string
  readonly fingerprint: string | null
  readonly files: readonly { readonly file: string; readonly bytes: number; readonly damage: unknown }[]
}

/** The activations of pairs, mapped from disk. */
export class ActivationStore implements AsyncDisposable {
  /** The folder. */
  readonly path: string
  /** Number of pairs. */
  readonly pairs: number
  /** Width of a patch's state. */
  readonly dVision: number
  /** Width of a text token's state. */
  readonly dText: number
  /** Patches, and valid tokens of all captions. */
  readonly tokens: PerModality
  /** The manifest. */
  readonly meta: StoreMeta
  /** What the extraction did that has just written it. */
  readonly extraction: ExtractionSummary | undefined
  #native: NativeStore | undefined

  /** @internal */
  constructor(path: string, store: NativeStore, extraction?: ExtractionSummary) {
    this.#native = store
    this.path = path
    this.extraction = extraction
    this.meta = Object.freeze(JSON.parse(call(() => store.meta())) as StoreMeta)
    this.pairs = this.meta.pairs
    this.dVision = this.meta.dVision
    this.dText = this.meta.dText
    this.tokens = this.meta.tokens
  }

  #open(): NativeStore {
    if (!this.#native) {
      throw new LucidError('E_DISPOSED', `the activation store ${this.path} was closed`, { hint: 'open it again' })
    }
    return this.#native
  }

  #check(index: number): void {
    if (!Number.isInteger(index) || index < 0 || index >= this.pairs) {
      throw optionError('pair', index, `an integer from 0 to ${this.pairs - 1}`)
    }
  }

  /**
   * Pair `index` with its first caption, or the one asked for.
   *
   * @example
   * ```ts
   * import { openStore } from 'lucid-sae'
   *
   * const store = await openStore('acts')
   * const { image, caption, vision, visionGrid } = store.pair(0)
   * console.log(image, caption, visionGrid, vision.length / store.dVision)
   * ```
   */
  pair(index: number, options: { caption?: number } = {}): Pair {
    this.#check(index)
    const info = this.info(index)
    const caption = options.caption ?? 0
    if (!Number.isInteger(caption) || caption < 0 || caption >= info.captions.length) {
      throw optionError('caption', caption, `an integer from 0 to ${info.captions.length - 1}`)
    }
    const { vision, text, textIds, textKinds, textSpans } = call(() => this.#open().pair(index, caption))
    return {
      image: info.key,
      caption: info.captions[caption] ?? '',
      vision: vision,
      visionGrid: info.visionGrid,
      text,
      textIds,
      textKinds,
      textSpans,
    }
  }

  /** Key, captions, grid, size and boxes of pair `index`. */
  info(index: number): PairInfo {
    this.#check(index)
    return JSON.parse(call(() => this.#open().pairInfo(index))) as PairInfo
  }

  /** A small JPEG of the image of pair `index`, where the store has one. */
  thumbnail(index: number): Uint8Array | undefined {
    this.#check(index)
    return call(() => this.#open().thumbnail(index)) ?? undefined
  }

  /** Compares every byte with the hashes of the manifest; rejects with `E_STORE_DAMAGED` where one differs. */
  verify(control: Control = {}): Run<VerifyReport, WorkEvent> {
    return verifyStore(this.path, control)
  }

  /** Lets go of the files; using the store afterwards throws `E_DISPOSED`. */
  dispose(): void {
    this.#native = undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose()
  }
}

/** Verifies a store that may be too damaged to open. */
export function verifyStore(path: string, control: Control = {}): Run<VerifyReport, WorkEvent> {
  return new Run(
    () => native.startVerify(path),
    (json) => JSON.parse(json) as VerifyReport,
    control,
  )
}

/** Opens the store in folder `path`; used where a run has just written it. */
export function openStoreNow(path: string, extraction?: ExtractionSummary): ActivationStore {
  return new ActivationStore(
    path,
    call(() => native.NativeStore.open(path)),
    extraction,
  )
}

/**
 * Opens an activation store.
 *
 * @example
 * ```ts
 * import { openStore } from 'lucid-sae'
 *
 * const store = await openStore('acts')
 * console.log(store.pairs, store.dVision, store.dText, store.tokens)
 * ```
 */
export async function openStore(path: string): Promise<ActivationStore> {
  if (typeof path !== 'string' || path === '') throw optionError('path', path, 'the folder of an activation store')
  await stat(path).catch(() => {
    throw new LucidError('E_NOT_A_STORE', `${path} is not an activation store: there is no such folder`, {
      details: { file: path, found: 'nothing', expected: 'a folder written by extract or importActivations' },
      hint: 'make one with extract or importActivations',
    })
  })
  return openStoreNow(path)
}

/** The folder of a store given as such or as its path. */
export function storePath(option: string, store: string | ActivationStore): string {
  // By shape, not by class: two copies of the package may be loaded.
  const path = typeof store === 'object' && store !== null ? store.path : store
  if (typeof path !== 'string' || path === '') {
    throw optionError(option, store, 'an ActivationStore or the folder of one')
  }
  return path
}
