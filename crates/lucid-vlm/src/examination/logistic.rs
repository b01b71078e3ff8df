//! Multinomial logistic regression: the linear probe.

use crate::error::VlmError;
use candle_core::{Device, Tensor};

/// Steps of the optimiser at most.
const STEPS: usize = 100;
/// Pairs of steps and gradient changes that approximate the curvature.
const MEMORY: usize = 10;
/// The largest slope at which a fit counts as finished.
const TOLERANCE: f64 = 1e-4;

/// A fitted classifier of states.
pub(super) struct Logistic {
    mean: Vec<f32>,
    scale: Vec<f32>,
    /// [d + 1, classes], the intercept last.
    weights: Tensor,
}

/// Column means, and the factors that bring every column to variance one; 0 for a column that does not vary.
fn moments(states: &[f32], dim: usize) -> (Vec<f32>, Vec<f32>) {
    let n = (states.len() / dim) as f64;
    let (mut sum, mut squares) = (vec![0f64; dim], vec![0f64; dim]);
    for row in states.chunks_exact(dim) {
        row.iter().zip(&mut sum).for_each(|(&x, s)| *s += f64::from(x));
    }
    let mean: Vec<f64> = sum.iter().map(|s| s / n).collect();
    for row in states.chunks_exact(dim) {
        for ((&x, m), s) in row.iter().zip(&mean).zip(&mut squares) {
            *s += (f64::from(x) - m).powi(2);
        }
    }
    let inverse = |(s, m): (&f64, &f64)| {
        let deviation = (s / n).sqrt();
        if deviation > 1e-6 * m.abs().max(1e-6) { (1.0 / deviation) as f32 } else { 0.0 }
    };
    let scale = squares.iter().zip(&mean).map(inverse).collect();
    (mean.iter().map(|&m| m as f32).collect(), scale)
}

/// Standardised states with a column of ones, [n, d + 1].
fn design(states: &[f32], mean: &[f32], scale: &[f32]) -> Result<Tensor, VlmError> {
    let dim = mean.len();
    let n = states.len() / dim;
    let mut values = Vec::with_capacity(n * (dim + 1));
    for row in states.chunks_exact(dim) {
        values.extend(row.iter().zip(mean).zip(scale).map(|((&x, &m), &s)| (x - m) * s));
        values.push(1.0);
    }
    Ok(Tensor::from_vec(values, (n, dim + 1), &Device::Cpu)?)
}

/// The loss over one set of rows.
struct Objective<'a> {
    rows: Tensor,
    labels: &'a [u32],
    classes: usize,
    /// Weight of ½‖W‖², the intercept left out.
    penalty: f64,
}

impl Objective<'_> {
    /// Mean cross-entropy plus penalty, and its gradient.
    fn at(&self, w: &[f64]) -> Result<(f64, Vec<f64>), VlmError> {
        let (n, width) = self.rows.dims2()?;
        let k = self.classes;
        let weights: Vec<f32> = w.iter().map(|&v| v as f32).collect();
        let weights = Tensor::from_vec(weights, (width, k), &Device::Cpu)?;
        let mut scores = self.rows.matmul(&weights)?.flatten_all()?.to_vec1::<f32>()?;
        let mut loss = 0.0;
        let mut row64 = vec![0f64; k];
        for (row, &label) in scores.chunks_exact_mut(k).zip(self.labels) {
            let most = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
            let right = f64::from(row[label as usize] - most);
            row64.iter_mut().zip(&*row).for_each(|(e, &v)| *e = f64::from(v - most).exp());
            let total: f64 = row64.iter().sum();
            loss += total.ln() - right;
            row.iter_mut().zip(&row64).for_each(|(v, e)| *v = (e / total) as f32);
            row[label as usize] -= 1.0;
        }
        let residual = Tensor::from_vec(scores, (n, k), &Device::Cpu)?;
        let slope = self.rows.t()?.matmul(&residual)?.flatten_all()?.to_vec1::<f32>()?;
        let mut gradient: Vec<f64> = slope.iter().map(|&g| f64::from(g) / n as f64).collect();
        let inner = (width - 1) * k;
        gradient[..inner].iter_mut().zip(w).for_each(|(g, v)| *g += self.penalty * v);
        Ok((loss / n as f64 + 0.5 * self.penalty * dot(&w[..inner], &w[..inner]), gradient))
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn plus(a: &[f64], factor: f64, b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x + factor * y).collect()
}

