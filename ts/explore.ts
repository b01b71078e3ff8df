import { setImmediate } from 'node:timers/promises'
import {
  changeOf,
  cosine,
  decoderRows,
  denseCosine,
  type FoundPlace,
  heatOf,
  place,
  pooledCode,
  type Sparse,
  turned,
} from './code-maps.js'
import { encodeImage, encodeText, type Question } from './encode.js'
import { optionError } from './errors.js'
import { type Atlas, loadAtlas } from './interpret.js'
import { type Model, modelOf } from './model.js'
import { type Control, checkOptions } from './options.js'
import { type ActivationStore, openStoreNow } from './store.js'

export type { FoundPlace } from './code-maps.js'

/** Options of {@link explore}. */
export interface ExploreOptions {
  /** The model, or its folder. */
  model: string | Model
  /** The store whose images and captions are looked through, or its folder. */
  activations: string | ActivationStore
  /** The backbone the model was trained on. Default `'mini'`. */
  backbone?: string
  /** What the latents are called, and the concepts to look for in a picture. */
  atlas?: string | Atlas
}

/** A latent with a number. */
export interface FoundLatent {
  readonly latent: number
  /** Its name, where the atlas has one. */
  readonly label: string | null
}

/** A pair of the store that answers a question. */
export interface FoundPair {
  readonly pair: number
  readonly key: string
  readonly caption: string
  /** Cosine of pooled shared codes. */
  readonly score: number
}

/** What {@link Explorer.search} finds. */
export interface SearchResult {
  readonly phrase: string
  readonly tokens: readonly string[]
  /** Shared latents of the phrase by weight in its mean code. */
  readonly latents: readonly (FoundLatent & { readonly weight: number })[]
  readonly images: readonly FoundPair[]
}

/** What {@link Explorer.explainImage} finds. */
export interface Explanation {
  readonly grid: readonly [rows: number, columns: number]
  /** Width and height of the picture in pixels. */
  readonly size: readonly [width: number, height: number]
  /** Concepts of the atlas by the score of their hottest patch (Algorithm 1, stage 3). */
  readonly concepts: readonly (FoundPlace & { readonly concept: string; readonly confidence: number })[]
  /** Shared latents by their strongest activation. */
  readonly latents: readonly (FoundLatent & FoundPlace & { readonly activation: number })[]
  /** Pictures of the store with the nearest shared codes. */
  readonly neighbours: readonly FoundPair[]
}

/** What a steered picture is asked with. */
export interface SteerOptions {
  /** A pair of the store, or a picture: the path of a file or its bytes. */
  image: number | string | Uint8Array
  latent: number
  /** Multiplies the latent's activation on every patch. */
  factor?: number
  /** Sets it on every patch. */
  value?: number
  top?: number
}

/** What changes when a latent is turned up or down. */
export interface Steering {
  readonly latent: number
  readonly label: string | null
  /** Patches on which it fired before. */
  readonly fired: number
  /** ‖ĥ' − ĥ‖ / ‖ĥ‖ over the picture, of the decoded states in raw units. */
  readonly change: number
  /** Cosine of the decoded states before and after. */
  readonly cosine: number
  /** ‖ĥ' − ĥ‖ of every patch, row by row over the grid. */
  readonly heat: Float32Array
  readonly grid: readonly [rows: number, columns: number]
  /** Captions nearest to the picture's shared code before and after. */
  readonly before: readonly FoundPair[]
  readonly after: readonly FoundPair[]
}

/** Pairs encoded between two turns of the event loop. */
const PART = 8

/** Questions to a trained model about words, pictures and latents. */
export class Explorer implements AsyncDisposable {
  readonly #model: Model
  readonly #store: ActivationStore
  readonly #backbone: string
  readonly #atlas: Atlas | undefined
  readonly #hooks: { vision: string; text: string; keepEos: boolean }
  #index: Promise<{ images: Sparse[]; captions: Sparse[] }> | undefined

