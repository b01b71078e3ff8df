/** How much a visitor may ask at once. */

/** Runs one question at a time and keeps a few waiting; further ones are turned away. */
export class Queue {
  #running = false
  readonly #waiting: (() => void)[] = []
  readonly #room: number

  constructor(room: number) {
    this.#room = room
  }

  /** Whether another question may wait. */
  get full(): boolean {
    return this.#waiting.length >= this.#room
  }

  /** Runs `work` when its turn comes. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve)
      })
    }
    this.#running = true
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#running = false
    }
  }
}

/** A bucket of `size` tokens that fills by `rate` a second. */
export class Bucket {
  #tokens: number
  #at = performance.now()
  readonly #size: number
  readonly #rate: number

  constructor(size: number, rate: number) {
    this.#size = size
    this.#rate = rate
    this.#tokens = size
  }

  /** Takes a token; false where there is none. */
  take(): boolean {
    const now = performance.now()
    this.#tokens = Math.min(this.#size, this.#tokens + ((now - this.#at) / 1000) * this.#rate)
    this.#at = now
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }
}
