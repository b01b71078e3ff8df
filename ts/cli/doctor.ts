import { createRequire } from 'node:module'
import type { Command } from 'commander'
import { type CudaState, type DeviceChoice, device, testDevice } from '../device.js'
import { LucidError } from '../errors.js'
import { action } from './commands.js'
import { addCommonOptions } from './options.js'
import type { Output } from './output.js'
import { version } from './version.js'

/** `lucid-sae doctor`: what this machine offers and what is used. */
export function addDoctor(root: Command): void {
  const command = root.command('doctor').description('what this machine offers, what is used, and why')
  command.option('--gpu [device]', "compute a small step on a CUDA device ('cuda', 'cuda:1') and compare it")
  addCommonOptions(command)
  action(command, async ({ options }, output) => {
    const report = device()
    const packageVersion = version()
    const addon = createRequire(import.meta.url).resolve('../../native/index.cjs')
    output.line(`lucid-sae ${packageVersion}, Node ${process.versions.node}`)
    output.line(`addon     ${addon}`)
    output.line(
      `cpu       ${report.cpu.os} ${report.cpu.arch}, ${report.cpu.threads} threads, ${report.cpu.features.join(' ')}`,
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
