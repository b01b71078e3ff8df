//! How exact the operands of long sums are.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::real::Real;

/// What the operands of products and of gathered sums are rounded to. Sums, weights, optimiser state and losses are never rounded.
///
/// The operands, in the order of a step: h − b_dec and W_enc in the encoder's product, and h − b_dec again where the rows of
/// W_enc's gradient gather it; W_dec in decoders and in the gradient of code values; the gradient of a reconstruction where
/// the rows of W_dec's gradient gather it; shares of a plan, points and their gradients in barycentres.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Not rounded. Matrix units take them in two bf16 parts: error about 2⁻¹⁶ of a term.
    #[default]
    F32,
    /// The nearest bf16, ties to even: error up to 2⁻⁹ of an operand. Fewer products, half the bytes.
    Bf16,
}

impl Precision {
    /// An operand.
    #[must_use]
    pub fn round<R: Real>(self, x: R) -> R {
        match self {
            Self::F32 => x,
            Self::Bf16 => R::from_f64(f64::from(nearest(x.narrow()))),
        }
    }

    /// A row of operands.
    pub(crate) fn operands<R: Real>(self, row: &[R]) -> Cow<'_, [R]> {
        match self {
            Self::F32 => Cow::Borrowed(row),
            Self::Bf16 => row.iter().map(|&x| self.round(x)).collect(),
        }
    }
}

/// The nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if x.is_nan() { x } else { f32::from_bits(rounded) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_the_nearest_eight_bits() {
        let bf16 = |x: f32| Precision::Bf16.round(x);
        // 1 + 2⁻⁷ is the next number after 1; halfway goes to the even one.
        assert_eq!(bf16(1.0 + 0.003), 1.0);
        assert_eq!(bf16(1.0 + 0.003_906_25), 1.0);
        assert_eq!(bf16(1.0 + 0.003_91), 1.007_812_5);
        assert_eq!(bf16(1.007_812_5 + 0.003_906_25), 1.015_625);
        assert_eq!(bf16(-2.0), -2.0);
        assert_eq!(bf16(f32::MAX), f32::INFINITY);
        assert!(bf16(f32::NAN).is_nan() && bf16(f32::from_bits(0x7fff_ffff)).is_nan());
        assert_eq!(Precision::Bf16.round(1.0 + 1e-3_f64), 1.0);
        assert_eq!(Precision::F32.round(1.0 + 1e-3_f64), 1.0 + 1e-3);
        let mut state = 1u32;
        for _ in 0..10_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f32::from_bits(state & 0x807f_ffff | (1 + (state >> 8) % 253) << 23);
            assert!((bf16(x) - x).abs() <= x.abs() / 256.0, "{x:e}");
        }
    }
}
