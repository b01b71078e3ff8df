import type { AtlasConcept, AtlasData, AtlasHit, AtlasImage, AtlasLatent, HeatMap, SearchHit } from './atlas-data.js'
import { checkDataset, type Dataset } from './dataset.js'
import type { DeviceChoice } from './device.js'
import { call, LucidError, optionError } from './errors.js'
import type { Evaluation, LabelScore } from './evaluation.js'
import type { WorkEvent } from './events.js'
import type { Figures, FiguresOptions } from './figures/index.js'
import { type Model, modelOf } from './model.js'
import { type NativeAtlas, native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'
import { type ActivationStore, storePath } from './store.js'

export type * from './atlas-data.js'

/** A concept of the library, perhaps with a category and other names; its code is the mean over the tokens of all its names. */
export type ConceptInput = string | { name: string; category?: string; synonyms?: readonly string[] }

/** Options of {@link interpret}. */
export interface InterpretOptions {
  /** The model, or its folder. */
  model: string | Model
  /**
   * The vision-language model whose states the model was trained on: `'mini'` for the embedded one (default), a folder with a checkpoint in Hugging Face's
   * layout, or a name on the Hugging Face hub such as `google/siglip-base-patch16-224`, with `@revision` for a branch, tag or
   * commit. A model of the hub is downloaded once, into the cache that Python uses too (docs/backbones.md).
   */
  backbone?: string
  /** The store whose images are looked at, or its folder. */
  activations?: string | ActivationStore
  /** Instead of `activations`: a data set, extracted with the backbone into a temporary store. */
  dataset?: Dataset
  /**
   * The library of concepts: a list; a file (docs/concepts.md); `'library'`: the default library of some 2,300 entries;
   * `'captions'`: the first 400 different captions by their stored states, which needs no backbone; or `'default'`: the words of the scenes for
   * scenes under the embedded backbone and for pictures without captions, the commonest words of the captions for other data under it, the captions for imported activations while
   * `backbone` is `'mini'`, and otherwise the default library.
   */
  concepts?: readonly ConceptInput[] | string
  /** Confidence a hit must exceed; the `quantile` of all peak scores where absent. */
  threshold?: number
  /** Default 0.95. */
  quantile?: number
  /**
   * Share of hits that may be chance, in place of the quantile: the threshold then lies where images of chance, in which every latent fires
   * where it will, give at most this share of the peak scores above it. A hit that is not chance may still name what is not there
   * (docs/concepts.md).
   */
  fdr?: number
  /** Hits a latent needs for a label. Default 5. */
  minHits?: number
  /** Weight latents by log(N / df) over the library. Default true. */
  idf?: boolean
  /** Cosine of text embeddings within a cluster. Default 0.78. */
  clusterCosine?: number
  /** Share of the largest cluster a label needs. Default 0.55. */
  minPurity?: number
  topTerms?: number
  labelTerms?: number
  /** Pictures kept for a latent and for a concept. Default 8. */
  topImages?: number
  topWords?: number
  /** Look at the first pairs only. */
  maxImages?: number
  /** Bytes of codes kept between passes. */
  cacheBytes?: number
  /** Folder to write the atlas to. */
  out?: string
  device?: DeviceChoice
  threads?: number
}

/** @internal Names for checks and the command line. */
export const interpretOptionNames = [
  'model',
  'backbone',
  'activations',
  'dataset',
  'concepts',
  'threshold',
  'quantile',
  'fdr',
  'minHits',
  'idf',
  'clusterCosine',
  'minPurity',
  'topTerms',
  'labelTerms',
  'topImages',
  'topWords',
  'maxImages',
  'cacheBytes',
  'out',
  'device',
  'threads',
] as const

/** What a report shows beside the atlas. */
export interface ReportOptions {
  /** The run folder with `config.json` and `metrics.jsonl`, for the configuration and the loss curves. */
  run?: string
  evaluation?: Evaluation
  /** Numbers of the same kind from separate autoencoders, by name. */
  baseline?: Evaluation
  title?: string
  /** Lines above everything else. */
  notes?: readonly string[]
  /** Another run, shown beside this one on a page of its own; the baseline stands there where absent. */
  compare?: { title: string; evaluation: Evaluation; run?: string }
  /** The model and the store that the page of pairs is made with; an atlas fresh from {@link interpret} knows them. */
  model?: string | Model
  activations?: string | ActivationStore
  /** Pairs to look into under the transport plan. Default 48; 0 = none. */
  pairs?: number
  /** Latents that the first page shows first; the purest of those with most hits where absent. */
  start?: readonly number[]
  stages?: readonly { name: string; seconds: number }[]
}

/** @internal What heat maps of any picture are made from. */
export interface HeatMapSource {
  model: Model
  activations: string | ActivationStore
}

/** What {@link Atlas.heatmap} is asked for: one of `concept` and `latent`, on one image. */
export interface HeatMapQuery {
  concept?: string
  latent?: number
  /** Position of the pair in the store, or the key of its image. */
  image: number | string
  model?: string | Model
  activations?: string | ActivationStore
}

/** What the latents of a model mean: names, pictures, words, heat maps. */
export class Atlas implements AsyncDisposable {
  /** Everything of `atlas.json`. */
  readonly data: Readonly<AtlasData>
  /** The folder it was loaded from or saved to. */
  path: string | undefined
  #native: NativeAtlas | undefined
  readonly #source: HeatMapSource | undefined

  /** @internal */
  constructor(atlas: NativeAtlas, path?: string, source?: HeatMapSource) {
    this.#native = atlas
    this.#source = source
    this.path = path
    this.data = JSON.parse(call(() => atlas.data())) as AtlasData
  }

  /** @internal The model and the store it was made with, where known. */
  get source(): HeatMapSource | undefined {
    return this.#source
  }

  #open(): NativeAtlas {
    if (!this.#native) throw new LucidError('E_DISPOSED', 'the atlas was disposed', { hint: 'load it again' })
    return this.#native
  }

  /** Every shared latent, by index. */
  get latents(): readonly AtlasLatent[] {
    return this.data.latents
  }

  /** Every concept of the library, in its order. */
  get concepts(): readonly AtlasConcept[] {
    return this.data.concepts
  }

  /** The pictures some latent or concept shows. */
  get images(): readonly AtlasImage[] {
    return this.data.images
  }

  /** The label of a latent; null where the evidence is too thin for one. */
  label(latent: number): string | null {
    const entry = this.data.latents[latent]
    if (!entry) throw optionError('latent', latent, `an integer from 0 to ${this.data.latents.length - 1}`)
    return entry.label
  }

  /** The latents that carry a concept, strongest first. */
  latentsFor(concept: string): AtlasConcept['latents'] {
    const entry = this.data.concepts.find((candidate) => candidate.name === concept)
    if (!entry) {
      throw new LucidError('E_UNKNOWN_OPTION', `unknown concept '${concept}'`, {
        details: { kind: 'concept', found: concept },
        hint: 'the concepts are those given to interpret; search(text) finds near ones',
      })
    }
    return entry.latents
  }

  /**
   * Where a concept or a latent is in an image.
   *
   * @param query `image` is the position of the pair in the store, or the key of the image. For pictures the atlas kept
   * the map is there already; for any other position it is made with `model` and `activations`, which an atlas fresh
   * from {@link interpret} knows.
   */
  heatmap(query: HeatMapQuery): HeatMap {
    const known = ['concept', 'latent', 'image', 'model', 'activations']
    const { concept, latent, image, model, activations } = checkOptions('heatmap', query, known, ['image'])
    if ((concept === undefined) === (latent === undefined)) {
      throw optionError('heatmap', query, 'either concept or latent')
    }
    const of = JSON.stringify(concept === undefined ? { latent } : { concept })
    let found: { values: Float32Array; grid: number[]; peak: number[] }
    try {
      found = call(() => this.#open().heatmap(of, JSON.stringify(image)))
    } catch (error) {
      const source =
        model !== undefined && activations !== undefined ? { model: modelOf(model), activations } : this.#source
      const missing = error instanceof LucidError && error.code === 'E_NOT_IN_ATLAS'
      if (!missing || typeof image !== 'number' || source === undefined) throw error
      const store = storePath('activations', source.activations)
      found = call(() => this.#open().computeHeatmap(of, image, source.model.native, store))
    }
    const { values, grid, peak } = found
    return { values, grid: grid as [number, number], peak: peak as [number, number] }
  }

  /** The heat map of an entry of a latent's or a concept's `images`, row by row over the patches of its picture. */
  heat(hit: AtlasHit): Float32Array {
    const grid = this.data.images[hit.image]?.grid
    if (!grid) throw optionError('hit', hit, 'an entry of the images of a latent or a concept of this atlas')
    return call(() => this.#open().map(hit.map, grid[0] * grid[1]))
  }

  /** Concepts, latents and captions that hold the words of `text`, best first. */
  search(text: string): SearchHit[] {
    return JSON.parse(call(() => this.#open().search(text))) as SearchHit[]
  }

  /** How many labels are right, by the truth that an evaluation of the same model on generated pairs knows. */
  scoreLabels(evaluation: Evaluation): LabelScore {
    const { truth } = evaluation
    if (truth === undefined) throw optionError('evaluation', 'one without truth', 'an evaluation on generated pairs')
    return JSON.parse(call(() => this.#open().scoreLabels(JSON.stringify(truth)))) as LabelScore
  }

  /** Writes the report: a folder to open from disk. */
  async report(folder: string, options: ReportOptions = {}): Promise<void> {
    const { writeReport } = await import('./report/index.js')
    await writeReport(this, options, folder)
  }

  /**
   * Writes the paper's pictures for this model: Figures 3 to 7 as SVG and Tables 1 and 5 as Markdown. Figure 5 needs an atlas over
   * pictures from elsewhere.
   */
  async figures(folder: string, options: FiguresOptions = {}): Promise<Figures> {
    const { writeFigures } = await import('./figures/index.js')
    return writeFigures(this, options, folder)
  }

  /** Writes the atlas folder under `path`, by rename once it is complete. */
  async save(path: string): Promise<void> {
    if (typeof path !== 'string' || path === '') throw optionError('path', path, 'a folder to write')
    call(() => this.#open().save(path))
    this.path = path
  }

  /** JPEG bytes of a picture of {@link Atlas.images}, where the atlas has one. */
  picture(image: number): Uint8Array | undefined {
    return call(() => this.#open().picture(image)) ?? undefined
  }

  /** Frees the heat maps; using them afterwards throws `E_DISPOSED`. */
  dispose(): void {
    this.#native = undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose()
  }
}

/**
 * Loads an atlas folder.
 *
 * @example
 * ```ts
 * import { loadAtlas } from 'lucid-sae'
 *
 * const atlas = await loadAtlas('atlas')
 * for (const { latent, label, words } of atlas.latents) console.log(latent, label, words[0]?.word)
 * ```
 */
export async function loadAtlas(path: string): Promise<Atlas> {
  if (typeof path !== 'string' || path === '') throw optionError('path', path, 'the folder of an atlas')
  return new Atlas(
    call(() => native.NativeAtlas.load(path)),
    path,
  )
}

/**
 * Finds out what the shared latents mean (Algorithm 1 of the paper).
 *
 * @example
 * ```ts
 * import { interpret } from 'lucid-sae'
 *
 * const atlas = await interpret({ model: 'runs/a', backbone: 'mini', activations: 'acts', concepts: ['red', 'blue', 'sky'] })
 * console.log(atlas.latentsFor('red').map(({ latent }) => atlas.label(latent)))
 * await atlas.report('report')
 * ```
 */
export function interpret(options: InterpretOptions, control?: Control): Run<Atlas, WorkEvent>
/** The same with the model in front. */
export function interpret(
  model: string | Model,
  options: Omit<InterpretOptions, 'model'>,
  control?: Control,
): Run<Atlas, WorkEvent>
export function interpret(
  first: InterpretOptions | string | Model,
  second: Omit<InterpretOptions, 'model'> | Control = {},
  third: Control = {},
): Run<Atlas, WorkEvent> {
  const inFront = typeof first === 'string' || 'encode' in first
  const options: InterpretOptions = inFront ? { ...(second as Omit<InterpretOptions, 'model'>), model: first } : first
  return new Run(
    () => {
      const { model, activations, dataset, ...rest } = checkOptions('interpret', options, interpretOptionNames, [
        'model',
      ])
      if ((activations === undefined) === (dataset === undefined)) {
        throw optionError('activations', activations, 'either activations or dataset')
      }
      const json = toJson({
        backbone: 'mini',
        concepts: 'default',
        ...rest,
        activations: activations === undefined ? undefined : storePath('activations', activations),
        dataset: dataset === undefined ? undefined : checkDataset(dataset),
      })
      return native.startInterpret(json, modelOf(model).native)
    },
    (_json, job) => {
      const { model, activations, out } = options
      const source = activations === undefined ? undefined : { model: modelOf(model), activations }
      return new Atlas(job.takeAtlas(), out, source)
    },
    inFront ? third : (second as Control),
  )
}
