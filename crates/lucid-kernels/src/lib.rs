//! Every numeric kernel of lucid-sae: one contract ([`Backend`]), a scalar reference generic over f32 and f64
//! ([`scalar`]), a fast f32 backend ([`cpu`]) and CUDA kernels ([`cuda`]). No I/O.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backend;
pub mod codes;
pub mod cpu;
#[cfg(any(feature = "cuda", feature = "cuda-shim"))]
pub mod cuda;
pub mod dead;
pub mod device;
pub mod error;
mod memory;
pub mod precision;
pub mod ragged;
pub mod real;
pub mod scalar;
pub mod transport;

pub use backend::{AdamW, Backend, Barycenter, Decode, Direction, Encode, Factor, Guide, Loss, Optimise, Sinkhorn};
pub use codes::{Block, CodeShape, Codes, Dictionary, Modality, Selection, UNUSED};
pub use dead::{DeadCounters, DeadLists};
pub use device::{Device, Staging};
pub use error::KernelError;
pub use precision::Precision;
pub use ragged::{Pairs, Ragged};
pub use real::{Element, Real};
pub use scalar::Scalar;
pub use transport::{Plan, SinkhornOptions, Transport, TransportOptions};
