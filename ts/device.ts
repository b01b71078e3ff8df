import { call } from './errors.js'
import { native } from './native.js'

/**
 * Where work runs. A device that cannot be used is refused when named; `'auto'` falls back to the CPU.
 *
 * `'cuda:1'` is the second of the devices that `CUDA_VISIBLE_DEVICES` leaves, `'cuda'` the first that can be used. Only
 * {@link train} has a CUDA path. Its kernels have been run on GPUs of compute capability 9.0 (docs/gpu.md): `'auto'` takes such
 * a GPU, and of any other {@link device} says that it must be asked for.
 */
export type DeviceChoice = 'auto' | 'cpu' | 'cuda' | `cuda:${number}`

/** A CUDA device that the driver shows. */
export interface CudaDevice {
  /** N of `'cuda:N'`. */
  readonly ordinal: number
  readonly name: string
  /** For example `'8.6'`; at least 7.5 is needed. */
  readonly computeCapability: string
  readonly memoryBytes: number
  /** The device is a slice of a GPU (multi-instance GPU). */
  readonly mig: boolean
  readonly usable: boolean
  /** Why it cannot be used, or what it is. */
  readonly reason: string
}

/** What a look for CUDA found. */
export type CudaState =
  /** libcuda cannot be opened. */
  | { readonly kind: 'no-driver'; readonly reason: string }
  /** The toolkit's stub stands where the driver should. */
  | { readonly kind: 'stub'; readonly reason: string }
  /** The driver does not work; `code` is the `CUresult` it gave, or null where a function is missing. */
  | { readonly kind: 'broken'; readonly reason: string; readonly code: number | null }
  /** The driver shows no device, or `CUDA_VISIBLE_DEVICES` hides all of them. */
  | { readonly kind: 'no-device'; readonly reason: string }
  | {
      readonly kind: 'devices'
      readonly reason: string
      /** Newest CUDA version the driver knows; at least 12.0 is needed. */
      readonly driverVersion: string
      readonly devices: readonly CudaDevice[]
    }

/** What would be used and why. */
export interface DeviceReport {
  /** The device that `'auto'` takes. */
  readonly device: 'cpu' | `cuda:${number}`
  /** Why, in a sentence. */
  readonly reason: string
  readonly cuda: CudaState
  readonly cpu: {
    readonly arch: string
    readonly os: string
    /** Threads used where `threads` is not given. */
    readonly threads: number
    /** What kernels use: the best the machine has, or that the environment variable `LUCID_CPU` allows. */
    readonly instructionSet: 'portable' | 'neon' | 'avx2' | 'avx512' | 'amx'
    /** Instruction sets found at run time, such as `avx2`. */
    readonly features: readonly string[]
  }
}

/** One operation on a CUDA device beside the reference. */
export interface DeviceCheck {
  readonly name: string
  /** Largest difference, relative to the largest value of the reference; null where the device gave no number. */
  readonly error: number | null
  readonly tolerance: number
  readonly passed: boolean
}

/**
 * Runs a miniature of the training step on a CUDA device and on the reference: `lucid-sae doctor --gpu`.
 *
 * @throws LucidError `E_DEVICE` or `E_UNAVAILABLE` where the device cannot be used.
 */
export function testDevice(choice: DeviceChoice = 'cuda'): { device: string; checks: readonly DeviceCheck[] } {
  return JSON.parse(call(() => native.testDevice(choice)))
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