  /** @internal */
  constructor(model: Model, store: ActivationStore, backbone: string, atlas: Atlas | undefined) {
    this.#model = model
    this.#store = store
    this.#backbone = backbone
    this.#atlas = atlas
    const { hooks, keepEos } = (store.meta.provenance ?? {}) as {
      hooks?: { vision?: string; text?: string }
      keepEos?: boolean
    }
    this.#hooks = {
      vision: hooks?.vision ?? 'vision.post_ln',
      text: hooks?.text ?? 'text.final_ln',
      keepEos: keepEos ?? true,
    }
  }

  #question(modality: 'vision' | 'text'): Question {
    const { backbone: recorded } = (this.#store.meta.provenance ?? {}) as { backbone?: unknown }
    return { backbone: this.#backbone, recorded: recorded ?? null, hook: this.#hooks[modality] }
  }

  /** Pooled shared codes of every image and first caption, made once, some pairs at a time. */
  #pooled(): Promise<{ images: Sparse[]; captions: Sparse[] }> {
    this.#index ??= (async () => {
      const images: Sparse[] = []
      const captions: Sparse[] = []
      for (let pair = 0; pair < this.#store.pairs; pair += 1) {
        if (pair % PART === 0) await setImmediate()
        const { vision, text } = this.#store.pair(pair)
        images.push(pooledCode(this.#model.encode(vision, 'vision')))
        captions.push(pooledCode(this.#model.encode(text, 'text')))
      }
      return { images, captions }
    })()
    // A failure is not kept: the next question reads again.
    this.#index.catch(() => {
      this.#index = undefined
    })
    return this.#index
  }

  #label(latent: number): string | null {
    return this.#atlas?.latents[latent]?.label ?? null
  }

  #nearest(code: Sparse, index: readonly Sparse[], top: number): FoundPair[] {
    const scores = index.map((other, pair) => ({ pair, score: cosine(code, other) }))
    scores.sort((a, b) => b.score - a.score || a.pair - b.pair)
    return scores.slice(0, top).map(({ pair, score }) => {
      const { key, captions } = this.#store.info(pair)
      return { pair, key, caption: captions[0] ?? '', score }
    })
  }

  #checkLatent(latent: number): void {
    const { dShared } = this.#model.config
    if (!Number.isInteger(latent) || latent < 0 || latent >= dShared) {
      throw optionError('latent', latent, `an integer from 0 to ${dShared - 1}`)
    }
  }

  /** The shared latents of a phrase, and the pictures whose shared codes are nearest to it. */
  async search(phrase: string, { top = 12 }: { top?: number } = {}, control: Control = {}): Promise<SearchResult> {
    if (typeof phrase !== 'string' || phrase.trim() === '') throw optionError('phrase', phrase, 'some words')
    checkTop(top)
    const { tokens, states } = await encodeText(
      phrase,
      { ...this.#question('text'), keepEos: this.#hooks.keepEos },
      control,
    )
    const code = pooledCode(this.#model.encode(states, 'text'))
    const { images } = await this.#pooled()
    const latents = [...code]
      .sort((a, b) => b[1] - a[1] || a[0] - b[0])
      .slice(0, top)
      .map(([latent, weight]) => ({ latent, label: this.#label(latent), weight }))
    return { phrase, tokens, latents, images: this.#nearest(code, images, top) }
  }

  /** What a picture shows: concepts and latents with their heat maps, and the pictures most like it. */
  async explainImage(
    image: string | Uint8Array,
    { top = 12 }: { top?: number } = {},
    control: Control = {},
  ): Promise<Explanation> {
    checkTop(top)
    const { states, grid, size } = await encodeImage(image, this.#question('vision'), control)
    const codes = this.#model.encode(states, 'vision')
    const { images } = await this.#pooled()
    const maps = heatOf(codes)
    const latents = [...maps]
      .map(([latent, heat]) => ({ latent, label: this.#label(latent), ...place(heat, grid) }))
      .sort((a, b) => b.activation - a.activation || a.latent - b.latent)
      .slice(0, top)
    const concepts = (this.#atlas?.concepts ?? [])
      .flatMap(({ name, latents: of }) => {
        const heat = new Float32Array(grid[0] * grid[1])
        // Stage 3 of Algorithm 1: Σ min(z_p, z_c) · idf.
        for (const { latent, weight, idf } of of) {
          const own = maps.get(latent)
          if (own)
            for (const [patch, value] of own.entries()) heat[patch] = (heat[patch] ?? 0) + Math.min(value, weight) * idf
        }
        const { activation: confidence, peak } = place(heat, grid)
        return confidence > 0 ? [{ concept: name, confidence, peak, heat }] : []
      })
      .sort((a, b) => b.confidence - a.confidence)
      .slice(0, top)
    return { grid, size, concepts, latents, neighbours: this.#nearest(pooledCode(codes), images, top) }
  }

  /**
   * The latents most like one: by the images they fire on (`'coactivation'`: cosine of pooled activations over the store's images), or by
   * the cosine of decoder rows.
   */
  async nearest(
    latent: number,
    { top = 12, by = 'coactivation' }: { top?: number; by?: 'coactivation' | 'decoder-vision' | 'decoder-text' } = {},
  ): Promise<readonly (FoundLatent & { readonly similarity: number })[]> {
    this.#checkLatent(latent)
    checkTop(top)
    if (!['coactivation', 'decoder-vision', 'decoder-text'].includes(by)) {
      throw optionError('by', by, "'coactivation', 'decoder-vision' or 'decoder-text'")
    }
    const { dShared } = this.#model.config
    const rows =
      by === 'coactivation'
        ? await this.#columns()
        : decoderRows(this.#model, by === 'decoder-vision' ? 'vision' : 'text')
    const own = rows[latent]
    return Array.from({ length: dShared }, (_, other) => other)
      .filter((other) => other !== latent)
      .map((other) => ({ latent: other, label: this.#label(other), similarity: denseCosine(own, rows[other]) }))
      .sort((a, b) => b.similarity - a.similarity || a.latent - b.latent)
      .slice(0, top)
  }

  /** Activations of every latent over the images. */
  async #columns(): Promise<Float32Array[]> {
    const { images } = await this.#pooled()
    const columns = Array.from({ length: this.#model.config.dShared }, () => new Float32Array(images.length))
    for (const [image, code] of images.entries()) {
      for (const [latent, value] of code) {
        const column = columns[latent]
        if (column) column[image] = value
      }
    }
    return columns
  }

  /** Turns a latent up or down on every patch of a picture, and tells what the decoder and retrieval make of it. */
  async steer(options: SteerOptions, control: Control = {}): Promise<Steering> {
    const {
      image,
      latent,
      factor,
      value,
      top = 5,
    } = checkOptions('steer', options, ['image', 'latent', 'factor', 'value', 'top'], ['image', 'latent'])
    this.#checkLatent(latent)
    checkTop(top)
    if ((factor === undefined) === (value === undefined)) throw optionError('factor', factor, 'either factor or value')
    for (const [name, number] of [
      ['factor', factor],
      ['value', value],
    ] as const) {
      if (number !== undefined && !(Number.isFinite(number) && number >= 0)) {
        throw optionError(name, number, 'a finite number of at least 0')
      }
    }
    let states: Float32Array
    let grid: readonly [number, number]
    if (typeof image === 'number') {
      const pair = this.#store.pair(image)
      states = pair.vision
      grid = pair.visionGrid
    } else {
      ;({ states, grid } = await encodeImage(image, this.#question('vision'), control))
    }
    const codes = this.#model.encode(states, 'vision')
    const steered = turned(codes, latent, factor, value)
    const before = this.#model.decode(codes, 'vision')
    const after = this.#model.decode(steered, 'vision')
    const { heat, change, cosine } = changeOf(before, after, grid[0] * grid[1])
    const { captions } = await this.#pooled()
    let fired = 0
    for (const index of codes.indices) fired += index === latent ? 1 : 0
    return {
      latent,
      label: this.#label(latent),
      fired,
      change,
      cosine,
      heat,
      grid,
      before: this.#nearest(pooledCode(codes), captions, top),
      after: this.#nearest(pooledCode(steered), captions, top),
    }
  }

  /** Lets go of the model, the store and the atlas. */
  dispose(): void {
    this.#index = undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose()
  }
}

/**
 * Opens a trained model for questions. The codes of the store's images and captions are made when first needed and kept.
 *
 * @example
 * ```ts
 * import { explore } from 'lucid-sae'
 *
 * const explorer = await explore({ model: 'runs/a', activations: 'acts', atlas: 'atlas' })
 * const { latents, images } = await explorer.search('a red star')
 * console.log(latents[0]?.label, images[0]?.caption)
 * console.log((await explorer.steer({ image: 0, latent: latents[0]?.latent ?? 0, factor: 3 })).after)
 * ```
 */
export async function explore(options: ExploreOptions): Promise<Explorer> {
  const {
    model,
    activations,
    backbone = 'mini',
    atlas,
  } = checkOptions('explore', options, ['model', 'activations', 'backbone', 'atlas'], ['model', 'activations'])
  const opened = modelOf(model)
  const store = typeof activations === 'string' ? openStoreNow(activations) : activations
  const { dVision, dText } = opened.info()
  if (store.dVision !== dVision || store.dText !== dText) {
    throw optionError(
      'activations',
      `states of widths ${store.dVision} and ${store.dText}`,
      `${dVision} and ${dText}, the model's`,
    )
  }
  const known = typeof atlas === 'string' ? await loadAtlas(atlas) : atlas
  if (known && known.latents.length !== opened.config.dShared) {
    throw optionError('atlas', `${known.latents.length} shared latents`, `${opened.config.dShared}, the model's`)
  }
  return new Explorer(opened, store, backbone, known)
}

function checkTop(top: number): void {
  if (!Number.isInteger(top) || top < 1 || top > 1000) throw optionError('top', top, 'an integer from 1 to 1000')
}
