//! The number formats activations are stored in, and the conversions between them and f32.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::int8;

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
    /// 8 bits and one scale a patch or token: half the room of f16, about 40 times its error.
    Int8,
}

/// States as a shard holds them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoded<'a> {
    /// The numbers, row by row, little-endian.
    pub states: &'a [u8],
    /// An f32 a row, little-endian, where the precision scales its rows; else empty.
    pub scales: &'a [u8],
}

/// As [`Encoded`], owned.
#[derive(Debug, Default)]
pub(super) struct EncodedBuffer {
    pub states: Vec<u8>,
    pub scales: Vec<u8>,
}

impl EncodedBuffer {
    pub(super) fn clear(&mut self) {
        self.states.clear();
        self.scales.clear();
    }

    pub(super) fn get(&self) -> Encoded<'_> {
        Encoded { states: &self.states, scales: &self.scales }
    }
}

impl Precision {
    /// Bytes of one number; [`Precision::Int8`] takes four more a patch or token.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// The name used in options, manifests and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The name of the data type in a safetensors header.
    pub fn safetensors(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Int8 => "I8",
        }
    }

    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
            Self::Int8 => Dtype::I8,
        }
    }

    /// Whether every row has a scale of its own beside its numbers.
    pub(super) fn has_scales(self) -> bool {
        self == Self::Int8
    }

    /// The first format version that knows it.
    pub(super) fn format_version(self) -> u64 {
        if self == Self::Int8 { 2 } else { 1 }
    }

    /// The largest finite value.
    pub fn max(self) -> f64 {
        match self {
            Self::F32 => f64::from(f32::MAX),
            Self::F16 => f16::MAX.to_f64(),
            Self::Bf16 => bf16::MAX.to_f64(),
            Self::Int8 => f64::from(int8::MAX),
        }
    }

    /// `values`, rows of `width`, rounded to nearest even and appended to `out`.
    pub(super) fn encode(self, values: &[f32], width: usize, out: &mut EncodedBuffer) {
        let bytes = &mut out.states;
        match self {
            Self::F32 => values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes())),
            Self::F16 => {
                let start = bytes.len();
                bytes.resize(start + 2 * values.len(), 0);
                let mut buffer = [f16::ZERO; 1024];
                for (from, to) in values.chunks(1024).zip(bytes[start..].chunks_mut(2048)) {
                    let halves = &mut buffer[..from.len()];
                    halves.convert_from_f32_slice(from);
                    halves.iter().zip(to.chunks_exact_mut(2)).for_each(|(h, b)| b.copy_from_slice(&h.to_le_bytes()));
                }
            }
            Self::Bf16 => values.iter().for_each(|&v| bytes.extend_from_slice(&bf16::from_f32(v).to_le_bytes())),
            Self::Int8 => int8::encode(values, width, out),
        }
    }

    /// The numbers of `from`, rows of `width`, as f32. It holds exactly `out.len()` numbers.
    pub(super) fn decode(self, from: Encoded, width: usize, out: &mut [f32]) {
        let bytes = from.states;
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
            Self::Int8 => int8::decode(from, width, out),
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
            let mut bytes = EncodedBuffer { states: vec![0u8], ..EncodedBuffer::default() };
            precision.encode(&values, 1, &mut bytes);
            let mut back = vec![0f32; values.len()];
            precision.decode(Encoded { states: &bytes.states[1..], scales: &[] }, 1, &mut back);
            let expected: Vec<f32> = values
                .iter()
                .map(|&v| match precision {
                    Precision::F32 => v,
                    Precision::F16 => f16::from_f32(v).to_f32(),
                    _ => bf16::from_f32(v).to_f32(),
                })
                .collect();
            assert_eq!(back, expected, "{precision}");
            let aligned = bytes.states[1..].to_vec();
            precision.decode(Encoded { states: &aligned, scales: &[] }, 1, &mut back);
            assert_eq!(back, expected, "{precision}, aligned");
        }
    }
}
