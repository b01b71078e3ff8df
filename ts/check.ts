import type { WorkEvent } from './events.js'
import { native } from './native.js'
import { type Control, checkOptions, toJson } from './options.js'
import { Run } from './run.js'

/** Options of {@link checkBackbone}. */
export interface CheckBackboneOptions {
  /** A folder, `'mini'`, or a name on the Hugging Face hub. Default `'mini'`. */
  backbone?: string
  /** COCO's 000000039769.jpg, for the one checkpoint whose logits are published (google/siglip-base-patch16-224). */
  image?: string
  threads?: number
}

/** What {@link checkBackbone} found. */
export interface BackboneCheckup {
  /** What identifies the backbone in the files made with it. */
  readonly backbone: Readonly<Record<string, unknown>>
  /** Shapes of both towers, in the names of `config.json`. */
  readonly config: Readonly<Record<string, unknown>>
  readonly parameters: number
  readonly hooks: readonly string[]
  /** Logit of the built-in picture, a red disc, with each text. */
  readonly logits: readonly (readonly [text: string, logit: number])[]
  readonly checks: readonly {
    readonly name: string
    readonly passed: boolean
    readonly found: string
    readonly expected: string
  }[]
  readonly passed: boolean
}

/** @internal Names for checks and the command line. */
export const checkOptionNames = ['backbone', 'image', 'threads'] as const

/**
 * Looks a backbone over: its files and shapes, finite states at every hook, the first blocks of both towers against 64-bit arithmetic.
 *
 * @example
 * ```ts
 * import { checkBackbone } from 'lucid-sae'
 *
 * const found = await checkBackbone({ backbone: 'mini' })
 * console.log(found.passed, found.checks.length)
 * ```
 */
export function checkBackbone(
  options: CheckBackboneOptions = {},
  control: Control = {},
): Run<BackboneCheckup, WorkEvent> {
  return new Run(
    () => {
      const checked = checkOptions('checkBackbone', options, checkOptionNames)
      return native.startCheckBackbone(toJson({ backbone: 'mini', ...checked }))
    },
    (json) => JSON.parse(json) as BackboneCheckup,
    control,
  )
}
