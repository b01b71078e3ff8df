//! The whole loss on dense arrays in f64, written from the spec without regard to cost; what is a constant of the step
//! (the plan under `planGradient: 'stop'`, AuxK's residual) is an argument, so that differences of this function are
//! the gradient that the step must return.

use lucid_kernels::{DeadLists, Modality};
use lucid_sae::batch::Sides;
use lucid_sae::config::{AlignNormalization, Reduction, TopK};
use lucid_sae::losses::Losses;
use lucid_sae::params::{HostDictionary, HostParams};

use super::Case;

/// What does not move with the parameters.
pub struct Frozen {
    /// Π of every pair.
    pub plans: Vec<Vec<f64>>,
    /// e = h − ĥ of every token.
    pub errors: Sides<Vec<Vec<f64>>>,
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn square(a: &[f64]) -> f64 {
    dot(a, a)
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

/// Σ weight · row.
fn mix<'a>(rows: impl Iterator<Item = (f64, &'a Vec<f64>)>, width: usize) -> Vec<f64> {
    let mut out = vec![0.0; width];
    for (weight, row) in rows {
        out.iter_mut().zip(row).for_each(|(out, x)| *out += weight * x);
    }
    out
}

fn pre_activations(h: &[f64], p: &HostDictionary<f64>) -> Vec<f64> {
    let centred = minus(h, &p.b_dec);
    (0..p.latents)
        .map(|k| (0..p.d).map(|x| p.w_enc[x * p.latents + k] * centred[x]).sum::<f64>() + p.b_enc[k])
        .collect()
}

/// A dense code: the `k` largest positive entries among `candidates`.
fn keep(a: &[f64], candidates: impl Iterator<Item = usize>, k: usize) -> Vec<f64> {
    let mut kept: Vec<usize> = candidates.filter(|&latent| a[latent] > 0.0).collect();
    kept.sort_by(|&x, &y| a[y].partial_cmp(&a[x]).unwrap().then(x.cmp(&y)));
    let mut z = vec![0.0; a.len()];
    kept.into_iter().take(k).for_each(|latent| z[latent] = a[latent]);
    z
}

