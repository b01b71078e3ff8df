import { createRequire } from 'node:module'
import type { Command } from 'commander'
import { type CudaState, device } from '../device.js'
import { action } from './commands.js'
import { addCommonOptions } from './options.js'
import { version } from './version.js'

/** `lucid-sae doctor`: what this machine offers and what is used. */
export function addDoctor(root: Command): void {
  const command = root.command('doctor').description('what this machine offers, what is used, and why')
  addCommonOptions(command)
  action(command, async (_given, output) => {
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
    output.result({ version: packageVersion, node: process.versions.node, addon, ...report })
  })
}

function cudaLine(cuda: CudaState): string {
  if (cuda.kind !== 'devices') return `${cuda.kind}: ${cuda.reason}`
  const usable = cuda.devices.filter((found) => found.usable).length
  return `driver for CUDA ${cuda.driverVersion}, ${cuda.devices.length} device(s), ${usable} usable`
}
