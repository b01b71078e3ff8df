//! AdamW, and Muon for the matrices of the blocks: momentum made orthogonal by five Newton–Schulz steps (Jordan et al. 2024),
//! scaled so that its updates are as large as AdamW's (Liu et al. 2025), which lets both share one learning rate.

use crate::mini_training::trainee::Trainee;
use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

/// Moments of one parameter.
#[derive(Clone)]
pub struct Moments {
    /// First moment (AdamW) or momentum (Muon).
    pub first: Vec<f32>,
    /// Second moment; empty under Muon.
    pub second: Vec<f32>,
}

/// State of the optimiser: one entry per parameter.
pub struct Optimiser {
    /// Moments in the order of the parameters.
    pub moments: Vec<Moments>,
    /// Steps taken.
    pub step: u64,
    muon: Vec<bool>,
    decay: Vec<bool>,
}

/// Settings of one step.
pub struct StepOptions {
    /// Learning rate.
    pub rate: f64,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient.
    pub clip: f64,
}

const BETA: (f64, f64) = (0.9, 0.99);
const MOMENTUM: f32 = 0.95;

impl Optimiser {
    /// Zero moments for the parameters of `trainee`; `muon` selects Muon for the matrices of the blocks.
    pub fn new(trainee: &Trainee, muon: bool) -> Self {
        let matrix = |p: &super::trainee::Parameter| p.var.rank() == 2 && !p.name.contains("embeddings");
        let in_block = |name: &str| name.contains("encoder.layers") || name.contains("vision_model.head");
        let by_muon: Vec<bool> = trainee.parameters.iter().map(|p| muon && matrix(p) && in_block(&p.name)).collect();
        let moments = trainee
            .parameters
            .iter()
            .zip(&by_muon)
            .map(|(p, &m)| {
                let count = p.var.elem_count();
                Moments { first: vec![0.0; count], second: vec![0.0; if m { 0 } else { count }] }
            })
            .collect();
        Self { moments, step: 0, muon: by_muon, decay: trainee.parameters.iter().map(matrix).collect() }
    }

    /// One step with the gradients `grads` (in the order of the parameters), parameters spread over `pool`. Returns the norm
    /// of the whole gradient.
    pub fn apply(
        &mut self,
        trainee: &Trainee,
        grads: &[Vec<f32>],
        options: &StepOptions,
        pool: &rayon::ThreadPool,
    ) -> Result<f64> {
        let square: f64 = grads.iter().flatten().map(|&g| f64::from(g) * f64::from(g)).sum();
        let norm = square.sqrt();
        let factor = (options.clip / (norm + 1e-6)).min(1.0) as f32;
        self.step += 1;
        let (step, muon_for, decay) = (self.step, &self.muon, &self.decay);
        let update = |(i, (moments, grad)): (usize, (&mut Moments, &Vec<f32>))| -> Result<()> {
            let mut values = trainee.values(i)?;
            if decay[i] {
                let keep = (1.0 - options.rate * options.weight_decay) as f32;
                values.iter_mut().for_each(|v| *v *= keep);
            }
            if muon_for[i] {
                let (rows, columns) = trainee.parameters[i].var.dims2()?;
                muon(&mut values, moments, grad, factor, rows, columns, options.rate as f32)?;
            } else {
                adam(&mut values, moments, grad, factor, step, options.rate);
            }
            trainee.set(i, values)
        };
        pool.install(|| self.moments.par_iter_mut().zip(grads).enumerate().try_for_each(update))?;
        Ok(norm)
    }
}

fn adam(values: &mut [f32], moments: &mut Moments, grad: &[f32], factor: f32, step: u64, rate: f64) {
    let (b1, b2) = (BETA.0 as f32, BETA.1 as f32);
    let rate = (rate / (1.0 - BETA.0.powf(step as f64))) as f32;
    let correction = (1.0 / (1.0 - BETA.1.powf(step as f64))) as f32;
    for (((value, m), v), &g) in values.iter_mut().zip(&mut moments.first).zip(&mut moments.second).zip(grad) {
        let g = g * factor;
        *m = b1 * *m + (1.0 - b1) * g;
        *v = b2 * *v + (1.0 - b2) * g * g;
        *value -= rate * *m / ((*v * correction).sqrt() + 1e-8);
    }
}

fn muon(
    values: &mut [f32],
    moments: &mut Moments,
    grad: &[f32],
    factor: f32,
    rows: usize,
    columns: usize,
    rate: f32,
) -> Result<()> {
    let mut direction = Vec::with_capacity(grad.len());
    for (m, &g) in moments.first.iter_mut().zip(grad) {
        let g = g * factor;
        *m = MOMENTUM * *m + g;
        direction.push(g + MOMENTUM * *m);
    }
    // The stacked projections of the attention head are three matrices, not one.
    let height = if rows == 3 * columns { columns } else { rows };
    let scale = rate * 0.2 * (height.max(columns) as f32).sqrt();
    for (block, values) in direction.chunks_exact(height * columns).zip(values.chunks_exact_mut(height * columns)) {
        let update = orthogonal(block, height, columns)?;
        values.iter_mut().zip(&update).for_each(|(v, u)| *v -= scale * u);
    }
    Ok(())
}

/// The nearest matrix with (about) equal singular values: five steps of the quintic Newton–Schulz iteration.
fn orthogonal(matrix: &[f32], rows: usize, columns: usize) -> Result<Vec<f32>> {
    let norm = matrix.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    let x = Tensor::from_slice(matrix, (rows, columns), &Device::Cpu)?;
    let mut x = (x / (norm + 1e-12))?;
    if rows > columns {
        x = x.t()?.contiguous()?;
    }
    for _ in 0..5 {
        let a = x.matmul(&x.t()?)?;
        let b = ((&a * -4.775)? + (a.matmul(&a)? * 2.0315)?)?;
        x = ((&x * 3.4445)? + b.matmul(&x)?)?;
    }
    if rows > columns {
        x = x.t()?.contiguous()?;
    }
    x.flatten_all()?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lucid_data::scenes::Stream;

    #[test]
    fn orthogonalised_matrices_have_near_unit_singular_values() {
        let mut stream = Stream::new(1, 0, 0);
        for (rows, columns) in [(12, 12), (8, 20), (20, 8)] {
            let matrix: Vec<f32> = (0..rows * columns).map(|_| stream.between(-1.0, 1.0)).collect();
            let y = orthogonal(&matrix, rows, columns).unwrap();
            // Of the smaller Gram matrix: the trace is the sum of the squared singular values.
            let square: f32 = y.iter().map(|v| v * v).sum();
            let mean = square / rows.min(columns) as f32;
            assert!((0.6..1.3).contains(&mean), "{rows}x{columns}: {mean}");
            // It points where the matrix pointed.
            let along: f32 = y.iter().zip(&matrix).map(|(a, b)| a * b).sum();
            assert!(along > 0.0);
        }
    }

    #[test]
    fn adam_moves_by_the_rate_at_first() {
        let mut values = vec![1.0, -2.0];
        let mut moments = Moments { first: vec![0.0; 2], second: vec![0.0; 2] };
        adam(&mut values, &mut moments, &[0.3, -5.0], 1.0, 1, 0.01);
        assert!((values[0] - 0.99).abs() < 1e-6 && (values[1] + 1.99).abs() < 1e-6);
    }
}