fn decode(z: &[f64], p: &HostDictionary<f64>, bias: bool) -> Vec<f64> {
    (0..p.d)
        .map(|x| {
            let sum: f64 = z.iter().enumerate().map(|(k, z)| z * p.w_dec[k * p.d + x]).sum();
            sum + if bias { p.b_dec[x] } else { 0.0 }
        })
        .collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let norms = (square(a) * square(b)).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

struct Tokens {
    acts: Vec<Vec<f64>>,
    codes: Vec<Vec<f64>>,
    shared: Vec<Vec<f64>>,
}

fn tokens(case: &Case, params: &HostParams<f64>, m: Modality) -> Tokens {
    let (config, p) = (&case.config, params.of(m));
    let values = match m {
        Modality::Vision => &case.vision,
        Modality::Text => &case.text,
    };
    let acts: Vec<Vec<f64>> = values.chunks_exact(p.d).map(<[f64]>::to_vec).collect();
    let encode = |h: &Vec<f64>| {
        let a = pre_activations(h, p);
        match config.topk {
            TopK::Global => keep(&a, 0..p.latents, config.k()),
            TopK::Split => {
                let shared = keep(&a, 0..config.d_shared, config.k_shared);
                let private = keep(&a, config.d_shared..p.latents, config.k_private);
                shared.iter().zip(&private).map(|(s, p)| s + p).collect()
            }
        }
    };
    let codes: Vec<Vec<f64>> = acts.iter().map(encode).collect();
    let shared = codes.iter().map(|z| z[..config.d_shared].to_vec()).collect();
    Tokens { acts, codes, shared }
}

/// C̃ and Π of one pair; Π is taken from `frozen` where given.
fn transport(
    case: &Case,
    v: &[Vec<f64>],
    t: &[Vec<f64>],
    mask: Option<&[f64]>,
    frozen: Option<&Vec<f64>>,
) -> (Vec<f64>, Vec<f64>) {
    let config = &case.config;
    let (rows, columns) = (v.len(), t.len());
    let g = mix(v.iter().map(|z| (1.0 / rows as f64, z)), config.d_shared);
    let w: Vec<f64> = t.iter().map(|z| cosine(&g, z).max(0.0)).collect();
    let cost: Vec<f64> = (0..rows * columns)
        .map(|cell| {
            let (i, j) = (cell / columns, cell % columns);
            let forbidden = 1.0 - mask.map_or(1.0, |mask| mask[cell]);
            let penalty = if forbidden > 0.0 { config.mask_penalty * forbidden } else { 0.0 };
            1.0 - cosine(&v[i], &t[j]) + penalty + config.lambda_global * (1.0 - w[j])
        })
        .collect();
    if let Some(plan) = frozen {
        return (cost, plan.clone());
    }
    let delta = 1e-6 * w.iter().sum::<f64>() / columns as f64;
    let mass: f64 = w.iter().map(|w| w + delta).sum();
    let uniform = !config.mass_reweighting || mass == 0.0;
    let c = |j: usize| if uniform { 1.0 / columns as f64 } else { (w[j] + delta) / mass };
    let k: Vec<f64> = cost.iter().map(|cost| (-cost / config.epsilon).exp()).collect();
    let (mut u, mut x) = (vec![0.0; rows], vec![1.0; columns]);
    for _ in 0..config.iterations {
        for i in 0..rows {
            u[i] = 1.0 / rows as f64 / (0..columns).map(|j| k[i * columns + j] * x[j]).sum::<f64>();
        }
        for j in 0..columns {
            x[j] = c(j) / (0..rows).map(|i| k[i * columns + j] * u[i]).sum::<f64>();
        }
    }
    let plan = (0..rows * columns).map(|cell| u[cell / columns] * k[cell] * x[cell % columns]).collect();
    (cost, plan)
}

/// e of every token at these parameters.
pub fn errors(case: &Case, params: &HostParams<f64>) -> Sides<Vec<Vec<f64>>> {
    let side = |m| {
        let side = tokens(case, params, m);
        let error = |(h, z): (&Vec<f64>, &Vec<f64>)| minus(h, &decode(z, params.of(m), true));
        side.acts.iter().zip(&side.codes).map(error).collect()
    };
    Sides { vision: side(Modality::Vision), text: side(Modality::Text) }
}

fn aux(case: &Case, params: &HostParams<f64>, errors: &Sides<Vec<Vec<f64>>>) -> f64 {
    let mut sum = 0.0;
    for m in Modality::ALL {
        let (p, errors) = (params.of(m), errors.of(m));
        let energy: f64 = errors.iter().map(|e| square(e)).sum();
        let k_aux = if case.config.k_aux == 0 { p.d / 2 } else { case.config.k_aux };
        let DeadLists { shared, private } = case.dead.of(m);
        for dead in [shared, private].into_iter().filter(|dead| !dead.is_empty()) {
            let acts = tokens(case, params, m).acts;
            let miss: f64 = acts
                .iter()
                .zip(errors)
                .map(|(h, e)| {
                    let latents = dead.iter().map(|&latent| latent as usize);
                    let z = keep(&pre_activations(h, p), latents, k_aux.min(dead.len()));
                    square(&minus(e, &decode(&z, p, false)))
                })
                .sum();
            sum += (dead.len() as f64 / k_aux as f64).min(1.0) * miss / energy;
        }
    }
    sum
}

/// All losses of spec 4.1 at `params`, and the plans used.
pub fn losses(case: &Case, params: &HostParams<f64>, frozen: Option<&Frozen>) -> (Losses, Vec<Vec<f64>>) {
    let config = &case.config;
    let sides = Sides { vision: tokens(case, params, Modality::Vision), text: tokens(case, params, Modality::Text) };
    let (mut cross, mut align) = ([0.0; 2], [0.0; 2]);
    let (mut ot, mut plans) = (0.0, Vec::new());
    let (mut v0, mut t0, mut c0) = (0, 0, 0);
    for (pair, (&rows, &columns)) in case.vision_lengths.iter().zip(&case.text_lengths).enumerate() {
        let (v, t, c) = (v0..v0 + rows, t0..t0 + columns, c0..c0 + rows * columns);
        (v0, t0, c0) = (v.end, t.end, c.end);
        let mask = case.admissible.as_ref().map(|mask| &mask[c]);
        let (z_v, z_t) = (&sides.vision.shared[v.clone()], &sides.text.shared[t.clone()]);
        let (cost, plan) = transport(case, z_v, z_t, mask, frozen.map(|frozen| &frozen.plans[pair]));
        let costs = cost.iter().zip(&plan).filter(|(cost, _)| cost.is_finite());
        ot += costs.map(|(cost, mass)| cost * mass).sum::<f64>();

        let (h_v, h_t) = (&sides.vision.acts[v], &sides.text.acts[t]);
        let from_text: Vec<Vec<f64>> = z_t.iter().map(|z| decode(z, &params.vision, true)).collect();
        let from_vision: Vec<Vec<f64>> = z_v.iter().map(|z| decode(z, &params.text, true)).collect();
        let (d_v, d_t) = (params.vision.d, params.text.d);
        for i in 0..rows {
            let total: f64 = (0..columns).map(|j| plan[i * columns + j]).sum();
            let shares = (0..columns).map(|j| (plan[i * columns + j] / total, &from_text[j]));
            cross[0] += square(&minus(&h_v[i], &mix(shares, d_v)));
        }
        for j in 0..columns {
            let total: f64 = (0..rows).map(|i| plan[i * columns + j]).sum();
            let shares = (0..rows).map(|i| (plan[i * columns + j] / total, &from_vision[i]));
            cross[1] += square(&minus(&h_t[j], &mix(shares, d_t)));
        }
        let mean = |rows: &[Vec<f64>], d| mix(rows.iter().map(|row| (1.0 / rows.len() as f64, row)), d);
        // The printed form: decode the mean code.
        let (mean_t, mean_v) = (mean(z_t, config.d_shared), mean(z_v, config.d_shared));
        align[0] += square(&minus(&decode(&mean_t, &params.vision, true), &mean(h_v, d_v)));
        align[1] += square(&minus(&decode(&mean_v, &params.text, true), &mean(h_t, d_t)));
        plans.push(plan);
    }
    let own = |m| -> f64 { errors(case, params).of(m).iter().map(|e| square(e)).sum() };
    let count = |n: usize| if config.reduction == Reduction::Mean { n as f64 } else { 1.0 };
    let token = |m: Modality| if config.normalize_loss { *case.variance.of(m) } else { 1.0 };
    let pooled = |m: Modality| match (config.normalize_loss, config.align_normalization) {
        (true, AlignNormalization::Pooled) => *case.pooled_variance.unwrap().of(m),
        _ => token(m),
    };
    let (pairs, v, t) = (case.text_lengths.len(), Modality::Vision, Modality::Text);
    let aux = if config.aux_coefficient > 0.0 {
        frozen.map_or_else(|| aux(case, params, &errors(case, params)), |frozen| aux(case, params, &frozen.errors))
    } else {
        0.0
    };
    let mut losses = Losses {
        self_vision: own(v) / count(v0) / token(v),
        self_text: own(t) / count(t0) / token(t),
        cross_vision: cross[0] / count(v0) / token(v),
        cross_text: cross[1] / count(t0) / token(t),
        align_vision: align[0] / count(pairs) / pooled(v),
        align_text: align[1] / count(pairs) / pooled(t),
        ot: ot / count(pairs),
        aux,
        sparsity: 0.0,
        total: 0.0,
    };
    losses.total = config.alpha * (losses.self_vision + losses.self_text)
        + config.beta * (losses.align_vision + losses.align_text)
        + config.gamma * (losses.cross_vision + losses.cross_text)
        + config.w_ot * losses.ot
        + config.aux_coefficient * losses.aux;
    (losses, plans)
}
