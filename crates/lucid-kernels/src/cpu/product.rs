//! The encoder's product: a register-tiled kernel over operands packed once, a strip of latents at a time.
//!
//! A tile is [`ROWS`] tokens × 2 vectors of latents: on AVX2 twelve accumulators, two weights and one activation fill
//! the 16 registers. W is packed once a call into strips of two vectors, tokens once a chunk with `b_dec` subtracted.
//! Each pre-activation is summed in the order of the columns, whatever tile it lies in.

use pulp::Simd;

/// Tokens of a tile.
pub(super) const ROWS: usize = 6;
/// Columns of a pass: a strip's part (16 KiB on AVX2) stays in the first-level cache.
const DEPTH: usize = 256;

/// Packs tokens `acts` \[n · d\] minus `b_dec` into panels of [`ROWS`] tokens, column by column; missing tokens are 0.
pub(super) fn pack_tokens(acts: &[f32], b_dec: &[f32], d: usize, packed: &mut Vec<f32>) {
    let n = acts.len() / d;
    packed.clear();
    packed.resize(n.div_ceil(ROWS) * ROWS * d, 0.0);
    for (panel, tokens) in packed.chunks_exact_mut(ROWS * d).zip(acts.chunks(ROWS * d)) {
        for (row, token) in tokens.chunks_exact(d).enumerate() {
            for ((slot, &h), &b) in panel[row..].iter_mut().step_by(ROWS).zip(token).zip(b_dec) {
                *slot = h - b;
            }
        }
    }
}

/// Packs the rows `latents` of `w` \[K · d\] into one strip \[d · width\]; missing latents are 0.
pub(super) fn pack_strip(w: &[f32], d: usize, latents: impl Iterator<Item = usize>, width: usize, strip: &mut [f32]) {
    let mut filled = 0;
    for latent in latents {
        let row = &w[latent * d..(latent + 1) * d];
        for (slot, &value) in strip[filled..].iter_mut().step_by(width).zip(row) {
            *slot = value;
        }
        filled += 1;
    }
    for lane in filled..width {
        for slot in strip[lane..].iter_mut().step_by(width) {
            *slot = 0.0;
        }
    }
}

/// Pre-activations of one strip: `out` \[panels · ROWS · width\] = bias + packed tokens · strip.
#[inline(always)]
pub(super) fn multiply_strip<S: Simd>(simd: S, tokens: &[f32], strip: &[f32], bias: &[f32], d: usize, out: &mut [f32]) {
    let (strip, _) = S::as_simd_f32s(strip);
    let (strip, _) = strip.as_chunks::<2>();
    let (bias, _) = S::as_simd_f32s(bias);
    let (out, _) = S::as_mut_simd_f32s(out);
    let (out, _) = out.as_chunks_mut::<2>();
    let (tiles, _) = out.as_chunks_mut::<ROWS>();
    for tile in tiles.iter_mut() {
        *tile = [[bias[0], bias[1]]; ROWS];
    }
    for first in (0..d).step_by(DEPTH) {
        let last = (first + DEPTH).min(d);
        for (tile, panel) in tiles.iter_mut().zip(tokens.chunks_exact(ROWS * d)) {
            let (columns, _) = panel[first * ROWS..last * ROWS].as_chunks::<ROWS>();
            let mut sum = *tile;
            for (h, w) in columns.iter().zip(&strip[first..last]) {
                for row in 0..ROWS {
                    let value = simd.splat_f32s(h[row]);
                    sum[row][0] = simd.mul_add_e_f32s(value, w[0], sum[row][0]);
                    sum[row][1] = simd.mul_add_e_f32s(value, w[1], sum[row][1]);
                }
            }
            *tile = sum;
        }
    }
}
