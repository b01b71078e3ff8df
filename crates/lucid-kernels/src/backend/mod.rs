//! The contract every backend fulfils: the operations the training step is written in.
//!
//! Conventions of all operations:
//!
//! - Arrays are row-major. `n` is a number of tokens, `d` a width, `K` a number of latents, `k` slots of a code.
//! - A buffer may be longer than its array; the array is its prefix. Callers keep buffers between micro-batches and
//!   grow them with [`Device::reserve`](crate::Device::reserve). An output not marked "+=" is overwritten without being read.
//! - "+=" means that the result is added to what the buffer holds.
//! - `sums` is a buffer of f64 slots that gathers losses and energies over a step and is read once at its end.
//! - Operands of products and of gathered sums are rounded as [`Precision`] says, once each; sums are not.
//! - An operation's result depends on its arguments only: not on the number of threads, nor on earlier calls.
//! - Shapes are checked where arrays enter ([`Pairs::new`](crate::Pairs::new), [`Codes::upload`], …). Inside, too short
//!   a buffer is a bug of the caller and may panic; it is never undefined behaviour.

mod barycenter;
mod decode;
mod encode;
mod guide;
mod loss;
mod optimise;
mod sinkhorn;

pub use barycenter::{Barycenter, Direction};
pub use decode::Decode;
pub use encode::Encode;
pub use guide::Guide;
pub use loss::{Factor, Loss};
pub use optimise::{AdamW, Optimise};
pub use sinkhorn::Sinkhorn;

use crate::codes::Codes;
use crate::error::KernelError;
use crate::precision::Precision;
use crate::ragged::Pairs;
use crate::transport::{Transport, TransportOptions};

/// The kernels of one device: those of every room, and what puts them together.
pub trait Backend: Encode + Decode + Guide + Sinkhorn + Barycenter + Loss + Optimise {
    /// The same device and threads, with operands in `precision`. Buffers of one serve the other.
    fn with_precision(&self, precision: Precision) -> Result<Self, KernelError>;

    /// Guided matching of pairs (spec 3): cost, weights, marginals, guided cost and plan of `transport`, which has room. What the
    /// operations above do one after the other, and errors as [`Sinkhorn::sinkhorn`].
    fn gcmt(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        admissible: Option<&Self::Buffer<Self::Real>>,
        options: &TransportOptions,
        transport: &mut Transport<Self>,
    ) -> Result<(), KernelError> {
        transport.by_operations(self, vision, text, pairs, admissible, options)
    }
}
