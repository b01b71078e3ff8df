/**
 * The kernels of LUCID as pure functions on typed arrays, to build variants of the method from. `Float64Array` runs the
 * scalar reference, `Float32Array` the fast CPU backend. Batches of unequal lengths are concatenated arrays with
 * `lengths`.
 *
 * @packageDocumentation
 */
export type { DeviceChoice } from './device.js'
export { LucidError } from './errors.js'
export type { LossName } from './events.js'
export { type CodeSizes, type Floats, UNUSED } from './kernels/arrays.js'
export { type DecodeOptions, decode, type EncodeTopKOptions, encodeTopK } from './kernels/codes.js'
export {
  type AdamWOptions,
  type AdamWState,
  adamW,
  adamWState,
  type Params,
  type StepConfig,
  type StepOptions,
  type StepResult,
  step,
} from './kernels/step.js'
export {
  type BarycenterOptions,
  barycenter,
  type CodePair,
  cosineCost,
  type GcmtOptions,
  type GuidedPlan,
  gcmt,
  type Plan,
  type SinkhornOptions,
  sinkhorn,
} from './kernels/transport.js'
export type { Block, Codes } from './model.js'
