//! The number formats activations are stored in, and the conversions between them and f32.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// How activations are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits, nothing lost.
    F32,
    /// 16 bits, 11 bits of significand, up to 65504: the usual choice for normalised states.
    #[default]
    F16,
    /// 16 bits, 8 bits of significand, the range of f32: for raw residual streams.
    Bf16,
}

impl Precision {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name used in options, manifests and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The name of the data type in a safetensors header.
    pub fn safetensors(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// The largest finite value.
    pub fn max(self) -> f64 {
        match self {
            Self::F32 => f64::from(f32::MAX),
            Self::F16 => f16::MAX.to_f64(),
            Self::Bf16 => bf16::MAX.to_f64(),
        }
    }

    /// `values` in little-endian bytes of this precision, rounded to nearest even, appended to `out`.
    pub(crate) fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::F32 => values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
            Self::F16 => {
                let start = out.len();
                out.resize(start + 2 * values.len(), 0);
                let mut buffer = [f16::ZERO; 1024];
                for (from, to) in values.chunks(1024).zip(out[start..].chunks_mut(2048)) {
                    let halves = &mut buffer[..from.len()];
                    halves.convert_from_f32_slice(from);
                    halves.iter().zip(to.chunks_exact_mut(2)).for_each(|(h, b)| b.copy_from_slice(&h.to_le_bytes()));
                }
            }
            Self::Bf16 => values.iter().for_each(|&v| out.extend_from_slice(&bf16::from_f32(v).to_le_bytes())),
        }
    }

    /// The numbers in `bytes` as f32. `bytes` holds exactly `out.len()` numbers.
    pub(crate) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        debug_assert_eq!(bytes.len(), out.len() * self.bytes());
        match self {
            Self::F32 => match bytemuck::try_cast_slice::<u8, f32>(bytes) {
                Ok(floats) if cfg!(target_endian = "little") => out.copy_from_slice(floats),
                _ => {
                    bytes.chunks_exact(4).zip(out).for_each(|(b, o)| *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                }
            },
            Self::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
                Ok(halves) if cfg!(target_endian = "little") => halves.convert_to_f32_slice(out),
                _ => bytes.chunks_exact(2).zip(out).for_each(|(b, o)| *o = f16::from_le_bytes([b[0], b[1]]).to_f32()),
            },
            Self::Bf16 => {
                bytes
                    .chunks_exact(2)
                    .zip(out)
                    .for_each(|(b, o)| *o = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16));
            }
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_conversions_round_to_nearest_even_and_survive_misalignment() {
        let values: Vec<f32> = (0..2500).map(|i| (i as f32 - 1200.0) * 0.377).collect();
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            let mut bytes = vec![0u8];
            precision.encode(&values, &mut bytes);
            let mut back = vec![0f32; values.len()];
            precision.decode(&bytes[1..], &mut back);
            let expected: Vec<f32> = values
                .iter()
                .map(|&v| match precision {
                    Precision::F32 => v,
                    Precision::F16 => f16::from_f32(v).to_f32(),
                    Precision::Bf16 => bf16::from_f32(v).to_f32(),
                })
                .collect();
            assert_eq!(back, expected, "{precision}");
            let aligned = bytes[1..].to_vec();
            precision.decode(&aligned, &mut back);
            assert_eq!(back, expected, "{precision}, aligned");
        }
    }
}
