//! Exact Top-k while pre-activations stream by: per token a threshold and the candidates above it.
//!
//! The threshold starts at 0 (entries ≤ 0 are never kept) and rises to the k-th largest value seen whenever the room
//! for candidates is full. Latents come in rising order, so a later value equal to the threshold loses its tie and
//! "strictly above" is the exact test. A NaN is never above.

use pulp::Simd;

/// Candidates of the tokens of one chunk, for one block of latents.
#[derive(Default)]
pub(super) struct Candidates {
    k: usize,
    room: usize,
    thresholds: Vec<f32>,
    counts: Vec<usize>,
    /// Value bits above, complement of the position below: larger = better, ties to the lower position. The bits of
    /// positive floats are ordered like the floats.
    keys: Vec<u64>,
}

impl Candidates {
    /// Forgets everything; `width` latents will be offered to each token at a time.
    pub(super) fn start(&mut self, tokens: usize, k: usize, width: usize) {
        self.k = k;
        self.room = 3 * k + width;
        self.thresholds.clear();
        // With k = 0 nothing is ever above the threshold.
        self.thresholds.resize(tokens, if k == 0 { f32::INFINITY } else { 0.0 });
        self.counts.clear();
        self.counts.resize(tokens, 0);
        self.keys.resize(tokens * self.room, 0);
    }

    /// Offers latents `first ..` with pre-activations `values` \[tokens · width\], width = 2 vectors.
    #[inline(always)]
    pub(super) fn offer<S: Simd>(&mut self, simd: S, first: usize, values: &[f32]) {
        let width = 2 * S::F32_LANES;
        for (token, row) in values.chunks_exact(width).enumerate().take(self.counts.len()) {
            let threshold = self.thresholds[token];
            let (vectors, _) = S::as_simd_f32s(row);
            let limit = simd.splat_f32s(threshold);
            let above =
                simd.or_m32s(simd.greater_than_f32s(vectors[0], limit), simd.greater_than_f32s(vectors[1], limit));
            if simd.first_true_m32s(above) < S::F32_LANES {
                // A call of its own: few rows come here once thresholds have risen.
                simd.vectorize(|| self.push(token, threshold, first, row));
            }
        }
    }

    /// Keeps the values of `row`, 32 at most, that are above the threshold.
    #[inline(always)]
    fn push(&mut self, token: usize, threshold: f32, first: usize, row: &[f32]) {
        let mut above = 0u32;
        for (lane, &value) in row.iter().enumerate() {
            above |= u32::from(value > threshold) << lane;
        }
        let keys = &mut self.keys[token * self.room..(token + 1) * self.room];
        let mut count = self.counts[token];
        while above != 0 {
            let lane = above.trailing_zeros() as usize;
            keys[count] = key(row[lane], first + lane);
            count += 1;
            above &= above - 1;
        }
        if count + row.len() > self.room {
            let (_, &mut last, _) = keys[..count].select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
            self.thresholds[token] = value(last);
            count = self.k;
        }
        self.counts[token] = count;
    }

    /// The best k of a token as (position, value), by falling value, ties to the lower position.
    pub(super) fn best(&mut self, token: usize) -> impl Iterator<Item = (usize, f32)> {
        let keys = &mut self.keys[token * self.room..][..self.counts[token]];
        let kept = if keys.len() > self.k {
            keys.select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
            &mut keys[..self.k]
        } else {
            keys
        };
        kept.sort_unstable_by(|a, b| b.cmp(a));
        kept.iter().map(|&key| (position(key), value(key)))
    }
}

fn key(value: f32, position: usize) -> u64 {
    // Positions fit u32: the config bounds the number of latents.
    (u64::from(value.to_bits()) << 32) | u64::from(!(position as u32))
}

fn position(key: u64) -> usize {
    !(key as u32) as usize
}

fn value(key: u64) -> f32 {
    f32::from_bits((key >> 32) as u32)
}
