//! The numbers kernels compute with.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, SubAssign};

use bytemuck::Pod;
use num_traits::Float;

/// A plain value that can lie in a device buffer.
pub trait Element: Pod + Default + PartialEq + Debug + Send + Sync + 'static {}

impl Element for f32 {}
impl Element for f64 {}
impl Element for u8 {}
impl Element for u32 {}
impl Element for u64 {}

/// The arithmetic of a backend: `f32`, or `f64` in the reference.
pub trait Real: Element + Float + Display + Sum + AddAssign + SubAssign + MulAssign + DivAssign {
    /// Rounds a constant (a coefficient, ε) to this type.
    fn from_f64(value: f64) -> Self;

    /// The exact value as `f64`, for sums that must not lose precision.
    fn widen(self) -> f64;

    /// The nearest `f32`.
    fn narrow(self) -> f32;
}

impl Real for f32 {
    #[allow(clippy::cast_possible_truncation)]
    fn from_f64(value: f64) -> Self {
        value as Self
    }

    fn widen(self) -> f64 {
        f64::from(self)
    }

    fn narrow(self) -> f32 {
        self
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }

    fn widen(self) -> f64 {
        self
    }

    #[allow(clippy::cast_possible_truncation)]
    fn narrow(self) -> f32 {
        self as f32
    }
}
