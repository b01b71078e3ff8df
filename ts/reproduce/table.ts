/** A table as data: cells keep their numbers, and text is made of them last. */

import type { Summary } from './statistics.js'

/** A cell: a number over seeds, a published number, words, or nothing with its reason. */
export type Cell =
  | { readonly kind: 'ours'; readonly value: Summary }
  | { readonly kind: 'published'; readonly value: number }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'absent'; readonly reason: string }

/** A column. */
export interface Column {
  readonly name: string
  /** Which way is better; the best number of our own rows is set in bold. */
  readonly better?: 'up' | 'down'
}

/** A row; a control is no contender for the best number. */
export interface Row {
  readonly name: string
  readonly control?: boolean
  readonly cells: readonly Cell[]
}

/** A table with what a reader must know about it. */
export interface Table {
  readonly id: string
  readonly title: string
  readonly columns: readonly Column[]
  readonly rows: readonly Row[]
  readonly notes: readonly string[]
}

/** The cell of a number that may not be there. */
export const ours = (value: Summary | undefined, reason = 'not computed'): Cell =>
  value === undefined ? { kind: 'absent', reason } : { kind: 'ours', value }

/** The cell of a published number, where there is one. */
export const published = (value: number | undefined): Cell =>
  value === undefined ? { kind: 'absent', reason: 'not published' } : { kind: 'published', value }

/** A cell of words. */
export const words = (text: string): Cell => ({ kind: 'text', text })

/** Rows whose own number of a column is the best. */
function bestRow(table: Table, column: number): number | undefined {
  const better = table.columns[column]?.better
  if (better === undefined) return undefined
  let best: number | undefined
  let value = better === 'up' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
  for (const [index, row] of table.rows.entries()) {
    const cell = row.cells[column]
    if (row.control || cell?.kind !== 'ours') continue
    if (better === 'up' ? cell.value.mean > value : cell.value.mean < value) {
      best = index
      value = cell.value.mean
    }
  }
  return best
}

/** How the parts of a cell are written in a language of text. */
interface Style {
  spread(mean: string, std: string | undefined): string
  bold(text: string): string
  published(text: string): string
  absent: string
  escape(text: string): string
}

const digits = (value: number): string => {
  if (Number.isInteger(value) && Math.abs(value) >= 10) return String(value)
  return Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(3)
}

function cellText(cell: Cell | undefined, best: boolean, style: Style): string {
  switch (cell?.kind) {
    case 'ours': {
      const { mean, std, values } = cell.value
      const text = style.spread(digits(mean), values.length > 1 ? digits(std) : undefined)
      return best ? style.bold(text) : text
    }
    case 'published':
      return style.published(cell.value.toFixed(4))
    case 'text':
      return style.escape(cell.text)
    default:
      return style.absent
  }
}

function texts(table: Table, style: Style): string[][] {
  const best = table.columns.map((_, column) => bestRow(table, column))
  return table.rows.map((row, index) => [
    style.escape(row.name),
    ...table.columns.map((_, column) => cellText(row.cells[column], best[column] === index, style)),
  ])
}

/** Why numbers are missing, each reason once. */
function missing(table: Table): string[] {
  const reasons = table.rows.flatMap(({ cells }) =>
    cells.flatMap((cell) => (cell.kind === 'absent' ? cell.reason : [])),
  )
  return [...new Set(reasons)].filter((reason) => reason !== 'not published')
}

const MARKDOWN: Style = {
  spread: (mean, std) => (std === undefined ? mean : `${mean} ± ${std}`),
  bold: (text) => `**${text}**`,
  published: (text) => `${text}†`,
  absent: '–',
  // Captions and labels are the user's: nothing in them may become markup.
  escape: (text) => text.replace(/[\\`*_{}[\]<>#|!]/g, (mark) => `\\${mark}`).replace(/[\r\n]+/g, ' '),
}

const arrow = { up: ' ↑', down: ' ↓' } as const

/** The table in Markdown. */
export function markdown(table: Table): string {
  const head = ['', ...table.columns.map(({ name, better }) => `${name}${better ? arrow[better] : ''}`)]
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  const usesPublished = table.rows.some(({ cells }) => cells.some(({ kind }) => kind === 'published'))
  return [
    `### ${table.title}`,
    '',
    line(head),
    `|---|${'--:|'.repeat(table.columns.length)}`,
    ...texts(table, MARKDOWN).map(line),
    '',
    ...table.notes.map((note) => `${usesPublished && note.startsWith('Published') ? '† ' : ''}${note}`),
    ...missing(table).map((reason) => `– ${reason}`),
    '',
  ].join('\n')
}

const TEX_MARKS: Readonly<Record<string, string>> = {
  '\\': '\\textbackslash{}',
  '~': '\\textasciitilde{}',
  '^': '\\textasciicircum{}',
  '→': '$\\rightarrow$',
  Δ: '$\\Delta$',
  '²': '$^2$',
  '−': '$-$',
  '≥': '$\\geq$',
  '±': '$\\pm$',
}

const LATEX: Style = {
  spread: (mean, std) => (std === undefined ? `$${mean}$` : `$${mean} \\pm ${std}$`),
  bold: (text) => `\\textbf{\\boldmath ${text}}`,
  published: (text) => `$${text}^\\dagger$`,
  absent: '--',
  escape: (text) =>
    text.replace(/[\\~^→Δ²−≥±&%$#_{}]/gu, (mark) => TEX_MARKS[mark] ?? `\\${mark}`).replace(/[\r\n]+/g, ' '),
}

/** The table in LaTeX (packages booktabs and graphicx). */
export function latex(table: Table): string {
  const tex = { up: ' $\\uparrow$', down: ' $\\downarrow$' } as const
  const head = ['', ...table.columns.map(({ name, better }) => LATEX.escape(name) + (better ? tex[better] : ''))]
  const line = (cells: readonly string[]): string => `${cells.join(' & ')} \\\\`
  return [
    '\\begin{table}[t]',
    '\\centering',
    `\\caption{${LATEX.escape([table.title, ...table.notes].join('. '))}}`,
    `\\label{tab:${table.id}}`,
    `\\resizebox{\\linewidth}{!}{\\begin{tabular}{l${'r'.repeat(table.columns.length)}}`,
    '\\toprule',
    line(head),
    '\\midrule',
    ...texts(table, LATEX).map(line),
    '\\bottomrule',
    '\\end{tabular}}',
    '\\end{table}',
    '',
  ].join('\n')
}
