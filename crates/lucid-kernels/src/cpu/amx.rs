//! Products of f32 matrices by AMX tiles: operands in two bf16 parts, sums in f32.
//!
//! x = x_hi + x_lo up to 2⁻¹⁷ of it, each part rounded to nearest, and a·b = a_hi·b_lo + a_hi·b_hi + a_lo·b_hi: what is left out,
//! a_lo·b_lo and the rounding of the low parts, is about 4e-6 of |a||b| where f32 sums err by 3e-7. A sum runs over the columns in one order,
//! whatever tile it lies in. NaN stays NaN; infinities become NaN, since ∞ has no low part to multiply.
//!
//! A *panel* is 32 rows of the left operand, a *strip* 32 rows of the right one (both row-major in the columns that are summed). Either
//! lies in memory by 32 columns at a time as four tiles of 16 rows: high parts of the upper and lower half, then low parts.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::simd::dispatched;

/// Rows of a panel, and of a strip.
pub(super) const SIDE: usize = 32;
/// Rows of a tile.
const ROWS: usize = 16;
/// Columns of a tile.
const DEEP: usize = 32;
/// Tiles that hold 32 columns of a panel or strip.
const PARTS: usize = 4;
/// Steps of 32 columns in a pass: a strip's part (16 KiB) stays in the first-level cache.
const PASS: usize = 4;

/// 16 rows of 64 bytes.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Tile([u16; ROWS * DEEP]);

/// Tiles of a panel or strip of `d` columns.
pub(super) const fn tiles(d: usize) -> usize {
    d.div_ceil(DEEP) * PARTS
}

/// The nearest bf16; ties to even.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { nearest }
}

/// The high and low part.
#[inline(always)]
fn split(x: f32) -> (u32, u32) {
    let high = rounded(x);
    let value = f32::from_bits(high << 16);
    let rest = if value.is_finite() { x - value } else { 0.0 };
    (high, rounded(rest))
}

dispatched! {
    /// Packs rows of `x` \[rows · d\], less `minus` \[d\] where it is not empty, into panels; missing rows and columns are 0.
    pub(super) fn pack_panels<S>(_simd, x: &'a [f32], minus: &'a [f32], d: usize, panels: &'a mut [Tile]) {
        for (panel, x) in panels.chunks_exact_mut(tiles(d)).zip(x.chunks(SIDE * d)) {
            pack_panel(x, minus, d, panel);
        }
    }
}

#[inline(always)]
fn pack_panel(x: &[f32], minus: &[f32], d: usize, panel: &mut [Tile]) {
    let rows = x.len() / d;
    let (steps, _) = panel.as_chunks_mut::<PARTS>();
    for (step, tiles) in steps.iter_mut().enumerate() {
        let columns = step * DEEP..((step + 1) * DEEP).min(d);
        let minus = columns_of(minus, columns.clone());
        for row in 0..SIDE {
            let (half, at) = (row / ROWS, row % ROWS * DEEP);
            let values = match row < rows {
                true => columns_of(&x[row * d..(row + 1) * d], columns.clone()),
                false => [0.0; DEEP],
            };
            let (mut high, mut low) = ([0u16; DEEP], [0u16; DEEP]);
            for column in 0..DEEP {
                let parts = split(if row < rows { values[column] - minus[column] } else { 0.0 });
                (high[column], low[column]) = (parts.0 as u16, parts.1 as u16);
            }
            tiles[half].0[at..at + DEEP].copy_from_slice(&high);
            tiles[2 + half].0[at..at + DEEP].copy_from_slice(&low);
        }
    }
}

/// 32 columns of a row, those beyond its end 0.
#[inline(always)]
fn columns_of(row: &[f32], columns: Range<usize>) -> [f32; DEEP] {
    let mut values = [0.0; DEEP];
    match row.get(columns.start..columns.start + DEEP) {
        Some(whole) => values.copy_from_slice(whole),
        None => {
            if let Some(part) = row.get(columns) {
                values[..part.len()].copy_from_slice(part);
            }
        }
    }
    values
}

dispatched! {
    /// Packs rows of length `d`, 32 or fewer, into a strip; missing rows and columns are 0. A tile holds two columns of its 16 rows in
    /// each of its own.
    pub(super) fn pack_strip<S>(_simd, rows: &'a [&'a [f32]], d: usize, strip: &'a mut [Tile]) {
        let (steps, _) = strip.as_chunks_mut::<PARTS>();
        for (step, tiles) in steps.iter_mut().enumerate() {
            let columns = step * DEEP..((step + 1) * DEEP).min(d);
            for half in 0..2 {
                let mut parts = [[[0u32; ROWS]; ROWS]; 2];
                for (row, pairs) in rows.iter().skip(half * ROWS).take(ROWS).enumerate() {
                    let values = columns_of(pairs, columns.clone());
                    let (mut high, mut low) = ([0u32; DEEP], [0u32; DEEP]);
                    for column in 0..DEEP {
                        (high[column], low[column]) = split(values[column]);
                    }
                    for pair in 0..ROWS {
                        parts[0][row][pair] = high[2 * pair] | high[2 * pair + 1] << 16;
                        parts[1][row][pair] = low[2 * pair] | low[2 * pair + 1] << 16;
                    }
                }
                for (part, values) in parts.iter().enumerate() {
                    let out: &mut [u32] = bytemuck::cast_slice_mut(&mut tiles[2 * part + half].0);
                    for (pair, out) in out.chunks_exact_mut(ROWS).enumerate() {
                        for (row, out) in out.iter_mut().enumerate() {
                            *out = values[row][pair];
                        }
                    }
                }
            }
        }
    }
}

