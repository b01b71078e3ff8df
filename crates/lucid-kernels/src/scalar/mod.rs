//! The reference backend: plain loops that read like the formulas, in f32 or f64, on one thread.

mod barycenter;
mod decode;
mod encode;
mod guide;
mod loss;
mod optimise;
mod sinkhorn;

use std::marker::PhantomData;

use crate::backend::Backend;
use crate::codes::Codes;
use crate::device::Device;
use crate::error::KernelError;
use crate::memory::host_memory;
use crate::precision::Precision;
use crate::real::Real;

/// The scalar backend in arithmetic `R`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalar<R> {
    precision: Precision,
    real: PhantomData<R>,
}

impl<R: Real> Scalar<R> {
    /// The backend, with operands as they are.
    #[must_use]
    pub const fn new() -> Self {
        Self { precision: Precision::F32, real: PhantomData }
    }
}

/// The used entries of a token's shared code: the leading slots whose index is below d_shared (see [`Codes`]), as
/// (slot, latent, value).
fn shared_entries<R: Real>(codes: &Codes<Scalar<R>>, token: usize) -> impl Iterator<Item = (usize, usize, R)> + Clone {
    let slots = token * codes.k..(token + 1) * codes.k;
    let d_shared = codes.shape.d_shared;
    slots
        .map(|slot| (slot, codes.indices[slot] as usize, codes.values[slot]))
        .take_while(move |&(_, latent, _)| latent < d_shared)
}

/// ⟨a, b⟩, summed in order.
fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).map(|(&x, &y)| x * y).sum()
}

/// `out += scale · values`.
fn add_scaled<R: Real>(out: &mut [R], scale: R, values: &[R]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out += scale * value;
    }
}

impl<R: Real> Device for Scalar<R> {
    type Real = R;
    host_memory!();

    fn name(&self) -> &'static str {
        if size_of::<R>() == 8 { "scalar-f64" } else { "scalar-f32" }
    }
}

impl<R: Real> Backend for Scalar<R> {
    fn with_precision(&self, precision: Precision) -> Result<Self, KernelError> {
        Ok(Self { precision, real: PhantomData })
    }
}
