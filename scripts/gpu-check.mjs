// `npm run gpu-check`: builds four stripped executables that need nothing but libcuda (every kernel test on a GPU; the golden
// fixtures of the whole step; pairs read beside the step; gpu_check: a training run beside the CPU's, the same bits twice, times)
// and runs them where there is a GPU.

import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { cargoEnvironment, fail, root } from './lib/setup.mjs'

const env = cargoEnvironment()
const folder = join(root, 'target', 'gpu-check')
mkdirSync(folder, { recursive: true })

/** Builds with cargo and returns the executable of the target named. */
function build(name, args) {
  const format = ['--release', '--locked', '--message-format=json-render-diagnostics']
  const built = spawnSync('cargo', [...args, ...format], {
    cwd: root,
    env,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', 'pipe', 2],
  })
  if (built.status !== 0) fail(`cargo ${args.join(' ')} failed`)
  const messages = built.stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
  const found = messages.find((message) => message.executable && message.target.name === name)
  const to = join(folder, { kernels: 'gpu_tests', golden: 'gpu_golden', feed: 'gpu_feed' }[name] ?? name)
  copyFileSync(found.executable, to)
  // Symbols are of no use there; without the tool the files are only larger.
  spawnSync('strip', [to])
  process.stdout.write(`${to}: ${(statSync(to).size / 1e6).toFixed(1)} MB\n`)
  return to
}

const tests = build('kernels', [
  ...['test', '--no-run', '-p', 'lucid-kernels', '--features', 'cuda-gpu', '--test', 'kernels'],
])
const [golden, feed] = ['golden', 'feed'].map((name) =>
  build(name, ['test', '--no-run', '-p', 'lucid-sae', '--features', 'cuda-gpu', '--test', name]),
)
cpSync(join(root, 'crates/lucid-sae/tests/fixtures'), join(folder, 'fixtures'), { recursive: true })
const check = build('gpu_check', ['build', '-p', 'lucid-benches', '--bin', 'gpu_check'])

if (process.argv.includes('--build-only')) process.exit(0)
const run = (file, args) => {
  const fixtures = { ...process.env, LUCID_FIXTURES: 'fixtures' }
  return spawnSync(file, args, { cwd: folder, env: fixtures, stdio: 'inherit' }).status ?? 1
}
const probe = spawnSync(check, ['--probe'], { cwd: folder, encoding: 'utf8' })
if (probe.status !== 0) {
  process.stdout.write(
    `not run: ${probe.stdout}On a machine with an NVIDIA driver: copy ${folder} there and run, in it,\n` +
      '  ./gpu_tests cuda_gpu && LUCID_FIXTURES=fixtures ./gpu_golden cuda_gpu && ./gpu_feed cuda_gpu && ./gpu_check\nwhich writes gpu-report.json and gpu-report.md.\n',
  )
} else {
  const tested = run(tests, ['cuda_gpu', '--show-output'])
  const steps = run(golden, ['cuda_gpu', '--show-output'])
  const fed = run(feed, ['cuda_gpu', '--show-output'])
  const checked = run(check, ['--out', '.'])
  process.exitCode = tested === 0 && steps === 0 && fed === 0 && checked === 0 ? 0 : 1
}
