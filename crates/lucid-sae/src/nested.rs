//! Matryoshka: the same code must reconstruct with the first latents alone, at several widths (docs/rivals.md).

use lucid_kernels::{Backend, Block, Codes, Dictionary, Factor, KernelError, Real, UNUSED};

/// Buffers of the prefixes of a nested dictionary.
pub(crate) struct Nested<B: Backend> {
    codes: Codes<B>,
    d_values: B::Buffer<B::Real>,
}

impl<B: Backend> Nested<B> {
    pub fn new(backend: &B) -> Result<Self, KernelError> {
        let shape = lucid_kernels::CodeShape {
            d_shared: 0,
            d_private: 0,
            k_shared: 0,
            k_private: 0,
            selection: lucid_kernels::Selection::Global,
        };
        Ok(Self { codes: Codes::with_slots(backend, 0, 0, shape)?, d_values: backend.zeros(0)? })
    }

    /// Adds `scale · ‖h − ĥ_p‖²` of every prefix p but the whole dictionary: sums into `sums[slot]`, gradients into `d_values` and
    /// `gradients`. `target` is (h, scale, slot).
    pub fn add(
        &mut self,
        backend: &B,
        codes: &Codes<B>,
        dictionary: &Dictionary<B>,
        widths: &[usize],
        (acts, scale, slot): (&B::Buffer<B::Real>, f64, usize),
        prediction: &mut B::Buffer<B::Real>,
        sums: &mut B::Buffer<f64>,
        d_values: &mut B::Buffer<B::Real>,
        gradients: &mut Dictionary<B>,
    ) -> Result<(), KernelError> {
        let (n, k) = (codes.n, codes.k.max(1));
        let (indices, values) = codes.read(backend)?;
        let mut gathered = backend.read_vec(d_values, n * k)?;
        for &width in widths.iter().filter(|&&width| width < dictionary.latents) {
            // Slots below the width, moved to the front of their token; `from` remembers where they were.
            let (mut kept, mut kept_values) = (vec![UNUSED; n * k], vec![B::Real::from_f64(0.0); n * k]);
            let mut from = vec![usize::MAX; n * k];
            for token in 0..n {
                let mut to = token * k;
                for slot in token * k..(token + 1) * k {
                    if indices[slot] != UNUSED && (indices[slot] as usize) < width {
                        (kept[to], kept_values[to], from[to]) = (indices[slot], values[slot], slot);
                        to += 1;
                    }
                }
            }
            let part = &mut self.codes;
            part.shape = codes.shape;
            part.reserve(backend, n, k)?;
            backend.write(&mut part.indices, 0, &kept)?;
            backend.write(&mut part.values, 0, &kept_values)?;
            backend.decode(part, Block::Joint, dictionary, true, prediction)?;
            backend.residual(prediction, acts, n * dictionary.d, Factor::Constant(2.0 * scale), sums, slot)?;
            backend.reserve(&mut self.d_values, n * k)?;
            backend.clear(&mut self.d_values, n * k)?;
            let d_part = &mut self.d_values;
            backend.decode_backward(part, Block::Joint, dictionary, true, prediction, d_part, gradients)?;
            for (slot, value) in from.iter().zip(backend.read_vec(d_part, n * k)?) {
                if *slot != usize::MAX {
                    gathered[*slot] += value;
                }
            }
        }
        backend.write(d_values, 0, &gathered)
    }
}
