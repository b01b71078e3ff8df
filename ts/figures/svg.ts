import { png } from './png.js'

/** Text that may stand in XML: no markup, and no character that XML 1.0 forbids. */
export function xml(text: string): string {
  return [...text]
    .filter((character) => {
      const code = character.codePointAt(0) as number
      return code === 9 || code >= 0x20 ? code < 0xd800 || (code > 0xdfff && code !== 0xfffe && code !== 0xffff) : false
    })
    .join('')
    .replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}

/** Text of at most `length` characters. */
export const short = (text: string, length: number): string => {
  const characters = [...text]
  return characters.length <= length ? text : `${characters.slice(0, length - 1).join('')}…`
}

const GREEN = [0x16, 0xd9, 0x4c] as const
const MOST_OPAQUE = 190

/** A heat map as a picture of one pixel a patch: green, the more opaque the hotter. */
function overlay(heat: Float32Array, [rows, columns]: readonly [number, number]): Buffer {
  const largest = heat.reduce((most, value) => Math.max(most, value), 0)
  const pixels = new Uint8Array(4 * rows * columns)
  for (let patch = 0; patch < rows * columns; patch += 1) {
    const share = largest > 0 ? Math.max(heat[patch] ?? 0, 0) / largest : 0
    pixels.set([...GREEN, Math.round(MOST_OPAQUE * share)], 4 * patch)
  }
  return png(pixels, columns, rows)
}

const dataUri = (bytes: Uint8Array, type: string): string =>
  `data:image/${type};base64,${Buffer.from(bytes).toString('base64')}`

/** A picture with what is laid over it. */
export interface Tile {
  readonly picture: Uint8Array | undefined
  readonly grid: readonly [rows: number, columns: number]
  readonly heat?: Float32Array
  /** Row and column of the patch to box in red. */
  readonly peak?: readonly [row: number, column: number]
  /** What it shows, for people who do not see it. */
  readonly alt: string
}

const at = (value: number): string => String(Number(value.toFixed(2)))

/** A square at (x, y): the picture squashed to it, as the backbone saw it, under its heat map and the box of its peak. */
export function tile({ picture, grid, heat, peak, alt }: Tile, x: number, y: number, side: number): string {
  const place = `x="${at(x)}" y="${at(y)}" width="${at(side)}" height="${at(side)}"`
  const image = (bytes: Uint8Array, type: string): string =>
    `<image ${place} preserveAspectRatio="none" href="${dataUri(bytes, type)}"/>`
  const cell = { width: side / grid[1], height: side / grid[0] }
  const box = peak
    ? `<rect x="${at(x + peak[1] * cell.width)}" y="${at(y + peak[0] * cell.height)}" width="${at(cell.width)}" height="${at(cell.height)}" fill="none" stroke="#e0001b" stroke-width="2"/>`
    : ''
  return [
    `<g role="img" aria-label="${xml(alt)}">`,
    picture ? image(picture, 'jpeg') : `<rect ${place} fill="#999"/>`,
    heat ? image(overlay(heat, grid), 'png') : '',
    box,
    '</g>',
  ].join('')
}

/** Patches along one side of a crop. */
const CROP = 3

/** The patch `peak` and its neighbours, cut out of the picture and enlarged to a square; at an edge it stays inside. */
export function crop({ picture, grid, peak = [0, 0], alt }: Tile, x: number, y: number, side: number): string {
  const [rows, columns] = grid
  const cells = [Math.min(CROP, rows), Math.min(CROP, columns)] as const
  const first = (position: number, count: number, all: number): number =>
    Math.min(Math.max(position - 1, 0), Math.max(all - count, 0))
  const [row, column] = [first(peak[0], cells[0], rows), first(peak[1], cells[1], columns)]
  const content = picture
    ? `<image width="${columns}" height="${rows}" preserveAspectRatio="none" href="${dataUri(picture, 'jpeg')}"/>`
    : `<rect width="${columns}" height="${rows}" fill="#999"/>`
  const view = `viewBox="${column} ${row} ${cells[1]} ${cells[0]}" preserveAspectRatio="none"`
  const place = `x="${at(x)}" y="${at(y)}" width="${at(side)}" height="${at(side)}"`
  return `<svg ${place} ${view} overflow="hidden" role="img" aria-label="${xml(alt)}">${content}</svg>`
}

/** A line of text. */
export function text(content: string, x: number, y: number, style: 'title' | 'head' | 'label' | 'small'): string {
  return `<text x="${at(x)}" y="${at(y)}" class="${style}">${xml(content)}</text>`
}

const STYLE = [
  'text{font-family:"Helvetica Neue",Helvetica,Arial,"Liberation Sans",sans-serif;fill:#1a1a1a}',
  '.title{font-size:17px;font-weight:600}',
  '.head{font-size:14px;font-weight:600}',
  '.label{font-size:12px}',
  '.small{font-size:11px;fill:#555}',
].join('')

/** A drawing of its own: nothing is loaded from anywhere. */
export function drawing(title: string, width: number, height: number, content: readonly string[]): string {
  const size = `width="${at(width)}" height="${at(height)}" viewBox="0 0 ${at(width)} ${at(height)}"`
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img" aria-label="${xml(title)}">`,
    `<title>${xml(title)}</title><style>${STYLE}</style>`,
    `<rect width="${at(width)}" height="${at(height)}" fill="#fff"/>`,
    ...content,
    '</svg>',
    '',
  ].join('\n')
}
