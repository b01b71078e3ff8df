//! The backend that models and training use.

/// The CPU backend in f32.
pub type Cpu = lucid_kernels::Scalar<f32>;
