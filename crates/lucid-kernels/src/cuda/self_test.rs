//! A short proof that a device computes what the reference does: `lucid-sae doctor --gpu`.

use super::Cuda;
use super::driver::Driver;
use crate::backend::{AdamW, Backend, Direction, Factor};
use crate::codes::{Block, CodeShape, Codes, Dictionary, Selection};
use crate::error::KernelError;
use crate::ragged::Pairs;
use crate::scalar::Scalar;
use crate::transport::{SinkhornOptions, Transport, TransportOptions};

/// One operation on the device beside the reference.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was computed.
    pub name: &'static str,
    /// Largest difference, relative to the largest value of the reference.
    pub error: f64,
    /// What rounding may make of it.
    pub tolerance: f64,
}

impl Check {
    /// Whether the device agrees.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Products of 96 terms in three bf16 parts, and what follows from them: 2⁻¹⁶ a term.
const TOLERANCE: f64 = 1e-4;

const SHAPE: CodeShape =
    CodeShape { d_shared: 80, d_private: 150, k_shared: 4, k_private: 6, selection: Selection::Split };
const D: usize = 96;
const VISION: [usize; 3] = [70, 1, 33];
const TEXT: [usize; 3] = [9, 4, 1];

/// Fixed numbers in [−1, 1).
fn numbers(len: usize, salt: u32) -> Vec<f32> {
    let number = |at: u32| {
        let x = at.wrapping_mul(2_654_435_761).wrapping_add(salt.wrapping_mul(40_503)).wrapping_mul(2_246_822_519);
        ((x ^ x >> 15) >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..u32::try_from(len).unwrap_or(u32::MAX)).map(number).collect()
}

type Outputs = Vec<(&'static str, Vec<f64>)>;

/// A miniature of the training step, and what each part of it gives.
fn outputs<B: Backend<Real = f32>>(backend: &B) -> Result<Outputs, KernelError> {
    let mut out = Outputs::new();
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
    let pairs = Pairs::new(&VISION, &TEXT)?;
    let latents = SHAPE.latents();
    let dictionary = |salt: u32| {
        Ok::<_, KernelError>(Dictionary::<B> {
            d: D,
            latents,
            w_enc_t: backend.upload(&numbers(latents * D, salt))?,
            b_enc: backend.upload(&numbers(latents, salt + 1))?,
            w_dec: backend.upload(&numbers(latents * D, salt + 2))?,
            b_dec: backend.upload(&numbers(D, salt + 3))?,
        })
    };
    let dictionary = dictionary(10)?;
    let (n_v, n_t) = (pairs.vision.total(), pairs.text.total());
    let acts_v = backend.upload(&numbers(n_v * D, 20))?;
    let acts_t = backend.upload(&numbers(n_t * D, 21))?;
    let mut vision = Codes::new(backend, n_v, SHAPE)?;
    let mut text = Codes::new(backend, n_t, SHAPE)?;
    backend.encode_topk(&acts_v, &dictionary, &mut vision)?;
    backend.encode_topk(&acts_t, &dictionary, &mut text)?;
    let (indices, values) = vision.read(backend)?;
    out.push(("Top-k indices", indices.into_iter().map(f64::from).collect()));
    out.push(("Top-k values", wide(values)));

    let mut prediction = backend.zeros(n_v * D)?;
    backend.decode(&vision, Block::Joint, &dictionary, true, &mut prediction)?;
    out.push(("decode", wide(backend.read_vec(&prediction, n_v * D)?)));
    let mut sums = backend.zeros::<f64>(1)?;
    backend.residual(&mut prediction, &acts_v, n_v * D, Factor::Constant(0.01), &mut sums, 0)?;
    out.push(("residual", backend.read_vec(&sums, 1)?));

    let mut gradients = Dictionary::zeros(backend, D, latents)?;
    let (mut d_vision, mut d_text) = (backend.zeros(n_v * SHAPE.k())?, backend.zeros(n_t * SHAPE.k())?);
    backend.decode_backward(&vision, Block::Joint, &dictionary, true, &prediction, &mut d_vision, &mut gradients)?;
    out.push(("gradient of W_dec", wide(backend.read_vec(&gradients.w_dec, latents * D)?)));

    let options = TransportOptions {
        sinkhorn: SinkhornOptions { epsilon: 0.1, iterations: 10, tolerance: 0.0, sink_mass: 0.0 },
        mass_reweighting: true,
        lambda_global: 0.5,
        mask_penalty: 1.0,
    };
    let mut transport = Transport::new(backend, &pairs)?;
    transport.solve(backend, &vision, &text, &pairs, None, &options)?;
    let cells = pairs.cells.total();
    out.push(("Sinkhorn's plan", wide(backend.read_vec(&transport.plan.plan, cells)?)));

    let (mut mixed, mut d_y) = (backend.zeros(n_v * D)?, backend.zeros(n_t * D)?);
    backend.barycenter(&transport.plan, &pairs, Direction::T2V, D, &acts_t, &mut mixed)?;
    out.push(("barycentre", wide(backend.read_vec(&mixed, n_v * D)?)));
    let (mut d_plan, mut d_guided) = (backend.zeros(cells)?, backend.zeros(cells)?);
    let (plan, grad) = (&transport.plan, &prediction);
    backend.barycenter_backward(plan, &pairs, Direction::T2V, D, &acts_t, grad, &mut d_y, Some(&mut d_plan))?;
    out.push(("gradient of the points", wide(backend.read_vec(&d_y, n_t * D)?)));
    let (to_vision, to_text) = (&mut d_vision, &mut d_text);
    let d_plan = Some(&d_plan);
    transport.backward(backend, &vision, &text, &pairs, &options, d_plan, &mut d_guided, to_vision, to_text)?;
    out.push(("gradient through Sinkhorn", wide(backend.read_vec(&d_guided, cells)?)));

    backend.encode_backward(&vision, &d_vision, &acts_v, &dictionary, &mut gradients)?;
    backend.pre_bias_backward(&dictionary, &mut gradients)?;
    out.push(("gradient of W_enc", wide(backend.read_vec(&gradients.w_enc_t, latents * D)?)));
    out.push(("gradient of b_dec", wide(backend.read_vec(&gradients.b_dec, D)?)));

    let Dictionary { mut w_dec, .. } = dictionary;
    let (mut first, mut second) = (backend.zeros(latents * D)?, backend.zeros(latents * D)?);
    let constants =
        AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-3, weight_decay: 0.01, gradient_scale: 1.0, count: 1 };
    let rows = (latents, D);
    backend.adamw_rows(&mut w_dec, &gradients.w_dec, &mut first, &mut second, rows, true, constants)?;
    out.push(("AdamW", wide(backend.read_vec(&w_dec, latents * D)?)));
    Ok(out)
}

/// Runs a miniature of the training step on the device and on the reference. Indices must be equal.
pub fn self_test<D: Driver>(device: &Cuda<D>) -> Result<Vec<Check>, KernelError> {
    let (found, expected) = (outputs(device)?, outputs(&Scalar::<f32>::new())?);
    let checks = found.into_iter().zip(expected).map(|((name, found), (_, expected))| {
        let peak = expected.iter().fold(0.0f64, |peak, value| peak.max(value.abs()));
        // A NaN on either side is an infinite error: `max` alone would pass over it.
        let difference = |(a, b): (&f64, &f64)| if (a - b).is_finite() { (a - b).abs() } else { f64::INFINITY };
        let worst = found.iter().zip(&expected).map(difference).fold(0.0, f64::max);
        let tolerance = if name == "Top-k indices" { 0.0 } else { TOLERANCE };
        Check { name, error: if peak > 0.0 { worst / peak } else { worst }, tolerance }
    });
    Ok(checks.collect())
}
