// `npm run kernels:build`: compiles the CUDA kernels into the fatbins that are committed, without nvcc and without a GPU.
// Only needed after a change under crates/lucid-kernels/src/cuda; Linux x86_64 with Python 3.9 or newer.
import { fail, run } from './lib/setup.mjs'

const python = await run('python3', ['scripts/kernels/build.py']).catch((error) =>
  fail(`Python 3.9 or newer is needed to build the kernels: ${error.message}`),
)
process.exitCode = python
