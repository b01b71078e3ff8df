/** A picture under its heat map, with the peak patch boxed, and the crop of that patch. */

import { useEffect, useRef } from 'preact/hooks'
import type { ReportHit, ReportImage } from '../schema.js'

/** Stops of the perceptually uniform ramp “inferno” (matplotlib, CC0), dark to bright. */
const RAMP: readonly (readonly [number, number, number])[] = [
  [0, 0, 4],
  [40, 11, 84],
  [101, 21, 110],
  [159, 42, 99],
  [212, 72, 66],
  [245, 125, 21],
  [250, 193, 39],
  [252, 255, 164],
]

/** Colour of a value in [0, 1]. */
export function ramp(value: number): [number, number, number] {
  const position = Math.min(Math.max(value, 0), 1) * (RAMP.length - 1)
  const low = RAMP[Math.floor(position)] ?? [0, 0, 0]
  const high = RAMP[Math.ceil(position)] ?? low
  const part = position - Math.floor(position)
  return [0, 1, 2].map((i) => Math.round((low[i] ?? 0) * (1 - part) + (high[i] ?? 0) * part)) as [
    number,
    number,
    number,
  ]
}

/** Bytes of a base64 heat map. */
export function decodeHeat(heat: string): Uint8Array {
  return Uint8Array.from(atob(heat), (character) => character.charCodeAt(0))
}

/** Paints the heat map at one pixel per patch; the browser scales it smoothly. */
export function paintHeat(canvas: HTMLCanvasElement, heat: string, [rows, columns]: [number, number]): void {
  canvas.width = columns
  canvas.height = rows
  const context = canvas.getContext('2d')
  if (!context) return
  const values = decodeHeat(heat)
  const pixels = context.createImageData(columns, rows)
  for (let patch = 0; patch < rows * columns; patch += 1) {
    const value = (values[patch] ?? 0) / 255
    const [red, green, blue] = ramp(value)
    // Cold patches stay transparent, so that the picture remains readable.
    pixels.data.set([red, green, blue, Math.round(215 * value ** 0.7)], patch * 4)
  }
  context.putImageData(pixels, 0, 0)
}

const percent = (part: number, whole: number): string => `${(100 * part) / whole}%`

const CROP = 3
/** Size of the whole picture behind the crop, in percent of the crop. */
const zoom = (cells: number): number => (100 * cells) / Math.min(CROP, cells)
/** Position of a crop around cell `at` in CSS terms: 0 % is the first cells, 100 % the last. */
const offset = (at: number, cells: number): number =>
  cells > CROP ? (100 * Math.min(Math.max(at - 1, 0), cells - CROP)) / (cells - CROP) : 0

/** Props of {@link HeatPicture}. */
export interface HeatPictureProps {
  image: ReportImage
  hit: ReportHit
  /** What the heat shows, for people who do not see it. */
  subject: string
  showHeat: boolean
}

/** One picture with heat map, boxed peak, crop and caption. */
export function HeatPicture({ image, hit, subject, showHeat }: HeatPictureProps) {
  const canvas = useRef<HTMLCanvasElement>(null)
  const [rows, columns] = image.grid
  const [row, column] = hit.peak
  useEffect(() => {
    if (canvas.current) paintHeat(canvas.current, hit.heat, image.grid)
  }, [hit, image])
  // The crop shows the peak patch and its neighbours, three patches a side; at an edge it stays inside the picture.
  const crop = {
    backgroundImage: `url("${encodeURI(image.file)}")`,
    backgroundSize: `${zoom(columns)}% ${zoom(rows)}%`,
    backgroundPosition: `${offset(column, columns)}% ${offset(row, rows)}%`,
  }
  const alt = `${image.key}: ${subject} peaks in row ${row + 1}, column ${column + 1} with ${hit.value.toFixed(2)}`
  return (
    <figure class="picture">
      <div class="frame">
        <img src={image.file} alt={alt} loading="lazy" />
        <canvas ref={canvas} class={showHeat ? 'heat' : 'heat hidden'} />
        <div
          class="peak"
          style={{
            left: percent(column, columns),
            top: percent(row, rows),
            width: percent(1, columns),
            height: percent(1, rows),
          }}
        />
      </div>
      <div class="below">
        <div class="crop" style={crop} role="img" aria-label="the peak patch and its neighbours" />
        <figcaption>
          <span class="value">{hit.value.toFixed(2)}</span> {image.caption}
        </figcaption>
      </div>
    </figure>
  )
}
