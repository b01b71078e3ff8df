// `npm run test:shim`: the CUDA kernels compiled as C++ and run on the CPU, in three orders of a block's threads: every
// kernel test, and the whole training step against the golden fixtures.

import { count, rustTests, shimArguments, shimFilters } from './lib/rust-tests.mjs'
import { cargoEnvironment } from './lib/setup.mjs'

const started = Date.now()
await rustTests(cargoEnvironment(), shimArguments, shimFilters)
const seconds = Math.round((Date.now() - started) / 1000)
process.stdout.write(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped in ${seconds} s\n`)
process.exitCode = count.failed === 0 && count.passed > 0 ? 0 : 1
