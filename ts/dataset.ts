import { optionError } from './errors.js'
import { unknownName } from './options.js'

/** Generated scenes: `pairs` of them, a function of `seed` and position. */
export interface ScenesDataset {
  scenes: {
    pairs: number
    seed?: number
    /** `'train'`, or the held-out split with unseen combinations of factors. Default `'train'`. */
    split?: string
    /** Causal edits: every second picture is the one before it with one attribute changed. Default false. */
    edits?: boolean
  }
}

/** COCO in its official JSON files. */
export interface CocoDataset {
  coco: {
    /** Folder of the photos. */
    images: string
    /** `captions_*.json`. */
    captions: string
    /** `instances_*.json`, for boxes. */
    instances?: string
    /** `panoptic_*.json`, for boxes of stuff, and of things where there are no instances. */
    panoptic?: string
    /**
     * Keep what the boxes enclose, pixel by pixel: polygons and runs of `instances`, and of `panoptic` the PNG files in the folder beside it
     * that has its name. Grounding is then measured against them too. Default false.
     */
    masks?: boolean
  }
}

/**
 * A folder of images with captions in `captions.jsonl`, `.csv` or `.tsv` (fields `file` and `caption`) or in a `.txt`
 * beside each image. `captions: false` reads none, and the name of a file stands for its caption: for pictures to interpret, not to
 * train on.
 */
export interface FolderDataset {
  folder: string | { images: string; captions?: string | boolean }
}

/**
 * Tar shards: paths with `{000..331}`, `{a,b}` or `*`, folders, and addresses (`https://`, `http://`, `s3://`) with braces.
 */
export interface WebdatasetDataset {
  webdataset:
    | string
    | readonly string[]
    | {
        urls: string | readonly string[]
        /** The only field of a sample's JSON that holds captions. Default: `caption`, `text`, `captions`, then `.txt`, `.caption`. */
        caption?: string
        /** The only extension of images, where samples have several. */
        image?: string
      }
}

/** Parquet files with the images inside, as Hugging Face writes them. */
export interface ParquetDataset {
  /** Paths with `*` or braces, or a folder. */
  parquet: string | readonly string[]
  /** The column of images. Default `'image'`. */
  image?: string
  /** The column of captions, `'sentences.raw'` for a field of a struct. Default `'caption'`, then `'text'`, `'captions'`. */
  caption?: string
}

/** Flickr8k, Flickr30k, and whatever comes with Karpathy's JSON. */
export interface FlickrDataset {
  flickr: {
    /** Folder of the photos. */
    images: string
    /** The token file, a table, or Karpathy's JSON. */
    captions: string
    /** Karpathy's JSON: only these splits, `'train'`, `'train+restval'` … */
    split?: string
  }
}

/** Pictures that img2dataset has downloaded, CC3M for one. Nothing is downloaded here. */
export interface Cc3mDataset {
  cc3m: {
    /** Folder of the pictures, with a `.json` or `.txt` beside each where there is no table. */
    images: string
    /** A table of captions and addresses. */
    captions?: string
  }
}

/** Pictures with captions. */
export type Dataset =
  | ScenesDataset
  | CocoDataset
  | FolderDataset
  | WebdatasetDataset
  | ParquetDataset
  | FlickrDataset
  | Cc3mDataset

/** What stands under the name of a kind: a text, a list of texts, or an object with fields, of which some are needed. */
interface Form {
  text?: true
  list?: true
  fields?: Readonly<Record<string, FieldType>>
  needed?: readonly string[]
  /** Fields that stand beside the name. */
  beside?: readonly string[]
}

type FieldType = 'text' | 'number' | 'texts' | 'flag' | 'textOrFlag'

/** @internal The kinds of data sets; a new one is a line here and an interface above. */
export const datasetForms: Readonly<Record<string, Form>> = {
  scenes: { fields: { pairs: 'number', seed: 'number', split: 'text', edits: 'flag' }, needed: ['pairs'] },
  coco: {
    fields: { images: 'text', captions: 'text', instances: 'text', panoptic: 'text', masks: 'flag' },
    needed: ['images', 'captions'],
  },
  folder: { text: true, fields: { images: 'text', captions: 'textOrFlag' }, needed: ['images'] },
  webdataset: {
    text: true,
    list: true,
    fields: { urls: 'texts', caption: 'text', image: 'text' },
    needed: ['urls'],
  },
  parquet: { text: true, list: true, beside: ['image', 'caption'] },
  flickr: { fields: { images: 'text', captions: 'text', split: 'text' }, needed: ['images', 'captions'] },
  cc3m: { fields: { images: 'text', captions: 'text' }, needed: ['images'] },
}

/** @internal Names of the kinds. */
export const datasetKinds: readonly string[] = Object.keys(datasetForms)

const isText = (value: unknown): boolean => typeof value === 'string' && value !== ''
const isTexts = (value: unknown): boolean => Array.isArray(value) && value.length > 0 && value.every(isText)

const checks: Readonly<Record<FieldType, readonly [(value: unknown) => boolean, string]>> = {
  text: [isText, 'a text'],
  number: [(value) => typeof value === 'number' || typeof value === 'bigint', 'a number'],
  texts: [(value) => isText(value) || isTexts(value), 'a text or a list of texts'],
  textOrFlag: [(value) => isText(value) || typeof value === 'boolean', 'a text, or false for no captions'],
  flag: [(value) => typeof value === 'boolean', 'true or false'],
}

/** Refuses what is no data set, by name. */
export function checkDataset(dataset: Dataset): Dataset {
  const given = typeof dataset === 'object' && dataset !== null ? (dataset as object as Record<string, unknown>) : {}
  const name = datasetKinds.find((kind) => kind in given)
  if (name === undefined) {
    const [other] = Object.keys(given)
    if (other !== undefined) throw unknownName('data set', other, datasetKinds)
    throw optionError('dataset', dataset, `an object with one key: ${datasetKinds.join(', ')}`)
  }
  const form = datasetForms[name] as Form
  for (const [field, value] of Object.entries(given)) {
    if (field === name || value === undefined) continue
    if (datasetKinds.includes(field)) throw optionError('dataset', dataset, `one of ${name} and ${field}`)
    if (!form.beside?.includes(field)) throw unknownName(`field beside ${name}`, field, [name, ...(form.beside ?? [])])
    if (!isText(value)) throw optionError(`dataset.${field}`, value, 'a text')
  }
  checkForm(name, form, given[name])
  return dataset
}

function checkForm(name: string, form: Form, value: unknown): void {
  if ((form.text && isText(value)) || (form.list && isTexts(value))) return
  const { fields, needed = [] } = form
  if (!fields || typeof value !== 'object' || value === null || Array.isArray(value)) {
    const expected = [form.text && 'a text', form.list && 'a list of texts', fields && `{ ${needed.join(', ')} }`]
    throw optionError(`dataset.${name}`, value, expected.filter(Boolean).join(' or '))
  }
  const found = value as Record<string, unknown>
  for (const field of Object.keys(found)) {
    if (!(field in fields)) throw unknownName(`field of ${name}`, field, Object.keys(fields))
  }
  for (const [field, type] of Object.entries(fields)) {
    const [good, expected] = checks[type]
    if (found[field] === undefined && !needed.includes(field)) continue
    if (!good(found[field])) throw optionError(`dataset.${name}.${field}`, found[field], expected)
  }
}