/// `out` \[panels · 32 · 32\] = panels · stripᵀ, of `d` columns, added to what is there where `add` is set. With both parts of the
/// operands where `split` is set, else with the high ones alone: the operands rounded to bf16.
pub(super) fn multiply(_: &Tiles, panels: &[Tile], strip: &[Tile], d: usize, split: bool, add: bool, out: &mut [f32]) {
    let (tiles, steps) = (tiles(d), d.div_ceil(DEEP));
    assert!(strip.len() >= tiles);
    let (out, _) = out.as_chunks_mut::<{ SIDE * SIDE }>();
    for first in (0..steps).step_by(PASS) {
        let (from, count) = (first * PARTS, PASS.min(steps - first));
        // The part that comes next is fetched meanwhile, a share with every panel: strips lie one after the other.
        let (share, mut ahead) =
            ((PASS * PARTS).div_ceil(out.len().max(1)), strip[from..].as_ptr().wrapping_add(PASS * PARTS));
        for (panel, out) in panels.chunks_exact(tiles).zip(&mut *out) {
            ahead = prefetch(ahead, share);
            let block = if split { block } else { block_high };
            // SAFETY: `count` steps of tiles lie at both places (checked above and by `chunks_exact`), `Tiles` proves that tiles
            // may be used and are configured.
            unsafe { block(panel[from..].as_ptr(), strip[from..].as_ptr(), out.as_mut_ptr(), count, add || first > 0) };
        }
    }
}

/// Asks for `count` tiles at `at` in the second-level cache; returns the place behind them. Any address will do.
#[inline(always)]
fn prefetch(at: *const Tile, count: usize) -> *const Tile {
    #[cfg(target_arch = "x86_64")]
    for line in 0..count * size_of::<Tile>() / 64 {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program could see, and does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast::<i8>().wrapping_add(64 * line)) };
    }
    at.wrapping_add(count)
}

