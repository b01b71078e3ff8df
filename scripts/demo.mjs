// `npm run demo`: sets up what is missing, then runs `lucid-sae demo` with the given options.
import { run, setup } from './lib/setup.mjs'

await setup()
process.exitCode = await run(process.execPath, ['bin/lucid-sae.js', 'demo', ...process.argv.slice(2)], {
  stdio: 'inherit',
})
