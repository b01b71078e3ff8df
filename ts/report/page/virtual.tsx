/** A long list of which only the visible rows exist. */

import type { ComponentChildren } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'

/** Rows drawn beyond the edges of the window. */
const MARGIN = 12

/** The rows of `count` that a scrolled window shows, and the space above and below them. */
export function useVisible(
  count: number,
  height: number,
): {
  first: number
  last: number
  above: number
  below: number
  /** To be set on the element whose top is the top of the first row. */
  place: { current: HTMLElement | null }
} {
  const place = useRef<HTMLElement | null>(null)
  const [range, setRange] = useState<[number, number]>([0, Math.min(count, 60)])
  useEffect(() => {
    let frame = 0
    const look = () => {
      frame = 0
      const top = place.current?.getBoundingClientRect().top ?? 0
      const first = Math.max(0, Math.floor(-top / height) - MARGIN)
      const last = Math.min(count, Math.ceil((innerHeight - top) / height) + MARGIN)
      setRange((old) => (old[0] === first && old[1] === last ? old : [first, Math.max(first, last)]))
    }
    const soon = () => {
      frame ||= requestAnimationFrame(look)
    }
    look()
    addEventListener('scroll', soon, { passive: true })
    addEventListener('resize', soon)
    // On paper every row is there.
    const all = () => setRange([0, count])
    addEventListener('beforeprint', all)
    return () => {
      cancelAnimationFrame(frame)
      removeEventListener('scroll', soon)
      removeEventListener('resize', soon)
      removeEventListener('beforeprint', all)
    }
  }, [count, height])
  const [first, last] = [Math.min(range[0], count), Math.min(range[1], count)]
  return { first, last, above: first * height, below: (count - last) * height, place }
}

/** Rows of a table body, all of one height; `row` draws the one at a position. */
export function VirtualRows({
  count,
  height,
  columns,
  row,
}: {
  count: number
  height: number
  columns: number
  row: (index: number) => ComponentChildren
}) {
  const { first, last, above, below, place } = useVisible(count, height)
  return (
    <tbody
      ref={(element) => {
        place.current = element
      }}
    >
      {above > 0 && (
        <tr class="space">
          <td colSpan={columns} style={{ height: `${above}px` }} />
        </tr>
      )}
      {Array.from({ length: last - first }, (_, at) => row(first + at))}
      {below > 0 && (
        <tr class="space">
          <td colSpan={columns} style={{ height: `${below}px` }} />
        </tr>
      )}
    </tbody>
  )
}