/// A function that multiplies `steps` times 32 columns by `body`, which has a step's operands at `panel` and `strip` and adds their
/// product to tmm0 to tmm3 (sums, in the order of `out`). Left operand: tmm4 and tmm5; right: tmm6 and tmm7.
macro_rules! block {
    ($(#[$documented:meta])* $name:ident: $($body:literal),+ $(,)?) => {
        $(#[$documented])*
        ///
        /// # Safety
        /// `steps` · 4 tiles at `panel` and at `strip`, 1024 values at `out`; AMX permitted and configured on this thread;
        /// `steps` > 0.
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        #[inline]
        unsafe fn $name(panel: *const Tile, strip: *const Tile, out: *mut f32, steps: usize, add: bool) {
            // SAFETY: accesses are those of the contract; tile registers belong to nobody else.
            unsafe {
                std::arch::asm!(
                    "test {add}, {add}",
                    "jz 3f",
                    "tileloadd tmm0, [{out} + {row}]",
                    "tileloadd tmm1, [{out} + {row} + 64]",
                    "tileloadd tmm2, [{lower} + {row}]",
                    "tileloadd tmm3, [{lower} + {row} + 64]",
                    "jmp 2f",
                    "3:",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    $($body,)+
                    "add {panel}, 4096",
                    "add {strip}, 4096",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{out} + {row}], tmm0",
                    "tilestored [{out} + {row} + 64], tmm1",
                    "tilestored [{lower} + {row}], tmm2",
                    "tilestored [{lower} + {row} + 64], tmm3",
                    panel = inout(reg) panel => _,
                    strip = inout(reg) strip => _,
                    steps = inout(reg) steps => _,
                    add = in(reg) usize::from(add),
                    out = in(reg) out,
                    lower = in(reg) out.add(ROWS * SIDE),
                    row = in(reg) SIDE * size_of::<f32>(),
                    line = in(reg) DEEP * size_of::<u16>(),
                    options(nostack),
                );
            }
        }

        /// No machine of this kind has AMX, so nobody can hold a [`Tiles`].
        #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
        unsafe fn $name(_: *const Tile, _: *const Tile, _: *mut f32, _: usize, _: bool) {
            unreachable!("AMX without AMX");
        }
    };
}

block! {
    /// `out` \[32 · 32\] = the product of `steps` times 32 columns, added to what is there where `add` is set.
    block:
    "tileloadd tmm4, [{panel} + {line}]",
    "tileloadd tmm6, [{strip} + {line} + 2048]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tileloadd tmm5, [{panel} + {line} + 1024]",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tileloadd tmm7, [{strip} + {line} + 3072]",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tdpbf16ps tmm3, tmm5, tmm7",
    "tileloadd tmm6, [{strip} + {line}]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tileloadd tmm7, [{strip} + {line} + 1024]",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tdpbf16ps tmm3, tmm5, tmm7",
    "tileloadd tmm4, [{panel} + {line} + 2048]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tileloadd tmm5, [{panel} + {line} + 3072]",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tdpbf16ps tmm3, tmm5, tmm7",
}

block! {
    /// As [`block`], of high parts alone.
    block_high:
    "tileloadd tmm4, [{panel} + {line}]",
    "tileloadd tmm6, [{strip} + {line}]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tileloadd tmm5, [{panel} + {line} + 1024]",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tileloadd tmm7, [{strip} + {line} + 1024]",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tdpbf16ps tmm3, tmm5, tmm7",
}

/// Tile registers, configured on this thread as eight of 16 rows of 64 bytes while this lives.
pub(super) struct Tiles {
    /// Registers belong to the thread.
    _here: std::marker::PhantomData<*const ()>,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use std::sync::OnceLock;

    use super::Tiles;

    /// Whether the processor has AMX with bf16, and the kernel lets this process use it.
    pub fn available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| {
            const BF16: u32 = 1 << 22;
            const TILE: u32 = 1 << 24;
            const REQUEST_PERMISSION: libc::c_int = 0x1023;
            const TILE_DATA: libc::c_long = 18;
            let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
            if std::arch::x86_64::__cpuid(0).eax < 7 || features & (BF16 | TILE) != BF16 | TILE {
                return false;
            }
            // SAFETY: asks for the room that tiles take in saved contexts; an older kernel answers with an error.
            unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
        })
    }

    /// The operand of `ldtilecfg`.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    impl Tiles {
        /// Configures this thread; only where AMX is [`available`].
        pub fn configure() -> Self {
            static ALL: Configuration = Configuration {
                palette: 1,
                start_row: 0,
                reserved: [0; 14],
                bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
                rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
            };
            assert!(available());
            // SAFETY: the processor has the instruction and the process its permission.
            unsafe { std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const ALL, options(nostack, readonly)) };
            Self { _here: std::marker::PhantomData }
        }
    }

    impl Drop for Tiles {
        fn drop(&mut self) {
            // SAFETY: as above.
            unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(super) use linux::available;

/// Only Linux on x86-64 is asked for AMX.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(super) const fn available() -> bool {
    false
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
impl Tiles {
    /// Never called: AMX is not available.
    pub fn configure() -> Self {
        unreachable!("AMX without AMX");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bits: u32) -> f32 {
        f32::from_bits(bits << 16)
    }

    #[test]
    fn two_parts_hold_a_number_to_seventeen_bits() {
        let mut state = 1u32;
        for _ in 0..100_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Exponents in the middle, so that low parts are no denormals.
            let x = f32::from_bits(state & 0x807f_ffff | (64 + (state >> 8) % 128) << 23);
            let (high, low) = split(x);
            let error = (f64::from(x) - f64::from(value(high)) - f64::from(value(low))).abs();
            assert!(error <= f64::from(x).abs() * 2f64.powi(-17), "{x:e}: {error:e}");
        }
        assert_eq!(split(1.0), (0x3f80, 0));
        assert_eq!(split(f32::INFINITY), (0x7f80, 0));
        assert!(value(split(f32::NAN).0).is_nan());
        assert!(value(split(f32::from_bits(0x7fff_ffff)).0).is_nan());
    }

    /// The layout, without the processor: tiles multiplied by plain loops.
    #[test]
    fn packed_tiles_are_the_rows_they_came_from() {
        let d = 45;
        let rows = |count: usize, seed: usize| -> Vec<f32> {
            (0..count * d).map(|i| ((i * 37 + seed) % 255) as f32 - 127.0).collect()
        };
        let (left, right, minus) = (rows(20, 3), rows(27, 8), vec![1.0; d]);
        let (mut panel, mut strip) = (vec![Tile::zeroed(); tiles(d)], vec![Tile::zeroed(); tiles(d)]);
        pack_panels(pulp::Arch::new(), &left, &minus, d, &mut panel);
        pack_strip(pulp::Arch::new(), &right.chunks_exact(d).collect::<Vec<_>>(), d, &mut strip);
        for i in 0..SIDE {
            for j in 0..SIDE {
                let mut sum = 0.0;
                for step in 0..d.div_ceil(DEEP) {
                    let (a, b) = (&panel[step * PARTS + i / ROWS], &strip[step * PARTS + j / ROWS]);
                    for column in 0..DEEP {
                        let x = a.0[i % ROWS * DEEP + column];
                        let y = b.0[column / 2 * DEEP + j % ROWS * 2 + column % 2];
                        sum += value(u32::from(x)) * value(u32::from(y));
                    }
                }
                let expected = match (left.get(i * d..(i + 1) * d), right.get(j * d..(j + 1) * d)) {
                    (Some(a), Some(b)) => a.iter().zip(b).map(|(a, b)| (a - 1.0) * b).sum(),
                    _ => 0.0,
                };
                assert_eq!(sum, expected, "{i} {j}");
            }
        }
    }
}
