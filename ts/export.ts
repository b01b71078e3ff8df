import { call, optionError } from './errors.js'
import { loadModel, Model } from './model.js'
import { checkOptions } from './options.js'

/** Options of {@link exportModel}. */
export interface ExportOptions {
  /** The model, or its folder. */
  model: string | Model
  /** Folder to write; it must not be there yet. */
  out: string
  /** Whose files are written. Default `'saelens'`. */
  format?: 'saelens'
}

/** What {@link exportModel} wrote. */
export interface ExportedModel {
  /** The folder. */
  readonly out: string
  readonly format: 'saelens'
  /** Folders within it, one autoencoder each: `vision-shared`, `vision-private`, …, or `vision` and `text` of a model with one block. */
  readonly autoencoders: readonly string[]
}

/** @internal Names for checks and the command line. */
export const exportOptionNames = ['model', 'out', 'format'] as const

/**
 * Writes a model in files that SAELens reads (`cfg.json` and `sae_weights.safetensors`): one Top-k autoencoder for each block of each
 * modality, with centring and scaling folded in, so that they take raw states. Models with thresholds become JumpReLU autoencoders.
 *
 * @throws LucidError `E_OPTION` where `out` is there already, or the encoder is not linear (method `vl-sae`).
 *
 * @example
 * ```ts
 * import { exportModel } from 'lucid-sae'
 *
 * const { autoencoders } = await exportModel({ model: 'runs/a', out: 'for-saelens' })
 * console.log(autoencoders)
 * ```
 */
export async function exportModel(options: ExportOptions): Promise<ExportedModel> {
  const { model, out, format = 'saelens' } = checkOptions('exportModel', options, exportOptionNames, ['model', 'out'])
  if (format !== 'saelens') throw optionError('format', format, "'saelens'")
  if (typeof out !== 'string' || out === '') throw optionError('out', out, 'a folder to write')
  const loaded = model instanceof Model ? model : await loadModel(model)
  try {
    return { out, format, autoencoders: call(() => loaded.native.exportSaelens(out)) }
  } finally {
    if (loaded !== model) loaded.dispose()
  }
}
