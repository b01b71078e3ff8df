/** One picture under a latent or a concept. */
export interface AtlasHit {
  /** Index into {@link AtlasData.images}. */
  image: number
  /** Row and column of the hottest patch. */
  peak: [row: number, column: number]
  /** Value of that patch. */
  value: number
  /** The latent that contributes most there. */
  latent: number
  /** Where its heat map starts in `maps.safetensors`. */
  map: number
}

/** A picture the atlas shows. */
export interface AtlasImage {
  /** Position in the store. */
  pair: number
  key: string
  /** Path of a small JPEG below the atlas folder. */
  file: string | null
  caption: string
  captions: string[]
  grid: [rows: number, columns: number]
  size: [width: number, height: number] | null
}

/** What is known about a shared latent. */
export interface AtlasLatent {
  latent: number
  /** Top terms of its largest cluster of concepts; null where the evidence is too thin, see `reason`. */
  label: string | null
  reason: string | null
  topTerms: { term: string; concept: number; hits: number; confidence: number }[]
  purity: number | null
  hits: number
  clusters: { size: number; hits: number; terms: string[] }[]
  density: { vision: number; text: number }
  words: { word: string; activation: number; max: number; count: number; share: number }[]
  images: AtlasHit[]
  /**
   * Counts of activations over patches and tokens: bin b holds those in [2^(b/2 − 8), 2^((b+1)/2 − 8)). Absent in atlases of
   * older versions.
   */
  histogram?: { vision: number[]; text: number[] }
}

/** What is known about a concept. */
export interface AtlasConcept {
  concept: number
  name: string
  category: string | null
  hits: number
  confidence: number
  latents: { latent: number; hits: number; weight: number; idf: number }[]
  images: AtlasHit[]
}

/** `atlas.json`, as docs/formats-atlas.md specifies it. */
export interface AtlasData {
  format: 'lucid-atlas'
  formatVersion: number
  version: string
  model: { dShared: number; latents: number }
  store: { fingerprint: string; pairs: number }
  options: Record<string, unknown>
  threshold: number | null
  peaks: number
  /** How the threshold was calibrated, where `fdr` asked for it. */
  falseDiscovery?: { target: number; above: number; aboveByChance: number }
  images: AtlasImage[]
  latents: AtlasLatent[]
  concepts: AtlasConcept[]
}

/** A heat map over the patches of an image. */
export interface HeatMap {
  /** Values row by row; 0 means no heat. */
  readonly values: Float32Array
  readonly grid: readonly [rows: number, columns: number]
  /** Row and column of the hottest patch. */
  readonly peak: readonly [row: number, column: number]
}

/** A line of {@link Atlas.search}'s answer, best first. */
export interface SearchHit {
  readonly kind: 'concept' | 'latent' | 'image'
  /** Index of the concept, the latent, or the image in the atlas. */
  readonly index: number
  readonly text: string
  readonly score: number
}
