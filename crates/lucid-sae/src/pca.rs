//! Principal components as a dictionary: what directions of variance alone explain and align.

use lucid_data::store::ActivationSource;
use lucid_kernels::Modality;

use crate::error::SaeError;
use crate::linear::Products;
use crate::normalisation::Normalisation;

/// Pairs looked at, spread evenly over the store.
const PAIRS: usize = 2048;

/// Rows of W_dec \[latents · d\]: the principal components of normalised states by falling variance, each followed by its opposite (codes
/// are positive); rows beyond 2 · d are 0.
pub(crate) fn components(
    source: &dyn ActivationSource,
    normalisation: &Normalisation,
    modality: Modality,
    latents: usize,
) -> Result<Vec<f32>, SaeError> {
    let d = normalisation.of(modality).d();
    let mut products = Products::new(d, 0);
    let (mut sum, mut tokens) = (vec![0.0; d], 0.0);
    let pairs = source.pairs().min(PAIRS);
    for pair in (0..pairs).map(|at| at * source.pairs() / pairs) {
        let length = match modality {
            Modality::Vision => source.vision_len(pair),
            Modality::Text => source.text_len(pair, 0),
        };
        let mut states = vec![0.0; length * d];
        match modality {
            Modality::Vision => source.read_vision(pair, &mut states)?,
            Modality::Text => source.read_text(pair, 0, &mut states)?,
        }
        normalisation.of(modality).apply(&mut states);
        let states: Vec<f64> = states.into_iter().map(f64::from).collect();
        states.chunks_exact(d).for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
        tokens += length as f64;
        products.add_square(&states);
    }
    let mut covariance = products.xx;
    for i in 0..d {
        for j in 0..d {
            covariance[i * d + j] = covariance[i * d + j] / tokens - sum[i] / tokens * (sum[j] / tokens);
        }
    }
    let (values, vectors) = eigen(covariance, d);
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    let mut rows = vec![0.0; latents * d];
    for (row, out) in rows.chunks_exact_mut(d).enumerate().take(2 * d) {
        let (column, sign) = (order[row / 2], if row % 2 == 0 { 1.0 } else { -1.0 });
        out.iter_mut().enumerate().for_each(|(i, out)| *out = (sign * vectors[i * d + column]) as f32);
    }
    Ok(rows)
}

/// Eigenvalues and eigenvectors (columns) of a symmetric matrix \[n · n\], by Jacobi's cyclic rotations.
fn eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    let scale: f64 = a.iter().map(|x| x * x).sum();
    for _sweep in 0..60 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if off <= 1e-26 * scale {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a[p * n + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let t = if theta == 0.0 { 1.0 } else { t };
                let cosine = 1.0 / t.hypot(1.0);
                let sine = t * cosine;
                for i in 0..n {
                    let (x, y) = (a[i * n + p], a[i * n + q]);
                    (a[i * n + p], a[i * n + q]) = (cosine * x - sine * y, sine * x + cosine * y);
                }
                for i in 0..n {
                    let (x, y) = (a[p * n + i], a[q * n + i]);
                    (a[p * n + i], a[q * n + i]) = (cosine * x - sine * y, sine * x + cosine * y);
                    let (x, y) = (vectors[i * n + p], vectors[i * n + q]);
                    (vectors[i * n + p], vectors[i * n + q]) = (cosine * x - sine * y, sine * x + cosine * y);
                }
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::eigen;

    #[test]
    fn the_vectors_diagonalise() {
        let n = 7;
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let value = ((3 * i + 5 * j) % 11) as f64 - 4.0 + if i == j { 9.0 } else { 0.0 };
                (a[i * n + j], a[j * n + i]) = (value, value);
            }
        }
        let (values, vectors) = eigen(a.clone(), n);
        for column in 0..n {
            let v: Vec<f64> = (0..n).map(|i| vectors[i * n + column]).collect();
            assert!((v.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-12);
            for i in 0..n {
                let product: f64 = (0..n).map(|j| a[i * n + j] * v[j]).sum();
                assert!((product - values[column] * v[i]).abs() < 1e-10);
            }
        }
    }
}
