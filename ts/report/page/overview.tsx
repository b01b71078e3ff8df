/** What was trained, the numbers beside their controls, the curves, and where to look first. */

import type { ReportData, ReportNumber } from '../schema.js'
import { Curves } from './curves.js'

const show = (value: number): string => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3))

function Numbers({ numbers }: { numbers: ReportNumber[] }) {
  return (
    <table class="numbers">
      <thead>
        <tr>
          <th scope="col">measure</th>
          <th scope="col">this model</th>
          <th scope="col">controls</th>
          <th scope="col">what it says</th>
        </tr>
      </thead>
      <tbody>
        {numbers.map((number) => (
          <tr key={number.name}>
            <th scope="row">{number.name}</th>
            <td class="figure">{show(number.value)}</td>
            <td>
              {number.controls.map((control) => (
                <div key={control.name} class="control">
                  <span class="figure">{show(control.value)}</span> {control.name}
                </div>
              ))}
            </td>
            <td class="meaning">{number.meaning}</td>
          </tr>
        ))}
      </tbody>
    </table>
  )
}

/** The first page. */
export function Overview({ data }: { data: ReportData }) {
  const named = data.latents.filter((latent) => latent.label !== null).length
  return (
    <main>
      <h1>{data.title}</h1>
      {data.notes.map((note) => (
        <p class="note" key={note}>
          {note}
        </p>
      ))}
      <dl class="facts">
        {data.facts.map((fact) => (
          <div key={fact.name}>
            <dt>{fact.name}</dt>
            <dd>{fact.value}</dd>
          </div>
        ))}
        <div>
          <dt>named latents</dt>
          <dd>
            {named} of {data.latents.length} shared
          </dd>
        </div>
      </dl>
      <section>
        <h2>Look here first</h2>
        <p class="chips">
          {data.start.latents.map((index) => {
            const latent = data.latents.find((candidate) => candidate.latent === index)
            return (
              <a class="chip" key={index} href={`#/latent/${index}`}>
                {latent?.label ?? `latent ${index}`}
              </a>
            )
          })}
          {data.start.concepts.map((concept) => (
            <a class="chip quiet" key={concept} href={`#/concept/${encodeURIComponent(concept)}`}>
              “{concept}”
            </a>
          ))}
        </p>
      </section>
      {data.numbers.length > 0 && (
        <section>
          <h2>Numbers beside their controls</h2>
          <Numbers numbers={data.numbers} />
        </section>
      )}
      <section class="curves">
        <Curves
          title="Losses"
          axis="log"
          steps={data.curves}
          names={['selfVision', 'selfText', 'crossVision', 'crossText', 'alignVision', 'alignText', 'ot', 'aux']}
        />
        <Curves title="Joint R² of the batch" axis={[-0.2, 1]} steps={data.curves} names={['r2Vision', 'r2Text']} />
      </section>
      {data.stages.length > 0 && (
        <section>
          <h2>Time</h2>
          <table class="narrow">
            <tbody>
              {data.stages.map((stage) => (
                <tr key={stage.name}>
                  <th scope="row">{stage.name}</th>
                  <td class="figure">{stage.seconds.toFixed(1)} s</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
      <details>
        <summary>Every value of the configuration</summary>
        <table class="narrow">
          <tbody>
            {Object.entries(data.config).map(([name, value]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td class="figure">{typeof value === 'object' ? JSON.stringify(value) : String(value)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </main>
  )
}
