//! Codes whose entries are not chosen token by token: over a whole batch, or over both modalities (docs/rivals.md).
//!
//! Selection happens on the host; everything before and after it is the kernels' work.

use lucid_kernels::{Backend, CodeShape, Codes, Dictionary, KernelError, Modality, Real, Selection, UNUSED};
use rayon::prelude::*;

use crate::batch::{MicroBatch, Sides};
use crate::config::Config;
use crate::method::Method;
use crate::params::Params;

/// The shape that holds every candidate of BatchTopK and JumpReLU.
pub(crate) fn wide_shape(config: &Config) -> CodeShape {
    CodeShape {
        d_shared: config.latents(),
        d_private: 0,
        k_shared: config.widest(),
        k_private: 0,
        selection: Selection::Global,
    }
}

/// The cut of BatchTopK: entries above it are kept, and the first `ties` of those that equal it.
struct Cut<R> {
    value: R,
    ties: usize,
}

/// The cut that keeps the `keep` largest of `values`; all of them where there are no more.
fn cut<R: Real>(mut values: Vec<R>, keep: usize) -> Option<Cut<R>> {
    if keep >= values.len() {
        return None;
    }
    let falling = |a: &R, b: &R| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal);
    let (above, &mut value, _) = values.select_nth_unstable_by(keep.max(1) - 1, falling);
    // Of those before the position some may equal the value there.
    let ties = above.iter().filter(|&&other| other == value).count() + 1;
    Some(Cut { value, ties })
}

/// BatchTopK: `codes` of every micro-batch hold candidates, a token's by falling value; the k·N largest of the batch stay, ties
/// to the earlier token.
pub(crate) fn batch_topk<B: Backend>(
    backend: &B,
    k: usize,
    codes: &mut [&mut Codes<B>],
    shape: CodeShape,
) -> Result<(), KernelError> {
    let mut host = Vec::with_capacity(codes.len());
    for codes in codes.iter() {
        host.push(codes.read(backend)?);
    }
    let tokens: usize = codes.iter().map(|codes| codes.n).sum();
    let candidates: Vec<B::Real> = host
        .iter()
        .flat_map(|(indices, values)| indices.iter().zip(values).filter(|(index, _)| **index != UNUSED))
        .map(|(_, value)| *value)
        .collect();
    let mut cut = cut(candidates, k * tokens);
    for ((indices, values), codes) in host.iter().zip(codes) {
        let width = codes.k.max(1);
        let kept: Vec<usize> = indices
            .chunks_exact(width)
            .zip(values.chunks_exact(width))
            .map(|(indices, values)| {
                let mut stays = |(index, value): (&u32, &B::Real)| {
                    if *index == UNUSED {
                        return false;
                    }
                    let Some(cut) = &mut cut else { return true };
                    let tie = *value == cut.value && cut.ties > 0;
                    cut.ties -= usize::from(tie);
                    *value > cut.value || tie
                };
                indices.iter().zip(values).take_while(|&entry| stays(entry)).count()
            })
            .collect();
        let slots = kept.iter().copied().max().unwrap_or(0).max(1);
        let mut packed_indices = vec![UNUSED; codes.n * slots];
        let mut packed_values = vec![B::Real::from_f64(0.0); codes.n * slots];
        for (token, &count) in kept.iter().enumerate() {
            let (to, from) = (token * slots, token * width);
            packed_indices[to..to + count].copy_from_slice(&indices[from..from + count]);
            packed_values[to..to + count].copy_from_slice(&values[from..from + count]);
        }
        replace(backend, codes, slots, &packed_indices, &packed_values)?;
        codes.shape = shape;
    }
    Ok(())
}

/// Puts host arrays of `slots` a token into `codes`.
fn replace<B: Backend>(
    backend: &B,
    codes: &mut Codes<B>,
    slots: usize,
    indices: &[u32],
    values: &[B::Real],
) -> Result<(), KernelError> {
    let n = codes.n;
    codes.reserve(backend, n, slots)?;
    backend.write(&mut codes.indices, 0, indices)?;
    backend.write(&mut codes.values, 0, values)
}

/// Makes `codes` of a list of entries a token, `slots` slots each.
pub(crate) fn store<B: Backend>(
    backend: &B,
    codes: &mut Codes<B>,
    slots: usize,
    lists: &[impl AsRef<[(u32, B::Real)]>],
) -> Result<(), KernelError> {
    let (mut indices, mut values) =
        (vec![UNUSED; lists.len() * slots], vec![B::Real::from_f64(0.0); lists.len() * slots]);
    for (token, entries) in lists.iter().enumerate() {
        for (slot, &(index, value)) in entries.as_ref().iter().enumerate() {
            (indices[token * slots + slot], values[token * slots + slot]) = (index, value);
        }
    }
    codes.n = lists.len();
    replace(backend, codes, slots, &indices, &values)
}

