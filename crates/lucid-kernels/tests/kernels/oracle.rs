//! The formulas of the spec on dense arrays in f64, written without regard to cost.

use lucid_kernels::{Block, Direction, Pairs};

use crate::common::{HostCodes, HostDictionary, dot};

/// a = W_encᵀ (h − b_dec) + b_enc of one token \[K\].
pub fn pre_activations(h: &[f64], dictionary: &HostDictionary) -> Vec<f64> {
    let centred: Vec<f64> = h.iter().zip(&dictionary.b_dec).map(|(h, b)| h - b).collect();
    let rows = dictionary.w_enc_t.chunks_exact(dictionary.d);
    rows.zip(&dictionary.b_enc).map(|(row, b)| dot(row, &centred) + b).collect()
}

/// W_decᵀ z_block (+ b_dec) \[n · d\].
pub fn decode(codes: &HostCodes, block: Block, dictionary: &HostDictionary, bias: bool) -> Vec<f64> {
    let mut out = Vec::new();
    for z in codes.dense(block) {
        for x in 0..dictionary.d {
            let sum: f64 = z.iter().enumerate().map(|(k, z)| z * dictionary.w_dec[k * dictionary.d + x]).sum();
            out.push(sum + if bias { dictionary.b_dec[x] } else { 0.0 });
        }
    }
    out
}

pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

/// C_ij of all pairs.
pub fn cosine_cost(vision: &HostCodes, text: &HostCodes, pairs: &Pairs) -> Vec<f64> {
    let (v, t) = (vision.dense(Block::Shared), text.dense(Block::Shared));
    let mut out = Vec::new();
    for pair in 0..pairs.len() {
        for i in pairs.vision.range(pair) {
            out.extend(pairs.text.range(pair).map(|j| 1.0 - cosine(&v[i], &t[j])));
        }
    }
    out
}

/// w_j of all pairs.
pub fn mass_weights(vision: &HostCodes, text: &HostCodes, pairs: &Pairs) -> Vec<f64> {
    let (v, t) = (vision.dense(Block::Shared), text.dense(Block::Shared));
    let mut out = Vec::new();
    for pair in 0..pairs.len() {
        let patches = pairs.vision.range(pair);
        let mut g = vec![0.0; vision.shape.latents()];
        for i in patches.clone() {
            g.iter_mut().zip(&v[i]).for_each(|(g, z)| *g += z / patches.len() as f64);
        }
        out.extend(pairs.text.range(pair).map(|j| cosine(&g, &t[j]).max(0.0)));
    }
    out
}

/// c of all pairs.
pub fn column_marginal(weights: &[f64], pairs: &Pairs) -> Vec<f64> {
    let mut out = Vec::new();
    for pair in 0..pairs.len() {
        let w = &weights[pairs.text.range(pair)];
        let delta = 1e-6 * w.iter().sum::<f64>() / w.len() as f64;
        let total: f64 = w.iter().map(|w| w + delta).sum();
        out.extend(w.iter().map(|w| if total > 0.0 { (w + delta) / total } else { 1.0 / w_count(pairs, pair) }));
    }
    out
}

fn w_count(pairs: &Pairs, pair: usize) -> f64 {
    pairs.text.length(pair) as f64
}

/// One pair's plan after `iterations` rounds, with its scalings: (Π, u, v).
pub fn sinkhorn(
    cost: &[f64],
    row: &[f64],
    column: &[f64],
    epsilon: f64,
    iterations: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (m, n) = (row.len(), column.len());
    let k: Vec<f64> = cost.iter().map(|c| (-c / epsilon).exp()).collect();
    let (mut u, mut v) = (vec![0.0; m], vec![1.0; n]);
    for _ in 0..iterations {
        for i in 0..m {
            u[i] = row[i] / (0..n).map(|j| k[i * n + j] * v[j]).sum::<f64>();
        }
        for j in 0..n {
            v[j] = column[j] / (0..m).map(|i| k[i * n + j] * u[i]).sum::<f64>();
        }
    }
    let plan = (0..m * n).map(|cell| u[cell / n] * k[cell] * v[cell % n]).collect();
    (plan, u, v)
}

/// Barycentres of all pairs \[N_target · d\].
pub fn barycenter(plan: &[f64], pairs: &Pairs, direction: Direction, d: usize, y: &[f64]) -> Vec<f64> {
    let mut out = Vec::new();
    for pair in 0..pairs.len() {
        let (first, columns) = (pairs.cells.range(pair).start, pairs.text.length(pair));
        let source = direction.source(pairs).range(pair);
        for target in 0..direction.target(pairs).length(pair) {
            let mass: Vec<f64> = (0..source.len())
                .map(|s| match direction {
                    Direction::T2V => plan[first + target * columns + s],
                    Direction::V2T => plan[first + s * columns + target],
                })
                .collect();
            let total: f64 = mass.iter().sum();
            out.extend((0..d).map(|x| {
                let weighted = mass.iter().zip(source.clone()).map(|(mass, s)| mass * y[s * d + x]);
                weighted.sum::<f64>() / total
            }));
        }
    }
    out
}
