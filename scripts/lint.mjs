// `npm run lint`: rustfmt, clippy, the TypeScript compiler and biome, all of them even when one fails.
import { cargoEnvironment, run, setup } from './lib/setup.mjs'

await setup()
const env = cargoEnvironment()
const checks = [
  ['cargo', ['fmt', '--all', '--check']],
  ['cargo', ['clippy', '--workspace', '--all-targets', '--release', '--locked', '--', '-D', 'warnings']],
  ['npx', ['tsc', '--noEmit', '-p', 'tsconfig.json']],
  ['npx', ['biome', 'ci', '--error-on-warnings', '.']],
]
for (const [command, args] of checks) {
  process.stderr.write(`[lint] ${command} ${args.join(' ')}\n`)
  if ((await run(command, args, { env })) !== 0) process.exitCode = 1
}
