/** Every value that decided the run, and what every number means. */

import type { ReportData } from '../schema.js'

const TERMS: readonly (readonly [string, string])[] = [
  [
    'latent',
    'One entry of the dictionary. Shared latents have one index in both modalities; private ones belong to one.',
  ],
  ['code', 'The few latents that a patch or a token fires, with their activations.'],
  ['plan', 'How the mass of a pair is spread over patches and words: optimal transport between their shared codes.'],
  ['R²', '1 − Σ‖h − ĥ‖² / Σ‖h − h̄‖²: the share of the variance of states that a reconstruction explains.'],
  [
    'cross R²',
    'The same, where the states of one modality are decoded from the shared codes of the other under the plan.',
  ],
  ['identity rate', 'Share of known concepts whose best latent is the same in pictures and in words.'],
  ['plan mass', 'Share of a word’s mass that lies on the patches it speaks of.'],
  ['purity', 'Concepts in the largest cluster of a latent over all concepts that hit it.'],
  ['patches, tokens', 'Share of patches and of tokens on which a latent fires.'],
  ['bridge', 'Cosine over pairs of a latent’s activations in picture and caption: 1 where it fires alike in both.'],
  ['modality', 'Share of a latent’s activation that pictures have: 1 = patches only, 0 = words only.'],
  ['monosemanticity', 'Mean cosine of the pictures that fire a latent, weighted by activation.'],
  ['another pair’s caption', 'The control of every matched number: each picture with the caption of another pair.'],
  ['interval', '95 % of a bootstrap over images. It says nothing of how much another seed would change.'],
]

/** The page of definitions. */
export function Method({ data }: { data: ReportData }) {
  const entries = Object.entries(data.config)
  const text = (value: unknown): string => (typeof value === 'object' ? JSON.stringify(value) : String(value))
  return (
    <main>
      <h1>Method</h1>
      <p class="lead">
        One sparse autoencoder over patches and words: Top-k codes with a block that both modalities share, optimal
        transport that matches patches to words without labels, and shared codes that must reconstruct the other
        modality.
      </p>
      <h2>What the words mean</h2>
      <dl class="terms-list">
        {TERMS.map(([term, meaning]) => (
          <div key={term} class="term">
            <dt>{term}</dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
      <h2>Every value of the run</h2>
      {entries.length === 0 ? (
        <p class="empty">The report was made without the run’s folder.</p>
      ) : (
        <table class="values">
          <thead>
            <tr>
              <th scope="col">field</th>
              <th scope="col">value</th>
              <th scope="col">meaning</th>
            </tr>
          </thead>
          <tbody>
            {entries.map(([name, value]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td class="figure">{text(value)}</td>
                <td class="meaning">{data.meanings[name] ?? ''}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
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
    </main>
  )
}
