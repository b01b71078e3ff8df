import { optionError } from './errors.js'
import { unknownName } from './options.js'

/** Generated scenes: `pairs` of them, a function of `seed` and position. */
export interface ScenesDataset {
  scenes: {
    pairs: number
    seed?: number
    /** `'train'`, or the held-out split with unseen combinations of factors. Default `'train'`. */
    split?: string
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
  }
}

/**
 * A folder of images with captions in `captions.jsonl`, `.csv` or `.tsv` (fields `file` and `caption`) or in a `.txt`
 * beside each image.
 */
export interface FolderDataset {
  folder: string | { images: string; captions?: string }
}

/** Pictures with captions. */
export type Dataset = ScenesDataset | CocoDataset | FolderDataset

const kinds = ['scenes', 'coco', 'folder'] as const
const later = ['webdataset', 'parquet']

/** Refuses what is no data set, by name. */
export function checkDataset(dataset: Dataset): Dataset {
  const names = typeof dataset === 'object' && dataset !== null ? Object.keys(dataset) : []
  const [name] = names
  if (name === undefined || names.length !== 1) {
    throw optionError('dataset', dataset, 'an object with one key: scenes, coco or folder')
  }
  if (later.includes(name)) {
    throw optionError('dataset', dataset, 'scenes, coco or folder', `${name} data sets are not part of this version`)
  }
  if (!(kinds as readonly string[]).includes(name)) throw unknownName('data set', name, kinds)
  return dataset
}
