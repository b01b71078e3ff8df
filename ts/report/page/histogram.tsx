/** How strong a latent's activations are, over patches and over tokens. */

/** Bin b holds activations in [2^(b/2 − 8), 2^((b+1)/2 − 8)). */
const edge = (bin: number): string => {
  const value = 2 ** (bin / 2 - 8)
  return value >= 10 ? value.toFixed(0) : value.toPrecision(1)
}

/** Two histograms on one axis, as bars drawn by the browser. */
export function Histogram({ counts }: { counts: { vision: number[]; text: number[] } }) {
  const used = counts.vision.map((count, bin) => count + (counts.text[bin] ?? 0))
  const first = Math.max(0, used.findIndex((count) => count > 0) - 1)
  const last = Math.min(used.length, used.findLastIndex((count) => count > 0) + 2)
  if (last <= first) return null
  const bins = Array.from({ length: last - first }, (_, at) => first + at)
  const sides = [
    ['patches', counts.vision],
    ['tokens', counts.text],
  ] as const
  return (
    <div class="histograms">
      {sides.map(([name, all]) => {
        const total = all.reduce((sum, count) => sum + count, 0)
        const most = Math.max(...all, 1)
        return (
          <figure key={name} class="histogram">
            <figcaption>
              {name}: {total} activations
            </figcaption>
            <div class="bins" role="img" aria-label={`Histogram of ${total} activations over ${name}`}>
              {bins.map((bin) => (
                <div key={bin} class="bin" title={`${edge(bin)} to ${edge(bin + 1)}: ${all[bin] ?? 0}`}>
                  <div class="bin-bar" style={{ height: `${(100 * (all[bin] ?? 0)) / most}%` }} />
                </div>
              ))}
            </div>
            <div class="axis" aria-hidden="true">
              <span>{edge(first)}</span>
              <span>activation</span>
              <span>{edge(last)}</span>
            </div>
          </figure>
        )
      })}
    </div>
  )
}
