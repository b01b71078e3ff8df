// `npm run bench:compare`: our training step and the same step in PyTorch, alternately in one run (benches/compare).
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { cargoEnvironment, fail, run } from './lib/setup.mjs'

const env = cargoEnvironment()
const python = ['python3', 'python'].find((name) =>
  process.env.PATH?.split(':').some((folder) => existsSync(join(folder, name))),
)
if (!python) fail('Python 3 is missing: install it, with its venv module, and run this again.')
process.exitCode = await run(python, ['benches/compare/run.py', ...process.argv.slice(2)], { env, stdio: 'inherit' })
