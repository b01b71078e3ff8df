/** Two runs side by side. */

import type { ReportData } from '../schema.js'
import { show } from './overview.js'

/** Numbers of both with their difference, and the values of the configuration in which they differ. */
export function Compare({ data }: { data: ReportData }) {
  if ('reason' in data.compare) {
    return (
      <main>
        <h1>Compare</h1>
        <p class="empty">There is nothing to compare with: {data.compare.reason}.</p>
      </main>
    )
  }
  const { title, numbers, config } = data.compare
  const other = new Map(numbers.map((number) => [number.name, number]))
  const text = (value: unknown): string => (typeof value === 'object' ? JSON.stringify(value) : String(value))
  const names = [...new Set([...Object.keys(data.config), ...Object.keys(config)])].filter(
    (name) => name in data.meanings,
  )
  const differing = names.filter((name) => text(data.config[name]) !== text(config[name]))
  return (
    <main>
      <h1>Compare</h1>
      <p class="lead">
        This run beside {title}. A difference is worth looking at where the intervals of the two do not meet.
      </p>
      <table class="numbers">
        <thead>
          <tr>
            <th scope="col">measure</th>
            <th scope="col">this run</th>
            <th scope="col">{title}</th>
            <th scope="col">difference</th>
          </tr>
        </thead>
        <tbody>
          {data.numbers.map((number) => {
            const found = other.get(number.name)
            const interval = (of: typeof number | undefined) =>
              of?.interval && (
                <div class="interval">
                  {show(of.interval[0])} … {show(of.interval[1])}
                </div>
              )
            return (
              <tr key={number.name}>
                <th scope="row">{number.name}</th>
                <td class="figure">
                  {show(number.value)}
                  {interval(number)}
                </td>
                <td class="figure">
                  {found ? show(found.value) : <span class="quiet">not measured</span>}
                  {interval(found)}
                </td>
                <td class="figure">{found ? signed(number.value - found.value) : '–'}</td>
              </tr>
            )
          })}
          {numbers
            .filter(({ name }) => !data.numbers.some((number) => number.name === name))
            .map((number) => (
              <tr key={number.name}>
                <th scope="row">{number.name}</th>
                <td class="figure">
                  <span class="quiet">not measured</span>
                </td>
                <td class="figure">{show(number.value)}</td>
                <td class="figure">–</td>
              </tr>
            ))}
        </tbody>
      </table>
      {Object.keys(config).length > 0 && (
        <section>
          <h2>What they differ in</h2>
          {differing.length === 0 ? (
            <p class="empty">nothing of the configuration</p>
          ) : (
            <table class="narrow">
              <thead>
                <tr>
                  <th scope="col">field</th>
                  <th scope="col">this run</th>
                  <th scope="col">{title}</th>
                </tr>
              </thead>
              <tbody>
                {differing.map((name) => (
                  <tr key={name}>
                    <th scope="row">{name}</th>
                    <td class="figure">{text(data.config[name])}</td>
                    <td class="figure">{text(config[name])}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </section>
      )}
    </main>
  )
}

const signed = (value: number): string => `${value < 0 ? '−' : '+'}${show(Math.abs(value))}`
