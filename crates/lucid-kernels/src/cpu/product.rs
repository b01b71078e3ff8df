//! The encoder's product: a register-tiled kernel over operands packed once, a strip of latents at a time.
//!
//! W is packed once a call into strips of two vectors, tokens once a chunk with `b_dec` subtracted. Each pre-activation is summed in
//! the order of the columns, whatever tile it lies in.

use bytemuck::Pod;
use pulp::{Arch, Simd};

use super::amx::{self, Tile, Tiles};
use crate::precision::Precision;

/// The vectors at hand, and what operands are rounded to.
pub(super) type With = (Arch, Precision);

/// A way to multiply tokens by the rows of W_encᵀ: how operands are packed, and what makes pre-activations of them.
pub(super) trait Product: Copy + Send + Sync {
    /// What packed operands consist of.
    type Operand: Pod + Send + Sync;
    /// Tokens of a panel.
    const ROWS: usize;
    /// Tokens of a chunk, a multiple of [`Product::ROWS`]: packed, they stay in the second-level cache.
    const CHUNK: usize;

    /// Operands of a panel of `d` columns.
    fn panel(d: usize) -> usize;
    /// Operands of a strip of `d` columns.
    fn strip(d: usize, width: usize) -> usize;
    /// Packs tokens `acts` \[n · d\], minus `b_dec` where it is not empty, into panels; missing tokens are 0.
    fn pack_tokens(with: With, acts: &[f32], b_dec: &[f32], d: usize, panels: &mut [Self::Operand]);
    /// Packs `rows` of length `d`, `width` or fewer, into one strip; missing ones are 0.
    fn pack_strip(with: With, rows: &[&[f32]], d: usize, width: usize, strip: &mut [Self::Operand]);
    /// What a thread holds while it multiplies.
    type Hold;
    /// Makes the calling thread ready.
    fn hold() -> Self::Hold;
    /// Pre-activations of one strip: `out` \[panels · ROWS · width\] = bias + packed tokens · strip.
    fn multiply<S: Simd>(
        hold: &Self::Hold,
        simd: S,
        precision: Precision,
        panels: &[Self::Operand],
        strip: &[Self::Operand],
        bias: &[f32],
        d: usize,
        out: &mut [f32],
    );
}

/// Vectors: a tile of `ROWS` tokens × 2 vectors of latents, all of it in registers: 6 rows fill 16 registers, 12 rows 32.
#[derive(Clone, Copy)]
pub(super) struct Vectors<const ROWS: usize>;

/// AMX tiles (see [`amx`]).
#[derive(Clone, Copy)]
pub(super) struct Matrices;

/// Numbers of a strip's part that a pass works on: 16 KiB stay in the first-level cache.
const PASS: usize = 4096;

/// Columns packed at a time: a panel's part is written in the first-level cache.
const BLOCK: usize = 64;

impl<const ROWS: usize> Product for Vectors<ROWS> {
    type Operand = f32;
    type Hold = ();
    const ROWS: usize = ROWS;
    // 288 KiB at width 768.
    const CHUNK: usize = 96;

    fn panel(d: usize) -> usize {
        ROWS * d
    }

    fn strip(d: usize, width: usize) -> usize {
        width * d
    }

    fn pack_tokens((_, precision): With, acts: &[f32], b_dec: &[f32], d: usize, panels: &mut [f32]) {
        for (panel, tokens) in panels.chunks_exact_mut(ROWS * d).zip(acts.chunks(ROWS * d)) {
            if tokens.len() < panel.len() {
                panel.fill(0.0);
            }
            for (block, panel) in panel.chunks_mut(ROWS * BLOCK).enumerate() {
                let columns = block * BLOCK..(block * BLOCK + BLOCK).min(d);
                for (row, token) in tokens.chunks_exact(d).enumerate() {
                    let slots = panel[row..].iter_mut().step_by(ROWS).zip(&token[columns.clone()]);
                    if b_dec.is_empty() {
                        slots.for_each(|(slot, &h)| *slot = precision.round(h));
                    } else {
                        slots.zip(&b_dec[columns.clone()]).for_each(|((slot, &h), &b)| *slot = precision.round(h - b));
                    }
                }
            }
        }
    }

    fn pack_strip((_, precision): With, rows: &[&[f32]], d: usize, width: usize, strip: &mut [f32]) {
        for (lane, row) in rows.iter().enumerate() {
            for (slot, &value) in strip[lane..].iter_mut().step_by(width).zip(&row[..d]) {
                *slot = precision.round(value);
            }
        }
        for lane in rows.len()..width {
            for slot in strip[lane..].iter_mut().step_by(width) {
                *slot = 0.0;
            }
        }
    }

    fn hold() {}

    #[inline(always)]
    fn multiply<S: Simd>(
        (): &(),
        simd: S,
        _: Precision,
        panels: &[f32],
        strip: &[f32],
        bias: &[f32],
        d: usize,
        out: &mut [f32],
    ) {
        let (strip, _) = S::as_simd_f32s(strip);
        let (strip, _) = strip.as_chunks::<2>();
        let (bias, _) = S::as_simd_f32s(bias);
        let (out, _) = S::as_mut_simd_f32s(out);
        let (out, _) = out.as_chunks_mut::<2>();
        let (tiles, _) = out.as_chunks_mut::<ROWS>();
        for tile in tiles.iter_mut() {
            *tile = [[bias[0], bias[1]]; ROWS];
        }
        let depth = PASS / (2 * S::F32_LANES);
        for first in (0..d).step_by(depth) {
            let last = (first + depth).min(d);
            for (tile, panel) in tiles.iter_mut().zip(panels.chunks_exact(ROWS * d)) {
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
}

impl Product for Matrices {
    type Operand = Tile;
    type Hold = Tiles;
    const ROWS: usize = amx::SIDE;
    // 768 KiB at width 768; processors with AMX have 2 MiB a core.
    const CHUNK: usize = 256;

    fn panel(d: usize) -> usize {
        amx::tiles(d)
    }

    fn strip(d: usize, width: usize) -> usize {
        assert_eq!(width, amx::SIDE);
        amx::tiles(d)
    }

    fn pack_tokens((arch, _): With, acts: &[f32], b_dec: &[f32], d: usize, panels: &mut [Tile]) {
        amx::pack_panels(arch, acts, b_dec, d, panels);
    }

    fn pack_strip((arch, _): With, rows: &[&[f32]], d: usize, _: usize, strip: &mut [Tile]) {
        amx::pack_strip(arch, rows, d, strip);
    }

    fn hold() -> Tiles {
        Tiles::configure()
    }

    #[inline(always)]
    fn multiply<S: Simd>(
        tiles: &Tiles,
        _: S,
        precision: Precision,
        panels: &[Tile],
        strip: &[Tile],
        bias: &[f32],
        d: usize,
        out: &mut [f32],
    ) {
        let (bias, _) = S::as_simd_f32s(bias);
        let (rows, _) = S::as_mut_simd_f32s(out);
        for row in rows.chunks_exact_mut(2) {
            (row[0], row[1]) = (bias[0], bias[1]);
        }
        // High parts are the rounded operands.
        amx::multiply(tiles, panels, strip, d, precision == Precision::F32, true, out);
    }
}
