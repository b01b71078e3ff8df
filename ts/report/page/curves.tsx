/** Training curves, drawn by uPlot. */

import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import type { ReportStep } from '../schema.js'

const COLOURS = ['#2f6fdf', '#d1495b', '#3a9d5d', '#b07d12', '#8457c9', '#0f8b8d', '#c0588f', '#6b7280']

/** One chart over steps: a line for each named value that the steps have. */
export function Curves({ title, steps, names }: { title: string; steps: ReportStep[]; names: string[] }) {
  const box = useRef<HTMLDivElement>(null)
  const present = names.filter((name) => steps.some((step) => Number.isFinite(step[name])))
  useEffect(() => {
    const parent = box.current
    if (!parent || present.length === 0) return
    const ink = getComputedStyle(parent).color
    const axis = { stroke: ink, grid: { stroke: 'rgba(128,128,128,.2)' }, ticks: { stroke: 'rgba(128,128,128,.2)' } }
    const series = present.map((name, i) => ({ label: name, stroke: COLOURS[i % COLOURS.length] ?? ink, width: 1.5 }))
    const options: uPlot.Options = {
      width: Math.max(280, parent.clientWidth),
      height: 230,
      scales: { x: { time: false } },
      series: [{ label: 'step' }, ...series],
      axes: [axis, axis],
    }
    const rows = present.map((name) => steps.map((step) => step[name] ?? null))
    const chart = new uPlot(options, [steps.map((step) => step.step), ...rows], parent)
    return () => chart.destroy()
  }, [steps])
  if (present.length === 0) return null
  return (
    <section class="curve">
      <h3>{title}</h3>
      <div ref={box} />
    </section>
  )
}