/// The quasi-Newton direction from recent steps s and gradient changes y (two-loop recursion; Nocedal and Wright, algorithm 7.4).
fn direction(gradient: &[f64], memory: &[(Vec<f64>, Vec<f64>)]) -> Vec<f64> {
    let mut q = gradient.to_vec();
    let mut alphas = Vec::with_capacity(memory.len());
    for (s, y) in memory.iter().rev() {
        let alpha = dot(s, &q) / dot(s, y);
        q = plus(&q, -alpha, y);
        alphas.push(alpha);
    }
    if let Some((s, y)) = memory.last() {
        let scale = dot(s, y) / dot(y, y);
        q.iter_mut().for_each(|v| *v *= scale);
    }
    for ((s, y), alpha) in memory.iter().zip(alphas.into_iter().rev()) {
        let beta = dot(y, &q) / dot(s, y);
        q = plus(&q, alpha - beta, s);
    }
    q.iter_mut().for_each(|v| *v = -*v);
    q
}

/// L-BFGS from zero with a backtracking line search.
fn minimise(objective: &Objective<'_>, size: usize) -> Result<Vec<f64>, VlmError> {
    let mut w = vec![0f64; size];
    let (mut loss, mut gradient) = objective.at(&w)?;
    let mut memory: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
    for _ in 0..STEPS {
        if gradient.iter().all(|g| g.abs() < TOLERANCE) {
            break;
        }
        let d = direction(&gradient, &memory);
        let slope = dot(&gradient, &d);
        let mut rate = if memory.is_empty() { (1.0 / dot(&gradient, &gradient).sqrt()).min(1.0) } else { 1.0 };
        let mut found = None;
        for _ in 0..20 {
            let next = plus(&w, rate, &d);
            let (value, change) = objective.at(&next)?;
            if value <= loss + 1e-4 * rate * slope {
                found = Some((next, value, change));
                break;
            }
            rate *= 0.5;
        }
        // No lower point along the direction: what is left is rounding.
        let Some((next, value, change)) = found else { break };
        let (s, y) = (plus(&next, -1.0, &w), plus(&change, -1.0, &gradient));
        if dot(&s, &y) > 1e-12 {
            memory.push((s, y));
            if memory.len() > MEMORY {
                memory.remove(0);
            }
        }
        (w, loss, gradient) = (next, value, change);
    }
    Ok(w)
}

impl Logistic {
    /// Fits a softmax classifier of `classes` classes on states [n, dim] with L2 weight 1/n, features standardised on these
    /// states. The result depends on the order of the rows in its last bits only, and on nothing else but the rows. The two
    /// matrix products run on rayon's current pool; inside a pool of one thread the bits are the same on every machine with
    /// the same instruction set.
    pub fn fit(states: &[f32], dim: usize, labels: &[u32], classes: usize) -> Result<Self, VlmError> {
        let (mean, scale) = moments(states, dim);
        let penalty = 1.0 / labels.len() as f64;
        let objective = Objective { rows: design(states, &mean, &scale)?, labels, classes, penalty };
        let w = minimise(&objective, (dim + 1) * classes)?;
        let w: Vec<f32> = w.iter().map(|&v| v as f32).collect();
        Ok(Self { mean, scale, weights: Tensor::from_vec(w, (dim + 1, classes), &Device::Cpu)? })
    }

    /// The most probable class of each state; ties go to the lower class.
    pub fn predict(&self, states: &[f32]) -> Result<Vec<u32>, VlmError> {
        let scores = design(states, &self.mean, &self.scale)?.matmul(&self.weights)?.to_vec2::<f32>()?;
        let best = |row: &Vec<f32>| (0..row.len()).fold(0, |best, c| if row[c] > row[best] { c } else { best }) as u32;
        Ok(scores.iter().map(best).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers;
    use lucid_data::scenes::Stream;

    /// Three classes; the first two of eight features hold the class as far as `signal` says.
    fn data(n: usize, signal: f32, seed: u64) -> (Vec<f32>, Vec<u32>) {
        let mut stream = Stream::new(seed, 0, 0);
        let centres = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]];
        let (mut states, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let label = stream.below(3);
            for f in 0..8 {
                let offset = if f < 2 { signal * centres[label][f] } else { 5.0 };
                states.push(offset + stream.between(-0.4, 0.4) * (1.0 + f as f32));
            }
            labels.push(label as u32);
        }
        (states, labels)
    }