/// A dictionary's encoder on the host.
struct HostEncoder<R> {
    rows: Vec<R>,
    bias: Vec<R>,
    pre_bias: Vec<R>,
    d: usize,
}

impl<R: Real> HostEncoder<R> {
    fn read<B: Backend<Real = R>>(backend: &B, dictionary: &Dictionary<B>) -> Result<Self, KernelError> {
        let (d, latents) = (dictionary.d, dictionary.latents);
        Ok(Self {
            rows: backend.read_vec(&dictionary.w_enc_t, latents * d)?,
            bias: backend.read_vec(&dictionary.b_enc, latents)?,
            pre_bias: backend.read_vec(&dictionary.b_dec, d)?,
            d,
        })
    }

    /// a = W_encᵀ (h − b_dec) + b_enc.
    fn pre_activations(&self, state: &[R]) -> Vec<R> {
        let centred: Vec<R> = state.iter().zip(&self.pre_bias).map(|(&h, &b)| h - b).collect();
        let product = |row: &[R]| row.iter().zip(&centred).fold(R::zero(), |sum, (&w, &h)| sum + w * h);
        self.rows.chunks_exact(self.d).zip(&self.bias).map(|(row, &bias)| product(row) + bias).collect()
    }
}

/// SPARC and the concatenation: the k largest positive sums of both modalities' pre-activations name the latents of a pair.
/// SPARC's codes hold each modality's own positive values there; those of the concatenation hold the sums, the same in
/// both.
pub(crate) fn common<B: Backend>(
    backend: &B,
    config: &Config,
    params: &Params<B>,
    batch: &[MicroBatch<B>],
    codes: &mut [Sides<Codes<B>>],
) -> Result<(), KernelError> {
    let encoders =
        Sides { vision: HostEncoder::read(backend, &params.vision)?, text: HostEncoder::read(backend, &params.text)? };
    let (k, own) = (config.k(), config.method == Method::Sparc);
    for (micro, codes) in batch.iter().zip(codes) {
        let n = micro.pairs.len();
        let states = |m: Modality| backend.read_vec(micro.acts.of(m), n * params.of(m).d);
        let (vision, text) = (states(Modality::Vision)?, states(Modality::Text)?);
        let chosen: Vec<[Entries<B::Real>; 2]> = (0..n)
            .into_par_iter()
            .map(|pair| {
                let row = |states: &[B::Real], d: usize| states[pair * d..(pair + 1) * d].to_vec();
                let a = encoders.vision.pre_activations(&row(&vision, params.vision.d));
                let b = encoders.text.pre_activations(&row(&text, params.text.d));
                let sums: Vec<B::Real> = a.iter().zip(&b).map(|(&a, &b)| a + b).collect();
                let top = largest(&sums, k);
                match own {
                    true => [at(&a, &top), at(&b, &top)],
                    false => [at(&sums, &top), at(&sums, &top)],
                }
            })
            .collect();
        for (side, m) in Modality::ALL.into_iter().enumerate() {
            let lists: Vec<&[(u32, B::Real)]> = chosen.iter().map(|rows| rows[side].as_slice()).collect();
            store(backend, codes.of_mut(m), k, &lists)?;
        }
    }
    Ok(())
}

/// Latents of a row and their values.
type Entries<R> = Vec<(u32, R)>;

/// The `k` largest positive entries, ties to the lower index.
pub(crate) fn largest<R: Real>(values: &[R], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..values.len() as u32).filter(|&index| values[index as usize] > R::zero()).collect();
    sort_falling(&mut order, values);
    order.truncate(k);
    order
}

/// The positive entries at `indices`, in the order of slots.
fn at<R: Real>(values: &[R], indices: &[u32]) -> Vec<(u32, R)> {
    let mut order: Vec<u32> = indices.iter().copied().filter(|&index| values[index as usize] > R::zero()).collect();
    sort_falling(&mut order, values);
    order.into_iter().map(|index| (index, values[index as usize])).collect()
}

fn sort_falling<R: Real>(order: &mut [u32], values: &[R]) {
    order.sort_by(|&a, &b| {
        let falling = values[b as usize].partial_cmp(&values[a as usize]);
        falling.unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(&b))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_keeps_as_many_as_asked_with_ties() {
        let keep = |values: &[f64], keep: usize| {
            let cut = cut(values.to_vec(), keep).unwrap();
            let above = values.iter().filter(|&&value| value > cut.value).count();
            (cut.value, above + cut.ties)
        };
        assert_eq!(keep(&[1.0, 5.0, 3.0, 3.0, 3.0, 2.0], 3), (3.0, 3));
        assert_eq!(keep(&[1.0, 5.0, 4.0], 1), (5.0, 1));
        assert_eq!(keep(&[2.0, 2.0, 2.0], 2), (2.0, 2));
        assert!(cut(vec![1.0, 2.0], 2).is_none());
    }
}
