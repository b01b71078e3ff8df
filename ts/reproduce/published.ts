/** The numbers of the paper's tables (arXiv 2602.07311): COCO and SigLIP ViT-B/16, another data set than any demo's. */

/** A rung of the ladder of Tables 3 and 4. */
export type Rung = 'ot-only' | 'share-k' | 'share-k-gsl' | 'share-k-gsl-gcmt'

/** What stands below every table with published numbers. */
export const PUBLISHED_NOTE =
  'Published: arXiv 2602.07311, COCO with SigLIP ViT-B/16, 24 h on 8 GPUs: another data set, backbone and budget than ours unless ours says so.'

/** Tables 3 and 4. */
export const LADDER: Readonly<
  Record<Rung, { massAtObj: number; pointAt1: number; iouAt10: number; t2i: number; i2t: number }>
> = {
  'ot-only': { massAtObj: 0.402, pointAt1: 0.473, iouAt10: 0.2746, t2i: 0.7958, i2t: 0.381 },
  'share-k': { massAtObj: 0.4039, pointAt1: 0.5501, iouAt10: 0.28, t2i: 0.6516, i2t: 0.2055 },
  'share-k-gsl': { massAtObj: 0.4097, pointAt1: 0.5578, iouAt10: 0.2913, t2i: 0.459, i2t: 0.124 },
  'share-k-gsl-gcmt': { massAtObj: 0.4106, pointAt1: 0.6002, iouAt10: 0.2984, t2i: 0.3538, i2t: 0.074 },
}

/** Tables 2 and 6: R² by path. */
export const RECONSTRUCTION = {
  sharedOnly: {
    vision: { joint: 0.4045 },
    text: { joint: 0.5737 },
    t2v: { shared: 0.0552 },
    v2t: { shared: 0.322 },
  },
  sharedPrivate: {
    vision: { joint: 0.4606, shared: 0.2705, private: 0.2445 },
    text: { joint: 0.6684, shared: 0.5088, private: 0.255 },
    t2v: { shared: 0.1171, joint: 0.1131 },
    v2t: { shared: 0.4055, joint: 0.3971 },
  },
} as const
