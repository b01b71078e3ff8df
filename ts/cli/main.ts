import { Command, CommanderError } from 'commander'
import { LucidError } from '../errors.js'
import { nearest } from '../options.js'
import { addCommands } from './commands.js'
import { addDemo } from './demo.js'
import { Output } from './output.js'
import { version } from './version.js'
import { Interrupted, watchInterrupts } from './work.js'

/** Exit codes of the command line. */
export const EXIT = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const

/** Errors that say the command was used wrongly. */
const USAGE = new Set(['E_USAGE', 'E_OPTION', 'E_UNKNOWN_OPTION', 'E_TYPE'])

function program(): Command {
  const root = new Command('lucid-sae')
  root
    .description('Train and read LUCID: sparse autoencoders that share latents between image patches and words')
    .version(version())
    .showSuggestionAfterError(true)
  addDemo(root)
  addCommands(root)
  for (const command of [root, ...root.commands]) {
    command.exitOverride().configureOutput({ outputError: () => undefined })
  }
  return root
}

/** Any error as one with a code. */
function typed(error: unknown): LucidError {
  if (error instanceof LucidError) return error
  if (error instanceof CommanderError) {
    const [first = '', ...rest] = error.message.replace(/^error: /, '').split('\n')
    const suggestion = rest.join(' ').trim()
    return new LucidError('E_USAGE', first, { hint: suggestion === '' ? "see 'lucid-sae help'" : suggestion })
  }
  const message = error instanceof Error ? error.message : String(error)
  const code = (error as NodeJS.ErrnoException)?.code
  return new LucidError(typeof code === 'string' && code.startsWith('E') ? 'E_IO' : 'E_INTERNAL', message, {
    cause: error,
  })
}

function checkCommand(root: Command, argv: readonly string[]): void {
  const name = argv.find((argument) => !argument.startsWith('-'))
  if (name === undefined || name === 'help') return
  const known = root.commands.map((command) => command.name())
  if (known.includes(name)) return
  const suggestion = nearest(name, known)
  throw new LucidError('E_USAGE', `unknown command '${name}'`, {
    details: { option: 'command', found: name, expected: known },
    hint: suggestion === undefined ? `commands: ${known.join(', ')}` : `did you mean '${suggestion}'?`,
  })
}

/** Runs a command line without the program's name, and gives the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  // A reader that has seen enough (`| head`) is no failure.
  process.stdout.once('error', (error: NodeJS.ErrnoException) =>
    process.exit(error.code === 'EPIPE' ? EXIT.done : EXIT.failed),
  )
  const output = new Output({ json: argv.includes('--json'), quiet: argv.includes('--quiet') })
  const unwatch = watchInterrupts()
  try {
    const root = program()
    checkCommand(root, argv)
    if (argv.length === 0) {
      output.line(root.helpInformation())
      return EXIT.done
    }
    await root.parseAsync([...argv], { from: 'user' })
    return EXIT.done
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return EXIT.done
    if (error instanceof Interrupted) {
      const message = `interrupted: ${error.message}`
      if (output.json) output.result({ error: { code: 'E_CANCELLED', message } })
      output.note(message)
      return EXIT.interrupted
    }
    const failure = typed(error)
    output.error(failure)
    if (failure.code === 'E_CANCELLED') return EXIT.interrupted
    return USAGE.has(failure.code) ? EXIT.usage : EXIT.failed
  } finally {
    unwatch()
  }
}
