//! Numbers of 8 bits with one scale a row: x ≈ q · scale, q from −127 to 127.
//!
//! The scale is max|x| / 127 rounded up to 17 significant bits, so that q · scale is exact in f32 whoever computes it,
//! and encoding decoded values again gives the same bytes.

use super::precision::{Encoded, EncodedBuffer};

/// The largest value: 127 times the largest scale of 17 bits for which that is finite.
pub(super) const MAX: f32 = f32::from_bits(0x7f7f_fff8);

/// Adding it to a number below 2²² rounds that to an integer (ties to even) and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// The scale of a row whose largest absolute value is `max`; 0 for 0.
fn scale_of(max: f32) -> f32 {
    let exact = f64::from(max) / 127.0;
    if exact == 0.0 {
        return 0.0;
    }
    // Below the normal numbers of f32 there are fewer bits to keep: there the scale is a power of two.
    let dropped = if exact < f64::from(f32::MIN_POSITIVE) { (1u64 << 52) - 1 } else { (1 << 36) - 1 };
    let up = f64::from_bits((exact.to_bits() + dropped) & !dropped) as f32;
    up.max(f32::from_bits(1))
}

/// Appends `values`, rows of `width` finite numbers up to [`MAX`].
pub(super) fn encode(values: &[f32], width: usize, out: &mut EncodedBuffer) {
    out.states.reserve(values.len());
    for row in values.chunks_exact(width) {
        let max = row.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = scale_of(max);
        out.scales.extend_from_slice(&scale.to_le_bytes());
        if scale == 0.0 {
            out.states.resize(out.states.len() + width, 0);
        } else {
            out.states.extend(row.iter().map(|v| (v / scale + ROUND).to_bits() as u8));
        }
    }
}

/// The values of `from` in f32.
pub(super) fn decode(from: Encoded, width: usize, out: &mut [f32]) {
    let rows = from.states.chunks_exact(width).zip(out.chunks_exact_mut(width));
    for ((states, row), scale) in rows.zip(from.scales.as_chunks::<4>().0) {
        let scale = f32::from_le_bytes(*scale);
        states.iter().zip(row).for_each(|(&q, x)| *x = f32::from(q as i8) * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[f32], width: usize) -> (EncodedBuffer, Vec<f32>) {
        let mut bytes = EncodedBuffer::default();
        encode(values, width, &mut bytes);
        let mut back = vec![f32::NAN; values.len()];
        decode(bytes.get(), width, &mut back);
        (bytes, back)
    }

    /// Numbers of every size down to the smallest of f32, and small integers times one of them (many ties).
    fn rows() -> impl Strategy<Value = (usize, Vec<f32>)> {
        let any_size =
            (-149i32..128, -1.0f32..1.0).prop_map(|(e, m)| ((f64::from(m) * 2f64.powi(e)) as f32).clamp(-MAX, MAX));
        let steps =
            (-400i32..400, 0u32..3).prop_map(|(n, kind)| n as f32 * [f32::from_bits(1), 0.5, 3.1e-39][kind as usize]);
        let value = prop_oneof![any_size, steps, -3.0f32..3.0, Just(0.0), Just(MAX), Just(f32::from_bits(900))];
        (1usize..6, 1usize..5)
            .prop_flat_map(move |(width, rows)| (Just(width), proptest::collection::vec(value.clone(), width * rows)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn errors_are_at_most_half_a_step_and_nothing_changes_the_second_time((width, values) in rows()) {
            let (bytes, back) = round_trip(&values, width);
            for ((row, got), scale) in values.chunks(width).zip(back.chunks(width)).zip(bytes.scales.as_chunks::<4>().0) {
                let scale = f32::from_le_bytes(*scale);
                let max = row.iter().fold(0f32, |m, v| m.max(v.abs()));
                prop_assert_eq!(scale == 0.0, max == 0.0);
                prop_assert!(f64::from(scale) * 127.0 >= f64::from(max));
                if max > 1e-30 {
                    prop_assert!(f64::from(scale) * 127.0 <= f64::from(max) * (1.0 + 2f64.powi(-16)));
                }
                for (&x, &y) in row.iter().zip(got) {
                    let ulp = f64::from(x.abs().next_up()) - f64::from(x.abs());
                    prop_assert!((f64::from(x) - f64::from(y)).abs() <= f64::from(scale) / 2.0 + ulp, "{x} {y} {scale}");
                }
            }
            let (again, same) = round_trip(&back, width);
            prop_assert_eq!(&again.states, &bytes.states);
            prop_assert_eq!(&again.scales, &bytes.scales);
            prop_assert_eq!(same, back);
        }
    }

    #[test]
    fn every_scale_survives_a_second_encoding() {
        // All mantissas of 17 bits: 127 times each of them is exact, and so is the way back.
        for k in 0..1u32 << 16 {
            let scale = 1.0 + k as f32 / 65536.0;
            assert_eq!(scale_of(127.0 * scale), scale);
        }
    }
}
