// Draws the curves of a training of the mini backbone: `node scripts/mini-curves.mjs LOG.jsonl OUT.svg`, LOG.jsonl being what `train_mini`
// writes. Above the losses, below the one-word swaps on 256 scenes; grey lines are where a stage begins.
import { readFileSync, writeFileSync } from 'node:fs'

const [from, to] = process.argv.slice(2)
if (!to) throw new Error('usage: node scripts/mini-curves.mjs LOG.jsonl OUT.svg')
const lines = readFileSync(from, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line))
const steps = lines.filter((line) => 'pairs' in line)
const swaps = lines.filter((line) => line.swaps === 'scenes')
const last = steps.at(-1).step

const LOSSES = [
  ['pairs', 'pairs (sigmoid)', '#1f77b4'],
  ['bag', 'bag of words', '#2ca02c'],
  ['word_pairs', 'word pairs (mean of picture and caption)', '#9467bd', 0.5],
  ['local', 'words find their patches', '#ff7f0e'],
  ['rank', 'own above false captions', '#d62728'],
]
const KINDS = {
  background: '#7f7f7f',
  color: '#d62728',
  size: '#9467bd',
  pattern: '#2ca02c',
  shape: '#1f77b4',
  count: '#ff7f0e',
  relation: '#8c564b',
}
/** Steps of the log that a point of a loss averages, to either side: batches differ more than neighbouring steps do. */
const AROUND = 4

const x = (step) => 50 + (700 * step) / last
const scale = (low, high, bottom, top) => (value) =>
  bottom - ((bottom - top) * (Math.min(Math.max(value, low), high) - low)) / (high - low)
const loss = scale(0, 6, 270, 20)
const share = scale(0.35, 1, 570, 320)
const line = (points, color) =>
  `<polyline fill="none" stroke="${color}" stroke-width="1.5" points="${points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(' ')}"/>`
const rule = (value, at, left) =>
  `<text x="${left}" y="${at + 4}" fill="#555">${value}</text><line x1="46" x2="750" y1="${at}" y2="${at}" stroke="#eee"/>`

const out = [
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 600" font-family="sans-serif" font-size="11"><title>Losses and one-word swaps by training step</title><rect width="760" height="600" fill="#fff"/>',
]
steps.forEach(({ step, stage }, i) => {
  if (i > 0 && steps[i - 1].stage !== stage)
    out.push(`<line x1="${x(step).toFixed(1)}" x2="${x(step).toFixed(1)}" y1="10" y2="570" stroke="#ddd"/>`)
})
for (const value of [0, 1, 2, 3, 4, 5, 6]) out.push(rule(value, Math.round(loss(value)), 30))
LOSSES.forEach(([key, name, color, factor = 1], row) => {
  const points = steps.map(({ step }, i) => {
    const near = steps.slice(Math.max(0, i - AROUND), i + AROUND + 1)
    return [x(step), loss((factor * near.reduce((sum, s) => sum + s[key], 0)) / near.length)]
  })
  out.push(line(points, color), `<text x="430" y="${26 + 15 * row}" fill="${color}">${name}</text>`)
})
for (const value of [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]) out.push(rule(value.toFixed(1), Math.round(share(value)), 24))
Object.entries(KINDS).forEach(([kind, color], column) => {
  const points = swaps.map(({ step, accuracy }) => [x(step), share(accuracy[kind])])
  out.push(line(points, color), `<text x="${60 + 95 * column}" y="592" fill="${color}">${kind}</text>`)
})
out.push(
  '<text x="60" y="304" fill="#333">one-word swaps on 256 scenes (chance 0.5), by step; above: losses; grey: stages</text></svg>',
)
writeFileSync(to, out.join('\n'))