    fn accuracy(found: &[u32], labels: &[u32]) -> f64 {
        found.iter().zip(labels).filter(|(a, b)| a == b).count() as f64 / labels.len() as f64
    }

    #[test]
    fn separable_classes_are_told_apart_and_noise_is_not() {
        for (signal, range) in [(3.0, 0.999..=1.0), (0.0, 0.25..=0.42)] {
            let ((x, y), (test, truth)) = (data(600, signal, 1), data(600, signal, 2));
            let model = Logistic::fit(&x, 8, &y, 3).unwrap();
            let share = accuracy(&model.predict(&test).unwrap(), &truth);
            assert!(range.contains(&share), "signal {signal}: {share}");
        }
    }

    #[test]
    fn the_fit_is_a_minimum() {
        let (x, y) = data(200, 0.4, 3);
        let (mean, scale) = moments(&x, 8);
        let objective =
            Objective { rows: design(&x, &mean, &scale).unwrap(), labels: &y, classes: 3, penalty: 1.0 / 200.0 };
        let w = minimise(&objective, 27).unwrap();
        let (loss, gradient) = objective.at(&w).unwrap();
        assert!(gradient.iter().all(|g| g.abs() < TOLERANCE), "{gradient:?}");
        // Steps of a hundredth: large against f32 rounding of the products, small against the curvature.
        for i in 0..w.len() {
            for step in [-0.01, 0.01] {
                let mut moved = w.clone();
                moved[i] += step;
                let (other, slope) = objective.at(&moved).unwrap();
                assert!(other > loss, "coordinate {i}");
                let expected = loss + 0.5 * (gradient[i] + slope[i]) * step;
                assert!((other - expected).abs() < 1e-6, "gradient of coordinate {i}: {other} and {expected}");
            }
        }
    }

    #[test]
    fn the_order_of_rows_moves_last_bits_only_and_threads_move_nothing() {
        let (x, y) = data(300, 1.0, 4);
        let weights = |x: &[f32], y: &[u32]| -> Vec<f32> {
            Logistic::fit(x, 8, y, 3).unwrap().weights.flatten_all().unwrap().to_vec1().unwrap()
        };
        let once = weights(&x, &y);
        let reversed: Vec<f32> = x.chunks_exact(8).rev().flatten().copied().collect();
        let labels: Vec<u32> = y.iter().rev().copied().collect();
        for (a, b) in once.iter().zip(weights(&reversed, &labels)) {
            // Two points with slopes below the tolerance, over a curvature of at least the penalty 1/300 for all but the intercept.
            assert!((a - b).abs() < 0.05, "{a} and {b}");
        }
        for threads in [1, 3] {
            let all = workers::each(threads, 4, &|| false, |_| Ok::<_, ()>(weights(&x, &y))).unwrap().unwrap();
            assert!(all.iter().all(|w| *w == all[0]));
            assert_eq!(all[0], workers::each(1, 1, &|| false, |_| Ok::<_, ()>(weights(&x, &y))).unwrap().unwrap()[0]);
        }
    }

    #[test]
    fn constant_features_and_missing_classes_do_no_harm() {
        let states = [1.0, 7.0, 2.0, 7.0, 3.0, 7.0, 4.0, 7.0];
        let model = Logistic::fit(&states, 2, &[0, 0, 2, 2], 4).unwrap();
        assert_eq!(model.predict(&states).unwrap(), [0, 0, 2, 2]);
        let single = Logistic::fit(&states, 2, &[1, 1, 1, 1], 4).unwrap();
        assert_eq!(single.predict(&states).unwrap(), [1; 4]);
    }
}
