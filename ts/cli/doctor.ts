import { createRequire } from 'node:module'
import type { Command } from 'commander'
import { type CheckBackboneOptions, checkBackbone } from '../check.js'
import { type CudaState, type DeviceChoice, device, testDevice } from '../device.js'
import { LucidError } from '../errors.js'
import { action } from './commands.js'
import { addCommonOptions, toInteger } from './options.js'
import type { Output } from './output.js'
import { version } from './version.js'
import { follow } from './work.js'

/** `lucid-sae doctor`: what this machine offers and what is used. */
export function addDoctor(root: Command): void {
  const command = root.command('doctor').description('what this machine offers, what is used, and why')
  command.option('--gpu [device]', "compute a small step on a CUDA device ('cuda', 'cuda:1') and compare it")
  command.option('--backbone <name>', "look a checkpoint over: a folder, 'mini' or a name on the Hugging Face hub")
  command.option(
    '--image <file>',
    'with --backbone google/siglip-base-patch16-224: COCO 000000039769.jpg, for its published logits',
  )
  command.option('--threads <count>', 'threads to use', toInteger)
  addCommonOptions(command)
  action(command, async ({ options }, output) => {
    if (options.backbone !== undefined || options.image !== undefined) {
      await checkup(options as CheckBackboneOptions, output)
      return
    }
    const report = device()
    const packageVersion = version()
    const addon = createRequire(import.meta.url).resolve('../../native/index.cjs')
    output.line(`lucid-sae ${packageVersion}, Node ${process.versions.node}`)
    output.line(`addon     ${addon}`)
    output.line(
      `cpu       ${report.cpu.os} ${report.cpu.arch}, ${report.cpu.threads} threads, uses ${report.cpu.instructionSet} of ${report.cpu.features.join(' ')}`,
    )
    output.line(`cuda      ${cudaLine(report.cuda)}`)
    for (const { ordinal, name, reason } of report.cuda.kind === 'devices' ? report.cuda.devices : []) {
      output.line(`${`cuda:${ordinal}`.padEnd(9)} ${name}: ${reason}`)
    }
    output.line(`used      ${report.device}: ${report.reason}`)
    const gpu = options.gpu === undefined ? undefined : testGpu(options.gpu, output)
    output.result({ version: packageVersion, node: process.versions.node, addon, ...report, ...(gpu ? { gpu } : {}) })
  })
}

/** Looks a backbone over; anything wrong makes the command fail. */
async function checkup({ backbone, image, threads }: CheckBackboneOptions, output: Output): Promise<void> {
  const chosen = Object.fromEntries(
    Object.entries({ backbone, image, threads }).filter(([, value]) => value !== undefined),
  )
  const found = await follow(checkBackbone(chosen), output)
  const { id, architecture, textLength } = found.backbone as Record<string, unknown>
  output.line(`backbone  ${id}, ${architecture}, ${found.parameters} parameters, captions of ${textLength} tokens`)
  output.line(`hooks     ${found.hooks.join(' ')}`)
  for (const [text, logit] of found.logits)
    output.line(`logit     ${logit.toFixed(4)} of a red disc and ${JSON.stringify(text)}`)
  for (const { name, passed, found: what, expected } of found.checks) {
    output.line(`${(passed ? 'ok' : 'WRONG').padEnd(9)} ${name}: ${what}${passed ? '' : `, expected ${expected}`}`)
  }
  output.result(found)
  const wrong = found.checks.filter((check) => !check.passed)
  if (wrong.length > 0) {
    throw new LucidError('E_BACKBONE', `${wrong.length} of ${found.checks.length} checks of ${id} failed`, {
      details: { found: wrong.map((check) => check.name) },
      hint: 'compare the files with their source; with --image give the checkpoint and the photo that belong together',
    })
  }
}

/** A small step on a GPU; a difference beyond rounding makes the command fail. */
function testGpu(choice: unknown, output: Output): ReturnType<typeof testDevice> {
  const result = testDevice(choice === true ? 'cuda' : (choice as DeviceChoice))
  for (const { name, error, tolerance, passed } of result.checks) {
    const found = error === null ? 'no number' : error.toExponential(1)
    const verdict = (passed ? 'ok' : 'WRONG').padEnd(9)
    output.line(`${verdict} ${name}: ${found} of ${tolerance.toExponential(0)} allowed`)
  }
  const wrong = result.checks.filter((check) => !check.passed).length
  if (wrong > 0) {
    throw new LucidError('E_DEVICE', `${wrong} of ${result.checks.length} results of ${result.device} are wrong`, {
      details: { found: result.checks.filter((check) => !check.passed).map((check) => check.name) },
      hint: "use device 'cpu', and report this with the lines above",
    })
  }
  output.line(`${result.device} computes what the reference does`)
  return result
}

function cudaLine(cuda: CudaState): string {
  if (cuda.kind !== 'devices') return `${cuda.kind}: ${cuda.reason}`
  const usable = cuda.devices.filter((found) => found.usable).length
  return `driver for CUDA ${cuda.driverVersion}, ${cuda.devices.length} device(s), ${usable} usable`
}
