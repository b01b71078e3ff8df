/** The details of an error: the option or file it is about, what was found and what was expected. */
export type ErrorDetails = Readonly<Record<string, unknown>>

/**
 * Every error this package throws on its own account.
 *
 * `code` is stable (`'E_OPTION'`, `'E_SHAPE'`, `'E_STORE_DAMAGED'` …), so that a program can tell errors apart without
 * reading messages; `hint` says what to do, where that is known.
 *
 * @example
 * ```ts
 * import { LucidError, loadModel } from 'lucid-sae'
 *
 * try {
 *   await loadModel('runs/none')
 * } catch (error) {
 *   if (error instanceof LucidError) console.log(error.code, error.details, error.hint)
 * }
 * ```
 */
export class LucidError extends Error {
  /** Stable code, beginning with `E_`. */
  readonly code: string
  /** The option or file, what was found, what was expected. */
  readonly details: ErrorDetails
  /** What to do about it. */
  readonly hint: string | undefined

  constructor(
    code: string,
    message: string,
    options: { details?: ErrorDetails; hint?: string | undefined; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'LucidError'
    this.code = code
    this.details = Object.freeze({ ...options.details })
    this.hint = options.hint
  }

  /** The error as plain data, as `--json` prints it. */
  toJSON(): { code: string; message: string; details: ErrorDetails; hint?: string } {
    const { code, message, details, hint } = this
    return { code, message, details, ...(hint === undefined ? {} : { hint }) }
  }
}

/** The error of an option with a value that is not allowed. */
export function optionError(option: string, found: unknown, expected: string, hint?: string): LucidError {
  return new LucidError('E_OPTION', `option '${option}' is ${describe(found)}; expected ${expected}`, {
    details: { option, found: describe(found), expected },
    hint: hint ?? `set ${option} to ${expected}`,
  })
}

/** A short text for any value, for messages. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`
  if (ArrayBuffer.isView(value)) {
    const view = value as unknown as { length?: number }
    return `${Object.prototype.toString.call(value).slice(8, -1)} of ${view.length ?? value.byteLength} elements`
  }
  if (typeof value === 'object' && value !== null) {
    const text = JSON.stringify(value)
    return text.length > 80 ? `${text.slice(0, 77)}…` : text
  }
  return String(value)
}

interface NativeErrorForm {
  code: string
  message: string
  details: Record<string, unknown> | null
  hint: string | null
}

/**
 * Turns whatever the addon threw into a {@link LucidError}; this is the only place that does.
 *
 * The addon's own errors carry their form as JSON in the message. Everything else comes from Node-API itself (a wrong
 * type of argument) or from a caught panic.
 */
export function fromNative(error: unknown): Error {
  // Not `instanceof`: under a test runner errors of the addon belong to another realm.
  const thrown = error as { message?: unknown; code?: unknown } | null
  const message = typeof thrown?.message === 'string' ? thrown.message : String(error)
  if (message.startsWith('{"lucid":')) {
    const { code, message: text, details, hint } = (JSON.parse(message) as { lucid: NativeErrorForm }).lucid
    return new LucidError(code, text, { details: details ?? {}, hint: hint ?? undefined })
  }
  const status = typeof thrown?.code === 'string' ? thrown.code : ''
  if (status === 'InvalidArg' || status.endsWith('Expected')) {
    return new LucidError('E_TYPE', `an argument has the wrong type: ${message}`, { cause: error })
  }
  if (error instanceof LucidError) return error
  return new LucidError('E_INTERNAL', `internal error: ${message}`, {
    cause: error,
    hint: 'this is a bug of lucid-sae: please report it with the message and the options used',
  })
}

/** Calls into the addon; its errors come out as {@link LucidError}. */
export function call<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw fromNative(error)
  }
}
