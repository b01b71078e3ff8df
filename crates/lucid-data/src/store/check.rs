//! What every pair must satisfy before a store takes it.

use super::int8;
use super::{KIND_EOS, PairActivations, Part, Precision};
use crate::error::{DataError, Result};

/// Checks the sizes and every value of a pair (`E_EMPTY`, `E_NO_CAPTION`, `E_SHAPE`, `E_NON_FINITE`, `E_OVERFLOW`).
pub(super) fn check_pair(pair: &PairActivations, d_vision: usize, d_text: usize, precision: Precision) -> Result<()> {
    let key = pair.key;
    let patches = rows(key, Part::Vision, pair.vision, d_vision)?;
    let grid = pair.vision_grid[0] as u64 * pair.vision_grid[1] as u64;
    if grid != patches as u64 {
        return Err(DataError::shape(
            format!("pair {key:?}: vision grid"),
            format!("{} × {} = {grid}", pair.vision_grid[0], pair.vision_grid[1]),
            format!("{patches}, the number of patches"),
        ));
    }
    if pair.captions.is_empty() {
        return Err(DataError::NoCaption {
            key: key.to_string(),
            reason: "no caption was given with its activations".into(),
        });
    }
    check_values(key, Part::Vision, pair.vision, d_vision, precision)?;
    for (c, caption) in pair.captions.iter().enumerate() {
        let part = Part::Text { caption: c };
        let tokens = rows(key, part, caption.states, d_text)?;
        let lengths = [
            ("token ids", caption.ids.len()),
            ("token kinds", caption.kinds.len()),
            ("token spans", caption.spans.len()),
        ];
        if let Some((what, found)) = lengths.into_iter().find(|&(_, n)| n != 0 && n != tokens) {
            return Err(DataError::shape(
                format!("pair {key:?}, {part}: {what}"),
                found,
                format!("{tokens}, one a token"),
            ));
        }
        if let Some(kind) = caption.kinds.iter().find(|&&k| k > KIND_EOS) {
            return Err(DataError::shape(
                format!("pair {key:?}, {part}: token kind"),
                kind,
                "0 (content) or 1 (end of sequence)",
            ));
        }
        let bad_span = caption.spans.iter().find(|&&[start, end]| {
            start > end
                || !caption.text.is_char_boundary(start as usize)
                || !caption.text.is_char_boundary(end as usize)
        });
        if let Some(span) = bad_span {
            let expected =
                format!("a byte span within the caption of {} bytes, at character boundaries", caption.text.len());
            return Err(DataError::shape(format!("pair {key:?}, {part}: token span"), format!("{span:?}"), expected));
        }
        check_values(key, part, caption.states, d_text, precision)?;
    }
    for b in pair.boxes {
        let finite = [b.x, b.y, b.width, b.height].iter().all(|v| v.is_finite());
        if !finite || b.width <= 0.0 || b.height <= 0.0 {
            return Err(DataError::shape(
                format!("pair {key:?}: box"),
                format!("{b:?}"),
                "finite numbers, width and height above 0",
            ));
        }
        if let Some(mask) = b.mask.as_ref().filter(|mask| pair.size != Some(mask.size())) {
            return Err(DataError::shape(
                format!("pair {key:?}: the mask of a box"),
                format!("{:?} pixels", mask.size()),
                format!("the image's size, {:?}", pair.size),
            ));
        }
    }
    Ok(())
}

fn rows(key: &str, part: Part, states: &[f32], d: usize) -> Result<usize> {
    if states.is_empty() {
        return Err(DataError::Empty { what: format!("the {part} set of pair {key:?}") });
    }
    if !states.len().is_multiple_of(d) {
        return Err(DataError::shape(
            format!("pair {key:?}: {part} activations"),
            format!("{} numbers", states.len()),
            format!("a multiple of the width {d}"),
        ));
    }
    Ok(states.len() / d)
}

fn check_values(key: &str, part: Part, states: &[f32], d: usize, precision: Precision) -> Result<()> {
    // One pass that vectorises; where it finds something, a second one says where.
    let worst = states.iter().fold(0u32, |w, v| w.max(v.to_bits() & 0x7fff_ffff));
    if (worst as u64) < u64::from(overflow_from(precision)) {
        return Ok(());
    }
    let at = states.iter().position(|v| v.to_bits() & 0x7fff_ffff >= overflow_from(precision)).unwrap_or_default();
    let (pair, token, dimension, value) = (key.to_string(), at / d, at % d, states[at]);
    Err(if value.is_finite() {
        let (value, limit) = (f64::from(value), precision.max());
        DataError::Overflow { pair, part, token, dimension, value, precision: precision.name(), limit }
    } else {
        DataError::NonFinite { pair, part, token, dimension, value: value.to_string() }
    })
}

/// Bits of the smallest positive f32 that does not stay finite in `precision`; all bits above it are larger, infinite or NaN.
fn overflow_from(precision: Precision) -> u32 {
    match precision {
        Precision::F32 => f32::INFINITY.to_bits(),
        // Halfway between the largest finite value and the next power of two; ties go to even, which is infinity.
        Precision::F16 => 65520f32.to_bits(),
        Precision::Bf16 => 0x7f7f_8000,
        Precision::Int8 => int8::MAX.to_bits() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::precision::EncodedBuffer;
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn the_overflow_limits_are_where_rounding_reaches_infinity() {
        let below = |p| f32::from_bits(overflow_from(p) - 1);
        let at = |p| f32::from_bits(overflow_from(p));
        assert!(f16::from_f32(below(Precision::F16)).is_finite() && f16::from_f32(at(Precision::F16)).is_infinite());
        assert!(
            bf16::from_f32(below(Precision::Bf16)).is_finite() && bf16::from_f32(at(Precision::Bf16)).is_infinite()
        );
        assert!(below(Precision::F32).is_finite());
        let int8 = |v: f32| {
            let mut bytes = EncodedBuffer::default();
            Precision::Int8.encode(&[v], 1, &mut bytes);
            let mut back = [0.0];
            Precision::Int8.decode(bytes.get(), 1, &mut back);
            back[0]
        };
        assert_eq!(int8(below(Precision::Int8)), below(Precision::Int8));
        assert!(int8(at(Precision::Int8)).is_infinite());
    }
}
