import type { ExtractionSummary } from '../extract.js'
import type { ActivationStore } from '../store.js'
import { number, type Output } from './output.js'

/** Shows a store that a command has just written, and what an extraction did. */
export function showStore(store: ActivationStore, output: Output): void {
  const { path, pairs, dVision, dText, meta, extraction } = store
  output.line(`${pairs} pairs, ${dVision} × ${dText} wide, in ${path}`)
  for (const other of extraction?.stores.slice(1) ?? []) output.line(`and the same pairs at other hooks in ${other}`)
  for (const line of extraction ? extractionLines(extraction) : []) output.line(line)
  output.result({ store: path, pairs, dVision, dText, meta, ...(extraction ? { extraction } : {}) })
}

/** Speed, the stage that limits it, and what was left out. */
function extractionLines({ imagesPerSecond, limit, pairs, resumed, skipped, stages }: ExtractionSummary): string[] {
  const seconds = (['preparing', 'forward', 'writing'] as const).map((stage) => `${stage} ${number(stages[stage])} s`)
  const lines = resumed > 0 ? [`${resumed} of them were there from an earlier run`] : []
  if (pairs > resumed)
    lines.push(`${number(imagesPerSecond)} images/s, limited by ${limit} (${seconds.join(', ')}, side by side)`)
  if (skipped.length > 0) lines.push(`${skipped.length} left out, listed with their reasons in skipped.jsonl`)
  return lines
}
