/** Training curves, drawn by uPlot. */

import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import type { ReportStep } from '../schema.js'

const COLOURS = ['#2f6fdf', '#d1495b', '#3a9d5d', '#b07d12', '#8457c9', '#0f8b8d', '#c0588f', '#6b7280']

/** Lines are told apart without colour too. */
const DASHES = [[], [6, 3], [2, 2], [9, 3, 2, 3]]

/** What the lines are called; others keep the name of the log. */
const LABELS: { [name: string]: string } = {
  selfVision: 'patches, self',
  selfText: 'tokens, self',
  crossVision: 'patches from words',
  crossText: 'words from patches',
  alignVision: 'align, patches',
  alignText: 'align, tokens',
  ot: 'transport cost',
  aux: 'auxiliary',
  r2Vision: 'patches',
  r2Text: 'tokens',
  sharedPatches: 'shared, patches',
  sharedTokens: 'shared, tokens',
  privatePatches: 'private, patches',
  privateTokens: 'private, tokens',
}
const label = (name: string): string => LABELS[name] ?? name

/** Props of {@link Curves}. */
export interface CurvesProps {
  title: string
  steps: ReportStep[]
  /** Values drawn, where the steps have them. */
  names: string[]
  /** How the vertical axis runs: by powers of ten (values of 0 are left out), from 0, or over a fixed range. */
  axis: 'log' | 'count' | [low: number, high: number]
  /** Whether lines that are 0 throughout are drawn too. */
  always?: boolean
}

/** One chart over steps: a line for each named value. */
export function Curves({ title, steps, names, axis: vertical, always = false }: CurvesProps) {
  const box = useRef<HTMLDivElement>(null)
  // A loss that is 0 throughout is switched off.
  const present = names.filter((name) => steps.some((step) => step[name] !== undefined && (always || step[name] !== 0)))
  useEffect(() => {
    const parent = box.current
    if (!parent || present.length === 0) return
    const ink = getComputedStyle(parent).color
    const axis = { stroke: ink, grid: { stroke: 'rgba(128,128,128,.2)' }, ticks: { stroke: 'rgba(128,128,128,.2)' } }
    const series = present.map((name, i) => ({
      label: label(name),
      stroke: COLOURS[i % COLOURS.length] ?? ink,
      width: 1.5,
      dash: DASHES[i % DASHES.length] ?? [],
    }))
    const options: uPlot.Options = {
      width: Math.max(280, parent.clientWidth),
      height: 230,
      scales: { x: { time: false }, y: scaleOf(vertical) },
      series: [{ label: 'step' }, ...series],
      axes: [axis, axis],
    }
    const drawn = (value: number | undefined): number | null =>
      value === undefined || (vertical === 'log' && value <= 0) ? null : value
    const rows = present.map((name) => steps.map((step) => drawn(step[name])))
    const chart = new uPlot(options, [steps.map((step) => step.step), ...rows], parent)
    return () => chart.destroy()
  }, [steps])
  if (present.length === 0) return null
  if (always && present.every((name) => steps.every((step) => (step[name] ?? 0) === 0))) {
    return (
      <section class="curve">
        <h3>{title}</h3>
        <p class="quiet">None at any step.</p>
      </section>
    )
  }
  return (
    <section class="curve">
      <h3>{title}</h3>
      <div ref={box} role="img" aria-label={spoken(title, steps, present)} />
    </section>
  )
}

function scaleOf(vertical: CurvesProps['axis']): uPlot.Scale {
  if (vertical === 'log') return { distr: 3 }
  // A count of nothing has an axis too.
  if (vertical === 'count') return { range: (_, __, high) => [0, Math.max(1, high * 1.05)] }
  return { range: vertical }
}

/** First and last value of every line, for who cannot see it. */
function spoken(title: string, steps: ReportStep[], names: string[]): string {
  const [first, last] = [steps[0], steps[steps.length - 1]]
  const value = (step: ReportStep | undefined, name: string): string => step?.[name]?.toPrecision(3) ?? 'nothing'
  return `${title}: ${names.map((name) => `${label(name)} from ${value(first, name)} to ${value(last, name)}`).join(', ')}`
}
