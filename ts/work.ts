import { LucidError } from './errors.js'
import type { Control } from './options.js'

/** How a piece of work written in TypeScript speaks to whoever follows it. */
export interface Teller<E> {
  /** Tells an event. With a `key`, it replaces the unread event of that key. */
  tell(event: E, key?: string): void
  /** Aborts when the work is to stop. */
  readonly signal: AbortSignal
}

/**
 * Long work made of several runs: as {@link Run}, an async iterable of its events, a promise of its result, and the means to
 * stop it. Events nobody reads wait; of those with the same key only the newest.
 */
export class Work<T, E extends { readonly type: string }> implements PromiseLike<T>, AsyncIterable<E>, AsyncDisposable {
  /** Resolves with the result; rejects with a `LucidError`, or with the signal's reason after an abort. */
  readonly result: Promise<T>
  readonly #stop = new AbortController()
  #waiting: { key?: string; event: E }[] = []
  #wake: () => void = () => undefined
  #ended = false

  /** @internal */
  constructor(body: (teller: Teller<E>) => Promise<T>, control: Control = {}) {
    const { signal } = control
    const forward = (): void => this.#stop.abort(signal?.reason)
    if (signal?.aborted) forward()
    else signal?.addEventListener('abort', forward, { once: true })
    const tell = (event: E, key?: string): void => {
      if (key !== undefined) this.#waiting = this.#waiting.filter((other) => other.key !== key)
      this.#waiting.push(key === undefined ? { event } : { key, event })
      this.#wake()
    }
    this.result = (async () => {
      try {
        this.#stop.signal.throwIfAborted()
        return await body({ tell, signal: this.#stop.signal })
      } finally {
        signal?.removeEventListener('abort', forward)
        this.#ended = true
        this.#wake()
      }
    })()
    // Whoever only iterates gets the error from the iterator; the promise must not then count as unhandled.
    this.result.catch(() => undefined)
  }

  /** Asks the work to stop. The result then rejects with code `E_CANCELLED`. */
  cancel(): void {
    this.#stop.abort(new LucidError('E_CANCELLED', 'the work was stopped', { hint: 'start it again to go on' }))
  }

  /** Makes the work itself awaitable. */
  // biome-ignore lint/suspicious/noThenProperty: awaitable by contract, as a run is.
  then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.result.then(onFulfilled, onRejected)
  }

  /** The events, until the work ends. Work that failed or was aborted throws its error here too. */
  async *[Symbol.asyncIterator](): AsyncGenerator<E, void, undefined> {
    for (;;) {
      const next = this.#waiting.shift()
      if (next) {
        yield next.event
        continue
      }
      if (this.#ended) break
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    await this.result
  }

  /** Stops the work if it is still going on and waits until it has. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel()
    await this.result.catch(() => undefined)
  }
}
