/** What was trained, the numbers beside their controls, the curves, and where to look first. */

import { useEffect, useRef, useState } from 'preact/hooks'
import type { ReportData, ReportHit, ReportNumber } from '../schema.js'
import { conceptLink } from './concepts.js'
import { Curves } from './curves.js'
import { latentDetail } from './data.js'
import { paintHeat } from './heat.js'

/** A number for people: three decimals, none above a hundred. */
export const show = (value: number): string => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3))

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
            <td class="figure">
              {show(number.value)}
              {number.interval && (
                <div class="interval">
                  {show(number.interval[0])} … {show(number.interval[1])}
                </div>
              )}
            </td>
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

/** What may be wrong with the model, in sentences, and what was looked at and is right. */
function health({ evaluation, latents }: ReportData): { faults: string[]; right: string[] } {
  const faults: string[] = []
  const right = new Set<string>()
  const few: string[] = []
  for (const modality of ['vision', 'text'] as const) {
    const dead = evaluation?.sparsity?.[modality]?.dead.shared
    if (dead === undefined) continue
    const where = modality === 'vision' ? 'patch' : 'token'
    if (dead > latents.length / 4) {
      faults.push(`${dead} of ${latents.length} shared latents fire on no ${where} of the evaluation set.`)
    } else few.push(`${dead} on no ${where}`)
  }
  if (few.length > 0) right.add(`few dead latents (of ${latents.length} fire ${few.join(', ')})`)
  for (const [way, where] of [
    ['t2i', 'tokens'],
    ['i2t', 'patches'],
  ] as const) {
    const busiest = evaluation?.maxfreq?.[way]
    if (busiest === undefined) continue
    if (busiest > 0.9) {
      faults.push(
        `One shared latent fires on ${(100 * busiest).toFixed(0)} % of ${where}: it stands for nothing in particular.`,
      )
    } else right.add(`no latent that fires on nearly all ${where}`)
  }
  for (const [direction, name] of [
    ['t2v', 'words explain patches'],
    ['v2t', 'patches explain words'],
  ] as const) {
    const cross = evaluation?.cross?.[direction]
    const other = cross?.controls.shuffledCaption
    if (!cross || other === undefined) continue
    if (cross.shared - other < 0.02) {
      faults.push(`That ${name} hardly depends on which caption it is: another pair’s explains as much.`)
    } else right.add(`${name} better with the right caption than with another`)
  }
  return { faults, right: [...right] }
}

/** Latents that the first page shows with a picture. */
const CARDS = 10

/** A latent by its strongest picture. */
function Card({ data, index }: { data: ReportData; index: number }) {
  const position = data.latents.findIndex((candidate) => candidate.latent === index)
  const canvas = useRef<HTMLCanvasElement>(null)
  const [hit, setHit] = useState<ReportHit>()
  useEffect(() => {
    let current = true
    // Without its details the card is still a link.
    latentDetail(data, position).then(
      (detail) => current && setHit(detail?.hits[0]),
      () => undefined,
    )
    return () => {
      current = false
    }
  }, [data, position])
  const image = hit && data.images[hit.image]
  useEffect(() => {
    if (canvas.current && hit && image) paintHeat(canvas.current, hit.heat, image.grid)
  }, [hit, image])
  const label = data.latents[position]?.label ?? `latent ${index}`
  return (
    <li>
      <a class="tile" href={`#/latent/${index}`}>
        <div class="frame">
          {image && <img src={image.file} alt="" loading="lazy" />}
          <canvas ref={canvas} class="heat" />
        </div>
        <span class="card-name">{label}</span>
      </a>
    </li>
  )
}

function Health({ data }: { data: ReportData }) {
  if (!data.evaluation) return null
  const { faults, right } = health(data)
  if (faults.length + right.length === 0) return null
  return (
    <section>
      <h2>Health</h2>
      {faults.length === 0 ? (
        <p class="good">Nothing looks wrong: {right.join('; ')}.</p>
      ) : (
        <ul class="faults">
          {faults.map((fault) => (
            <li key={fault}>{fault}</li>
          ))}
        </ul>
      )}
    </section>
  )
}

/** How far the run is that this page follows. */
function Watching({ watching }: { watching: NonNullable<ReportData['watching']> }) {
  const { step, steps, done, at } = watching
  const time = new Date(at).toLocaleTimeString()
  return (
    <section>
      <h2>{done ? 'Trained' : 'In training'}</h2>
      {steps > 0 && <progress class="run" max={steps} value={step} aria-label="steps taken" />}
      <p aria-live="polite">
        {steps > 0 ? `step ${step} of ${steps}` : 'waiting for the first step'}, as of {time}
        {done ? '. Interpret the model to see what its latents mean.' : '; this page follows by itself.'}
      </p>
    </section>
  )
}

/** What was asked for and could not be measured, with the reasons. */
function Skipped({ data }: { data: ReportData }) {
  const skipped = Object.entries(data.evaluation?.skipped ?? {})
  if (skipped.length === 0) return null
  return (
    <section>
      <h2>Not measured</h2>
      <dl class="skipped">
        {skipped.map(([path, reason]) => (
          <div key={path}>
            <dt>
              <code>{path}</code>
            </dt>
            <dd>{reason}</dd>
          </div>
        ))}
      </dl>
    </section>
  )
}

/** Names of the curves of dead latents, as the log has them. */
const DEAD = ['sharedPatches', 'sharedTokens', 'privatePatches', 'privateTokens']

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
        {data.latents.length > 0 && (
          <div>
            <dt>named latents</dt>
            <dd>
              {named} of {data.latents.length} shared
            </dd>
          </div>
        )}
      </dl>
      {data.watching && <Watching watching={data.watching} />}
      <Health data={data} />
      {data.latents.length > 0 && (
        <section>
          <h2>Look here first</h2>
          <ul class="tiles cards">
            {data.start.latents.slice(0, CARDS).map((index) => (
              <Card key={index} data={data} index={index} />
            ))}
          </ul>
          <p class="chips">
            {data.start.latents.slice(CARDS).map((index) => {
              const latent = data.latents.find((candidate) => candidate.latent === index)
              return (
                <a class="chip" key={index} href={`#/latent/${index}`}>
                  {latent?.label ?? `latent ${index}`}
                </a>
              )
            })}
            {data.start.concepts.map((concept) => (
              <a class="chip quiet" key={concept} href={conceptLink(concept)}>
                “{concept}”
              </a>
            ))}
          </p>
        </section>
      )}
      {data.numbers.length > 0 && (
        <section>
          <h2>Numbers beside their controls</h2>
          <p class="quiet">
            Below a number its 95 % interval over images. <a href="#/method">What the words mean</a>
          </p>
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
        <Curves title="Dead latents" axis="count" steps={data.curves} names={DEAD} always />
      </section>
      <Skipped data={data} />
    </main>
  )
}
