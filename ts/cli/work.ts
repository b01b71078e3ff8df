import { LucidError } from '../errors.js'
import type { TrainEvent } from '../events.js'
import type { Run } from '../run.js'
import type { Work } from '../work.js'
import { number, type Output } from './output.js'

/** Thrown when the user interrupts; `message` says how to go on. */
export class Interrupted extends Error {}

/** The run that Ctrl-C stops. Nothing runs beside it: commands do one thing at a time. */
let current: { cancel(): void } | undefined
let interrupts = 0

function onInterrupt(): void {
  interrupts += 1
  if (interrupts > 1 || !current) process.exit(130)
  process.stderr.write('\ninterrupted: finishing; press Ctrl-C again to stop at once\n')
  current.cancel()
}

/** Whether the user has asked to stop. */
export function interrupted(): boolean {
  return interrupts > 0
}

/** Ctrl-C and a polite kill stop the run under way after its step. */
export function watchInterrupts(): () => void {
  interrupts = 0
  process.on('SIGINT', onInterrupt)
  process.on('SIGTERM', onInterrupt)
  return () => {
    process.off('SIGINT', onInterrupt)
    process.off('SIGTERM', onInterrupt)
  }
}

/** Waits for Ctrl-C or a polite kill; a second one ends the process at once. */
export function untilInterrupted(): Promise<void> {
  return new Promise((resolve) => {
    // Signal handlers alone do not hold the process: a server does, for as long as it listens.
    current = { cancel: resolve }
  })
}

/** Shows a run's events until it ends, and gives its result. `resume` says how to go on after an interruption. */
export function follow<T>(run: Run<T, TrainEvent>, output: Output, resume?: string): Promise<T> {
  return following(run, output, resume)
}

/** The same for work made of several runs. */
export function followWork<T>(work: Work<T, TrainEvent>, output: Output, resume?: string): Promise<T> {
  return following(work, output, resume)
}

async function following<T>(
  run: Run<T, TrainEvent> | Work<T, TrainEvent>,
  output: Output,
  resume: string | undefined,
): Promise<T> {
  current = run
  try {
    for await (const event of run) show(event, output)
    return await run.result
  } catch (error) {
    if (interrupted() && error instanceof LucidError && error.code === 'E_CANCELLED') {
      throw new Interrupted(resume ?? 'stopped; nothing was written')
    }
    throw error
  } finally {
    current = undefined
  }
}

function show(event: TrainEvent, output: Output): void {
  switch (event.type) {
    case 'progress':
      output.progress(event.stage, event.done, event.total)
      break
    case 'step': {
      const { loss, r2 } = event
      const text = `loss ${number(loss)}  R² ${number(r2.vision)} / ${number(r2.text)}`
      output.progress('train', event.step, event.steps, text)
      break
    }
    case 'eval':
      output.note(`step ${event.step}: ${event.split} R² ${number(event.r2.vision)} / ${number(event.r2.text)}`)
      break
    case 'checkpoint':
      output.note(`step ${event.step}: checkpoint ${event.path}`)
      break
    case 'warning':
      output.note(`warning ${event.code}: ${event.message}`)
      break
    case 'done':
      break
  }
}
