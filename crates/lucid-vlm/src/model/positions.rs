//! A learned table of positions on another grid, as SigLIP 2 NaFlex reads its own.

use candle_core::{Result, Tensor};

/// The inputs of one output and their weights: a triangle as wide as the larger of the two steps, cut at the edges.
fn taps(from: usize, to: usize, at: usize) -> (usize, Vec<f32>) {
    let scale = from as f32 / to as f32;
    let support = scale.max(1.0);
    let centre = scale * (at as f32 + 0.5);
    let first = (centre - support + 0.5).max(0.0) as usize;
    let end = ((centre + support + 0.5) as usize).min(from);
    let weights: Vec<f32> =
        (first..end).map(|i| (1.0 - ((i as f32 - centre + 0.5) / support).abs()).max(0.0)).collect();
    let total: f32 = weights.iter().sum();
    (first, weights.into_iter().map(|w| w / total).collect())
}

/// The [to, from] matrix of [`taps`].
fn resampling(from: usize, to: usize, like: &Tensor) -> Result<Tensor> {
    let mut matrix = vec![0f32; from * to];
    for (at, row) in matrix.chunks_exact_mut(from).enumerate() {
        let (first, weights) = taps(from, to, at);
        row[first..first + weights.len()].copy_from_slice(&weights);
    }
    Tensor::from_vec(matrix, (to, from), like.device())?.to_dtype(like.dtype())
}

/// `table` [side², d], row-major, resampled to `rows` × `columns`: bilinear with antialiasing, corners not aligned (PyTorch's
/// `interpolate(mode="bilinear", antialias=True)`). [rows · columns, d].
pub(super) fn on_grid(table: &Tensor, [rows, columns]: [usize; 2]) -> Result<Tensor> {
    let (positions, d) = table.dims2()?;
    let side = positions.isqrt();
    if [rows, columns] == [side, side] {
        return Ok(table.clone());
    }
    let across = resampling(side, columns, table)?.broadcast_left(side)?.contiguous()?;
    let wide = across.matmul(&table.reshape((side, side, d))?.contiguous()?)?;
    let down = resampling(side, rows, table)?;
    down.matmul(&wide.reshape((side, columns * d))?)?.reshape((rows * columns, d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn weights_sum_to_one_and_a_plane_stays_a_plane_inside() {
        for (from, to) in [(4, 7), (16, 5), (3, 3), (1, 4), (9, 1)] {
            for at in 0..to {
                let (first, weights) = taps(from, to, at);
                assert!(first + weights.len() <= from && (weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            }
        }
        // Values 10 r + c: upsampled, a linear function stays one away from the edges.
        let values: Vec<f32> = (0..36).map(|i| (10 * (i / 6) + i % 6) as f32).collect();
        let table = Tensor::from_vec(values, (36, 1), &Device::Cpu).unwrap();
        let found = on_grid(&table, [12, 9]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for r in 2..10 {
            for c in 2..7 {
                let expected = 10.0 * ((r as f32 + 0.5) / 2.0 - 0.5) + (c as f32 + 0.5) * 6.0 / 9.0 - 0.5;
                assert!((found[r * 9 + c] - expected).abs() < 1e-4, "{r}, {c}: {} {expected}", found[r * 9 + c]);
            }
        }
    }
}
