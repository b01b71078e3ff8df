import { fromNative } from './errors.js'
import type { WorkEvent } from './events.js'
import type { NativeJob } from './native.js'
import type { Control } from './options.js'

/** How long an aborted run may take to stop before its promise rejects anyway, in milliseconds. */
const ABORT_PATIENCE = 200

/**
 * Long work under way: an async iterable of its events, a promise of its result, and the means to stop it.
 *
 * Events wait inside the addon until someone reads them. Of `step` and `progress` events only the newest unread one
 * is kept, so a slow reader never falls behind and a run nobody iterates costs nothing; `eval`, `checkpoint` and
 * `warning` events are all kept. Leaving a `for await` loop early does not stop the work; {@link Run.cancel} does.
 *
 * @example
 * ```ts
 * import { train } from 'lucid-sae'
 *
 * const run = train({ activations: 'acts', out: 'runs/a', steps: 100 })
 * for await (const event of run) {
 *   if (event.type === 'step') console.log(event.step, event.loss, event.r2.vision)
 * }
 * const model = await run.result
 * ```
 */
export class Run<T, E extends { readonly type: string } = WorkEvent>
  implements PromiseLike<T>, AsyncIterable<E>, AsyncDisposable
{
  /** Resolves with the result; rejects with a `LucidError`, or with the signal's reason after an abort. */
  readonly result: Promise<T>
  #job: NativeJob | undefined

  /** @internal `start` is called at once; whatever it throws becomes the rejection of {@link Run.result}. */
  constructor(start: () => NativeJob, finish: (json: string, job: NativeJob) => T, control: Control = {}) {
    this.result = this.#execute(start, finish, control.signal)
    // Whoever only iterates gets the error from the iterator; the promise must not then count as unhandled.
    this.result.catch(() => undefined)
  }

  async #execute(
    start: () => NativeJob,
    finish: (json: string, job: NativeJob) => T,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    signal?.throwIfAborted()
    let timer: NodeJS.Timeout | undefined
    let giveUp: (reason: unknown) => void = () => undefined
    const onAbort = (): void => {
      this.cancel()
      // A step may be long: the promise does not wait for its end, the thread finishes it behind.
      timer = setTimeout(() => giveUp(signal?.reason), ABORT_PATIENCE)
    }
    const aborted = new Promise<never>((_, reject) => {
      giveUp = reject
    })
    try {
      const job = start()
      this.#job = job
      const outcome = job.result()
      // Where the abort wins, nobody is left to hear how the job ended.
      outcome.catch(() => undefined)
      signal?.addEventListener('abort', onAbort, { once: true })
      return finish(await Promise.race([outcome, aborted]), job)
    } catch (error) {
      throw signal?.aborted ? signal.reason : fromNative(error)
    } finally {
      signal?.removeEventListener('abort', onAbort)
      clearTimeout(timer)
    }
  }

  /** Asks the work to stop after its current step. The result then rejects with code `E_CANCELLED`. */
  cancel(): void {
    this.#job?.cancel()
  }

  /** Makes the run itself awaitable: `await train(…)` gives the result. */
  // biome-ignore lint/suspicious/noThenProperty: a run is awaitable by contract.
  then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.result.then(onFulfilled, onRejected)
  }

  /** Like `Promise.prototype.catch`. */
  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<T | B> {
    return this.result.catch(onRejected)
  }

  /** Like `Promise.prototype.finally`. */
  finally(onFinally?: (() => void) | null): Promise<T> {
    return this.result.finally(onFinally)
  }

  /** The events, until the work ends. A failed or aborted run throws its error here too. */
  async *[Symbol.asyncIterator](): AsyncGenerator<E, void, undefined> {
    const job = this.#job
    if (job) {
      for (;;) {
        const event = await job.nextEvent()
        if (event === null) break
        yield JSON.parse(event) as E
      }
    }
    await this.result
  }

  /** Stops the work if it is still running and waits until it has. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel()
    await this.result.catch(() => undefined)
  }
}
