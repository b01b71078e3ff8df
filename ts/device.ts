import { call } from './errors.js'
import { native } from './native.js'

/** Where work runs. `'auto'` takes the best device there is; a device that cannot be used is refused when named. */
export type DeviceChoice = 'auto' | 'cpu' | 'cuda' | `cuda:${number}`

/** What a look for CUDA found. */
export type CudaState =
  | { readonly kind: 'no-driver'; readonly reason: string }
  | { readonly kind: 'stub'; readonly reason: string }
  | { readonly kind: 'no-device'; readonly reason: string }
  | {
      readonly kind: 'present-but-unused'
      readonly devices: number
      readonly driverVersion: string
      readonly reason: string
    }

/** What would be used and why. */
export interface DeviceReport {
  /** The device work runs on. */
  readonly device: 'cpu'
  /** Why, in a sentence. */
  readonly reason: string
  readonly cuda: CudaState
  readonly cpu: {
    readonly arch: string
    readonly os: string
    /** Threads used where `threads` is not given. */
    readonly threads: number
    /** Instruction sets found at run time, such as `avx2`. */
    readonly features: readonly string[]
  }
}

/**
 * Which device would be used, and why.
 *
 * @example
 * ```ts
 * import { device } from 'lucid-sae'
 *
 * console.log(device().reason) // e.g. "the CPU is used: no NVIDIA driver: libcuda.so.1: cannot open shared object file"
 * ```
 */
export function device(): DeviceReport {
  return JSON.parse(call(() => native.device())) as DeviceReport
}
