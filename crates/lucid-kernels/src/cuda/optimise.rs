//! AdamW and the unit sphere: launches of optimise.cu.

use super::Buffer;
use super::driver::Driver;
use super::launcher::{Context, blocks, launch, narrow};
use crate::backend::AdamW;
use crate::error::KernelError;

#[allow(clippy::cast_possible_truncation)]
pub(super) fn adamw<D: Driver>(
    context: &Context<D>,
    parameter: &mut Buffer<f32, D>,
    gradient: &Buffer<f32, D>,
    (first, second): (&mut Buffer<f32, D>, &mut Buffer<f32, D>),
    len: usize,
    constants: AdamW,
) -> Result<(), KernelError> {
    let AdamW { lr, beta1, beta2, eps, weight_decay, gradient_scale, count } = constants;
    let t = count as f64;
    launch!(context, "adamw", [blocks(len, 256 * 4), 1, 1], 256, 0;
        parameter.write_at(len), gradient.read_at(len), first.write_at(len), second.write_at(len), len as u64,
        gradient_scale as f32, (1.0 - lr * weight_decay) as f32, (lr / (1.0 - beta1.powf(t))) as f32,
        (1.0 - beta2.powf(t)).sqrt() as f32, eps as f32, beta1 as f32, beta2 as f32, (1.0 - beta1) as f32,
        (1.0 - beta2) as f32)
}

pub(super) fn project_rows<D: Driver>(
    context: &Context<D>,
    weights: &Buffer<f32, D>,
    rows: usize,
    d: usize,
    gradient: &mut Buffer<f32, D>,
) -> Result<(), KernelError> {
    launch!(context, "project_rows", [blocks(rows, 8), 1, 1], 256, 0;
        weights.read_at(rows * d), rows as u64, narrow("d", d)?, gradient.write_at(rows * d))
}

pub(super) fn normalise_rows<D: Driver>(
    context: &Context<D>,
    weights: &mut Buffer<f32, D>,
    rows: usize,
    d: usize,
) -> Result<(), KernelError> {
    launch!(context, "normalise_rows", [blocks(rows, 8), 1, 1], 256, 0;
        weights.write_at(rows * d), rows as u64, narrow("d", d)?)
}
