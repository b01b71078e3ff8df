//! Resampling 8-bit pictures bit for bit as PIL does it: antialiased filters, along rows first, weights of 22 bits, 8-bit values
//! between the passes. A cubic filter overshoots at edges, so the order of the passes and their rounding show in the result. Pillow
//! before version 13 is followed, which the processors of all families were written with; 13 takes the cheaper order.

use crate::error::VlmError;
use image::RgbImage;
use serde::Serialize;

/// A resampling filter under PIL's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Cubic convolution with a = −0.5 (Catmull-Rom).
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

impl Filter {
    /// Distance at which the filter ends.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// Fractional bits of a weight: 32 less the 8 of a pixel and 2 for overshoot and sign.
const BITS: u32 = 22;
/// Most bytes of a picture between the two passes; a larger one is made in bands.
const MOST_BETWEEN: usize = 64 << 20;

/// The inputs of one output: the first, and their weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Taps of the outputs `range` of an axis of `from` inputs and `to` outputs.
fn taps(from: usize, to: usize, range: std::ops::Range<usize>, filter: Filter) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    range
        .map(|at| {
            let centre = (at as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weights: Vec<f64> =
                (first..end).map(|i| filter.at((i as f64 - centre + 0.5) * (1.0 / stretch))).collect();
            let total: f64 = weights.iter().sum();
            let total = if total == 0.0 { 1.0 } else { total };
            let fixed = |w: f64| (w / total * f64::from(1 << BITS)).round() as i32;
            Taps { first, weights: weights.into_iter().map(fixed).collect() }
        })
        .collect()
}

fn clipped(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (BITS - 1);

/// One row resampled along itself.
fn across(row: &[u8], taps: &[Taps], out: &mut [u8]) {
    for (tap, pixel) in taps.iter().zip(out.chunks_exact_mut(3)) {
        let mut sums = [HALF; 3];
        for (&weight, values) in tap.weights.iter().zip(row[3 * tap.first..].chunks_exact(3)) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += i32::from(value) * weight;
            }
        }
        pixel.copy_from_slice(&sums.map(clipped));
    }
}

/// One output row from `rows`, which begin at input row `start`.
fn down(rows: &[u8], start: usize, tap: &Taps, sums: &mut [i32], out: &mut [u8]) {
    sums.fill(HALF);
    let width = out.len();
    for (i, &weight) in tap.weights.iter().enumerate() {
        let row = &rows[(tap.first - start + i) * width..][..width];
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += i32::from(value) * weight;
        }
    }
    for (value, &sum) in out.iter_mut().zip(sums.iter()) {
        *value = clipped(sum);
    }
}

/// Squashes `image` to `width` × `height`, whatever its aspect.
///
/// # Errors
/// `E_IMAGE` when a side is zero.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<RgbImage, VlmError> {
    resize_part(image, [width, height], [0, 0, width, height], filter)
}

/// The part x, y, width, height of what [`resize`] to `size` would give, without making the rest: a strip enlarged to its shorter
/// side could be huge.
///
/// # Errors
/// `E_IMAGE` when a side is zero or the part leaves `size`.
pub fn resize_part(image: &RgbImage, size: [u32; 2], part: [u32; 4], filter: Filter) -> Result<RgbImage, VlmError> {
    let (from_width, from_height) = (image.width() as usize, image.height() as usize);
    let [full_width, full_height] = size.map(|n| n as usize);
    let [x, y, width, height] = part.map(|n| n as usize);
    let failed = |reason: &str| VlmError::Image {
        file: "<pixels>".into(),
        reason: format!("cannot be resized from {from_width} × {from_height}: {reason}"),
    };
    if x + width > full_width || y + height > full_height || [from_width, from_height, width, height].contains(&0) {
        return Err(failed(&format!("{width} × {height} at {x}, {y} of {full_width} × {full_height}")));
    }
    let columns = taps(from_width, full_width, x..x + width, filter);
    let bytes = 3 * width;
    let step = (from_height as f64 / full_height as f64).max(1.0);
    let band = ((MOST_BETWEEN / bytes) as f64 / step) as usize;
    let mut out = vec![0u8; bytes * height];
    let mut sums = vec![0i32; bytes];
    for (number, out) in out.chunks_mut(bytes * band.max(1)).enumerate() {
        let first = y + number * band.max(1);
        let rows = taps(from_height, full_height, first..first + out.len() / bytes, filter);
        let start = rows.first().map_or(0, |t| t.first);
        let end = rows.last().map_or(0, |t| t.first + t.weights.len());
        let source = &image.as_raw()[3 * from_width * start..3 * from_width * end];
        let narrowed;
        // An axis that keeps its length is not touched, as in PIL.
        let between = if full_width == from_width && width == from_width {
            source
        } else {
            let mut all = vec![0u8; bytes * (end - start)];
            for (row, out) in source.chunks_exact(3 * from_width).zip(all.chunks_exact_mut(bytes)) {
                across(row, &columns, out);
            }
            narrowed = all;
            &narrowed
        };
        for (tap, (out, i)) in rows.iter().zip(out.chunks_exact_mut(bytes).zip(first..)) {
            if full_height == from_height {
                out.copy_from_slice(&between[(i - start) * bytes..][..bytes]);
            } else {
                down(between, start, tap, &mut sums, out);
            }
        }
    }
    RgbImage::from_raw(width as u32, height as u32, out).ok_or_else(|| failed("the rows do not add up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let v = (x * 7919 + y * 104_729) ^ (x.wrapping_mul(y) * 31);
            image::Rgb([v as u8, (v >> 3) as u8, (v >> 7) as u8])
        })
    }

    #[test]
    fn a_part_is_cut_from_the_whole_and_bands_do_not_show() {
        // 140,000 rows of 224 pixels between the passes take 94 MB, so this is made in bands.
        let strip = noise(5, 140_000);
        let squashed = resize(&strip, 224, 224, Filter::Bicubic).unwrap();
        for row in [0, 100, 223] {
            let part = resize_part(&strip, [224, 224], [0, row, 224, 1], Filter::Bicubic).unwrap();
            assert_eq!(part.as_raw()[..], squashed.as_raw()[row as usize * 672..][..672]);
        }
        // The middle of what would be 224 × 6,272,000 pixels.
        let part = resize_part(&strip, [224, 6_272_000], [0, 3_000_000, 224, 224], Filter::Lanczos).unwrap();
        assert_eq!(part.dimensions(), (224, 224));
        let picture = noise(61, 47);
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            let whole = resize(&picture, 90, 30, filter).unwrap();
            let part = resize_part(&picture, [90, 30], [17, 4, 33, 21], filter).unwrap();
            assert_eq!(part, image::imageops::crop_imm(&whole, 17, 4, 33, 21).to_image());
        }
        assert_eq!(resize(&picture, 61, 47, Filter::Bicubic).unwrap(), picture);
        assert!(resize_part(&picture, [90, 30], [60, 0, 31, 30], Filter::Bicubic).is_err());
        assert!(resize(&picture, 0, 30, Filter::Bicubic).is_err());
    }
}
