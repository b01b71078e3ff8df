import type { LucidError } from '../errors.js'

/** Two plain progress lines of a stage are at least this far apart, in milliseconds. */
const PLAIN_INTERVAL = 5000
const BAR_WIDTH = 28

/** Where a command writes: results on stdout, progress and errors on stderr. */
export class Output {
  readonly json: boolean
  readonly quiet: boolean
  readonly #terminal: boolean
  readonly #color: boolean
  #bar = ''
  #stage = ''
  #printed = 0

  constructor(options: { json?: boolean | undefined; quiet?: boolean | undefined }) {
    this.json = options.json === true
    this.quiet = options.quiet === true
    this.#terminal = process.stderr.isTTY === true && process.env.TERM !== 'dumb'
    this.#color = this.#terminal && !process.env.NO_COLOR
  }

  /** A line of the result for people; with `--json` it goes to stderr. */
  line(text = ''): void {
    this.#clear()
    if (this.json) {
      if (!this.quiet) process.stderr.write(`${text}\n`)
    } else process.stdout.write(`${text}\n`)
  }

  /** A line about the work itself, not part of the result. */
  note(text: string): void {
    if (this.quiet) return
    this.#clear()
    process.stderr.write(`${text}\n`)
  }

  /** The one object of `--json`. */
  result(value: unknown): void {
    this.#clear()
    if (this.json) process.stdout.write(`${JSON.stringify(value)}\n`)
  }

  /** Code, message and hint of an error, and with `--json` the error as an object. */
  error(error: LucidError): void {
    this.#clear()
    const mark = this.#color ? `\x1b[31m${error.code}\x1b[0m` : error.code
    process.stderr.write(`${mark}: ${error.message}\n`)
    if (error.hint !== undefined) process.stderr.write(`hint: ${error.hint}\n`)
    if (this.json) process.stdout.write(`${JSON.stringify({ error })}\n`)
  }

  /** A bar on a terminal, a line now and then elsewhere. `total` 0 means that the end is not known. */
  progress(stage: string, done: number, total: number, text = ''): void {
    if (this.quiet) return
    const share = total > 0 ? Math.min(1, done / total) : 0
    const unit = stage === 'download' ? bytes : String
    const count = total > 0 ? `${unit(done)}/${unit(total)}` : unit(done)
    if (this.#terminal) {
      const full = Math.round(share * BAR_WIDTH)
      const bar = `${'█'.repeat(full)}${'░'.repeat(BAR_WIDTH - full)}`
      const width = (process.stderr.columns ?? 80) - 1
      this.#bar = `${stage.padEnd(12)} ${bar} ${count} ${text}`.slice(0, width)
      process.stderr.write(`\r\x1b[2K${this.#bar}`)
      if (total > 0 && done >= total) this.#clear()
      return
    }
    const now = Date.now()
    const ended = total > 0 && done >= total
    if (stage === this.#stage && !ended && now - this.#printed < PLAIN_INTERVAL) return
    this.#stage = stage
    this.#printed = now
    process.stderr.write(`${stage} ${count} ${text}`.trimEnd().concat('\n'))
  }

  #clear(): void {
    if (this.#bar === '') return
    this.#bar = ''
    process.stderr.write('\r\x1b[2K')
  }
}

/** A number of bytes for people: three significant digits. */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  const power = Math.min(units.length - 1, count < 1 ? 0 : Math.floor(Math.log10(count) / 3))
  return `${power === 0 ? count : Number((count / 1000 ** power).toPrecision(3))} ${units[power]}`
}

/** A number for people: four significant digits. */
export function number(value: number | undefined): string {
  if (value === undefined) return '–'
  if (Number.isInteger(value)) return String(value)
  return Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5 ? value.toPrecision(3) : value.toExponential(2)
}

/** Columns aligned: the first to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const columns = Math.max(...rows.map((row) => row.length))
  const widths = Array.from({ length: columns }, (_, i) => Math.max(...rows.map((row) => (row[i] ?? '').length)))
  return rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  )
}
