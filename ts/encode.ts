import { optionError } from './errors.js'
import type { WorkEvent } from './events.js'
import { native } from './native.js'
import { type Control, toJson } from './options.js'
import { Run } from './run.js'

/** Which states are asked for. @internal */
export interface Question {
  backbone: string
  /** What the store says of its backbone: another one is refused. */
  recorded: unknown
  hook: string
}

/** A text's tokens and their states at a hook. @internal */
export function encodeText(
  text: string,
  question: Question & { keepEos: boolean },
  control: Control,
): Run<{ tokens: string[]; states: Float32Array }, WorkEvent> {
  return new Run(
    () => native.startEncodeText(toJson({ ...question, text })),
    (json, job) => ({ ...(JSON.parse(json) as { tokens: string[] }), states: job.takeStates() }),
    control,
  )
}

/** @internal */
export interface EncodedImage {
  states: Float32Array
  grid: readonly [number, number]
  size: readonly [number, number]
}

/** A picture's patch states at a hook; the picture as the path of a file, or its bytes. @internal */
export function encodeImage(
  image: string | Uint8Array,
  question: Question,
  control: Control,
): Run<EncodedImage, WorkEvent> {
  return new Run(
    () => {
      const isBytes = Object.prototype.toString.call(image) === '[object Uint8Array]'
      if (!isBytes && (typeof image !== 'string' || image === '')) {
        throw optionError('image', typeof image, 'the path of a file, or its bytes')
      }
      return isBytes
        ? native.startEncodeImage(toJson(question), image as Uint8Array)
        : native.startEncodeImage(toJson({ ...question, file: image }))
    },
    (json, job) => ({ ...(JSON.parse(json) as Omit<EncodedImage, 'states'>), states: job.takeStates() }),
    control,
  )
}
