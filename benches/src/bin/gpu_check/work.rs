//! The work that is compared and timed: training steps on pseudo-random activations, and each family of kernels.

use std::time::Instant;

use lucid_benches::{PATCHES, SHAPE, SINKHORN, TOKENS, WIDTH, numbers, scaled};
use lucid_kernels::cuda::{Cuda, Gpu, GraphDriver, Graphs, Launch};
use lucid_kernels::{
    AdamW, Backend, Block, CodeShape, Codes, Dictionary, Direction, Factor, KernelError, Pairs, Precision, Transport,
    TransportOptions,
};
use lucid_sae::batch::{HostPairs, MicroBatch, Sides};
use lucid_sae::config::{Config, Preset};
use lucid_sae::optimiser::Optimiser;
use lucid_sae::params::Params;
use lucid_sae::step::{Step, StepInputs};

/// Sizes of a batch.
#[derive(Clone, Copy)]
pub struct Shape {
    pairs: usize,
    micro: usize,
    patches: usize,
    words: usize,
    d: usize,
    codes: CodeShape,
}

impl Shape {
    /// The paper's step.
    pub const PAPER: Self = Self { pairs: 256, micro: 32, patches: PATCHES, words: TOKENS, d: WIDTH, codes: SHAPE };
    /// For loss curves.
    pub const SMALL: Self = Self {
        pairs: 16,
        micro: 8,
        patches: 49,
        words: 12,
        d: 96,
        codes: CodeShape { d_shared: 128, d_private: 256, k_shared: 8, k_private: 12, ..SHAPE },
    };
    /// For trying this program out.
    pub const TINY: Self = Self {
        pairs: 3,
        micro: 2,
        patches: 9,
        words: 4,
        d: 24,
        codes: CodeShape { d_shared: 24, d_private: 40, k_shared: 4, k_private: 5, ..SHAPE },
    };

    /// With all pairs at a time.
    pub const fn whole(self) -> Self {
        Self { micro: self.pairs, ..self }
    }
}

/// Losses of a run, and its last weights.
#[derive(PartialEq)]
pub struct Run {
    pub losses: Vec<f64>,
    weights: Vec<f32>,
}

struct Training<B: Backend> {
    config: Config,
    params: Params<B>,
    batch: Vec<MicroBatch<B>>,
    step: Step<B>,
    optimiser: Optimiser<B>,
    variance: f64,
}

impl<B: Backend<Real = f32>> Training<B> {
    /// `shift` changes the first weights by up to [`SHIFT`] of themselves.
    fn new(backend: &B, shape: Shape, shift: Option<u64>) -> Result<Self, KernelError> {
        let CodeShape { d_shared, d_private, k_shared, k_private, .. } = shape.codes;
        let config = Config {
            d_shared,
            d_private,
            k_shared,
            k_private,
            batch_pairs: shape.pairs,
            micro_pairs: shape.micro,
            lr: 1e-3,
            ..Preset::Paper.config()
        };
        let (d, latents) = (shape.d, shape.codes.latents());
        let mut params = Params::zeros(backend, d, d, latents)?;
        let scale = 1.0 / (d as f32).sqrt();
        for (seed, dictionary) in [(10, &mut params.vision), (20, &mut params.text)] {
            let weights = |seed: u64| {
                let mut weights = scaled(seed, latents * d, scale);
                if let Some(shift) = shift {
                    let shifts = numbers(1000 * (shift + 1) + seed, latents * d);
                    weights.iter_mut().zip(shifts).for_each(|(weight, by)| *weight *= 1.0 + SHIFT * by);
                }
                backend.upload(&weights)
            };
            dictionary.w_enc_t = weights(seed)?;
            dictionary.w_dec = weights(seed + 1)?;
        }
        let mut batch = Vec::new();
        let mut left = shape.pairs;
        while left > 0 {
            let pairs = left.min(shape.micro);
            left -= pairs;
            let seed = 100 + 2 * left as u64;
            let host = HostPairs {
                vision: &numbers(seed, pairs * shape.patches * d),
                vision_lengths: &vec![shape.patches; pairs],
                text: &numbers(seed + 1, pairs * shape.words * d),
                text_lengths: &vec![shape.words; pairs],
                admissible: None,
            };
            batch.push(MicroBatch::upload(backend, d, d, &host)?);
        }
        let (step, optimiser) = (Step::new(backend, &params, &config)?, Optimiser::new(backend, &params)?);
        Ok(Self { config, params, batch, step, optimiser, variance: d as f64 / 3.0 })
    }

    fn step(&mut self, backend: &B, index: usize, steps: usize) -> Result<f64, KernelError> {
        let dead = Sides::default();
        let variance = Sides { vision: self.variance, text: self.variance };
        let inputs = StepInputs {
            config: &self.config,
            variance,
            pooled_variance: None,
            dead: &dead,
            keep_plan: false,
            encoder: None,
        };
        let loss = self.step.run(backend, &self.params, &self.batch, &inputs)?.losses.total;
        let norm = self.optimiser.prepare(backend, &self.config, &self.params, &mut self.step.gradients)?;
        let (params, gradients) = (&mut self.params, &self.step.gradients);
        self.optimiser.apply(backend, &self.config, index, steps, norm, params, gradients)?;
        Ok(loss)
    }
}

/// Error of a term of a product in three bf16 parts, relative.
const SHIFT: f32 = 1.0 / 65536.0;

/// Trains for `steps` steps, from weights shifted by the error of a device's products where `shift` is given.
pub fn losses<B: Backend<Real = f32>>(
    backend: &B,
    shape: Shape,
    steps: usize,
    shift: Option<u64>,
) -> Result<Run, KernelError> {
    let mut training = Training::new(backend, shape, shift)?;
    let losses = (0..steps).map(|index| training.step(backend, index, steps)).collect::<Result<_, _>>()?;
    let len = shape.codes.latents() * shape.d;
    let mut weights = backend.read_vec(&training.params.vision.w_dec, len)?;
    weights.extend(backend.read_vec(&training.params.text.w_enc_t, len)?);
    Ok(Run { losses, weights })
}

/// The time of one thing.
pub struct Timing {
    pub name: String,
    pub seconds: f64,
    pub tokens: f64,
    pub flops: f64,
    pub bytes: f64,
}

/// Calls of what is timed.
pub const ROUNDS: usize = 6;

/// The best of several calls, each waited for; the first is not counted.
fn best<B: Backend>(backend: &B, mut work: impl FnMut() -> Result<(), KernelError>) -> Result<f64, KernelError> {
    let mut best = f64::INFINITY;
    for round in 0..ROUNDS {
        backend.finish()?;
        let start = Instant::now();
        work()?;
        backend.finish()?;
        if round > 0 {
            best = best.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}

/// Times of the kernel families on one micro-batch, and of the whole step. FLOPs and bytes are those that the method needs
/// (one term of a product, rows gathered once), not what an implementation spends. `mark` is called before the first and
/// after each.
pub fn times<B: Backend<Real = f32>>(
    backend: &B,
    shape: Shape,
    mut mark: impl FnMut(),
) -> Result<Vec<Timing>, KernelError> {
    let Shape { micro, patches, words, d, codes: codes_shape, pairs } = shape;
    let group = Pairs::new(&vec![patches; micro], &vec![words; micro])?;
    let (n, n_t, latents, k) = (group.vision.total(), group.text.total(), codes_shape.latents(), codes_shape.k());
    let scale = 1.0 / (d as f32).sqrt();
    let dictionary = Dictionary::<B> {
        d,
        latents,
        w_enc_t: backend.upload(&scaled(1, latents * d, scale))?,
        b_enc: backend.zeros(latents)?,
        w_dec: backend.upload(&scaled(2, latents * d, scale))?,
        b_dec: backend.zeros(d)?,
    };
    let (acts, words_acts) = (backend.upload(&numbers(3, n * d))?, backend.upload(&numbers(4, n_t * d))?);
    let (mut codes, mut text) = (Codes::new(backend, n, codes_shape)?, Codes::new(backend, n_t, codes_shape)?);
    backend.encode_topk(&words_acts, &dictionary, &mut text)?;
    let mut gradients = Dictionary::zeros(backend, d, latents)?;
    let mut out = Vec::new();
    let (tokens, rows) = (n as f64, (n * k * d) as f64);
    let mut add = |name: &str, seconds, tokens, flops, bytes| {
        out.push(Timing { name: name.into(), seconds, tokens, flops, bytes });
        mark();
    };

    let seconds = best(backend, || backend.encode_topk(&acts, &dictionary, &mut codes))?;
    add("encode", seconds, tokens, 2.0 * tokens * (d * latents) as f64, tokens * (d * 4) as f64);
    let mut prediction = backend.zeros(n * d)?;
    let seconds = best(backend, || backend.decode(&codes, Block::Joint, &dictionary, true, &mut prediction))?;
    add("decode", seconds, tokens, 2.0 * rows, 4.0 * rows);
    let mut d_values = backend.zeros(n * k)?;
    let seconds = best(backend, || {
        let (grad, gradients) = (&prediction, &mut gradients);
        backend.decode_backward(&codes, Block::Joint, &dictionary, true, grad, &mut d_values, gradients)
    })?;
    add("decode backward", seconds, tokens, 4.0 * rows, 8.0 * rows);
    let seconds = best(backend, || backend.encode_backward(&codes, &d_values, &acts, &dictionary, &mut gradients))?;
    add("encode backward", seconds, tokens, 2.0 * rows, 4.0 * rows);
    let options =
        TransportOptions { sinkhorn: SINKHORN, mass_reweighting: true, lambda_global: 0.1, mask_penalty: 1.0 };
    let mut transport = Transport::new(backend, &group)?;
    let seconds = best(backend, || transport.begin(backend, &codes, &text, &group, None, &options))?;
    let cells = group.cells.total() as f64;
    add("transport", seconds, tokens + n_t as f64, cells * 44.0, cells * 8.0);
    let mut mixed = backend.zeros(n * d)?;
    let (plan, t2v) = (&transport.plan, Direction::T2V);
    let seconds = best(backend, || backend.barycenter(plan, &group, t2v, d, &words_acts, &mut mixed))?;
    add("barycentre", seconds, tokens, 2.0 * cells * d as f64, ((n + n_t) * d * 4) as f64);
    let mut sums = backend.zeros::<f64>(1)?;
    let seconds = best(backend, || backend.residual(&mut mixed, &acts, n * d, Factor::Constant(1.0), &mut sums, 0))?;
    add("residual", seconds, tokens, 3.0 * (n * d) as f64, (n * d * 12) as f64);
    let Dictionary { mut w_dec, .. } = dictionary;
    let (mut first, mut second, len) = (backend.zeros(latents * d)?, backend.zeros(latents * d)?, latents * d);
    let constants =
        AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, gradient_scale: 1.0, count: 1 };
    let seconds =
        best(backend, || backend.adamw(&mut w_dec, &gradients.w_dec, &mut first, &mut second, len, constants))?;
    add("AdamW", seconds, 0.0, 12.0 * len as f64, (len * 28) as f64);

    for micro in [micro, 2 * micro, 4 * micro, pairs] {
        let Timing { name, seconds, tokens, flops, bytes } = step(backend, Shape { micro, ..shape })?;
        add(&name, seconds, tokens, flops, bytes);
    }
    Ok(out)
}

/// The time of a training step, all pairs at a time.
pub fn step_time<B: Backend<Real = f32>>(backend: &B, shape: Shape) -> Result<Timing, KernelError> {
    step(backend, shape.whole())
}

fn step<B: Backend<Real = f32>>(backend: &B, shape: Shape) -> Result<Timing, KernelError> {
    let mut training = Training::new(backend, shape, None)?;
    let mut index = 0;
    let seconds = best(backend, || {
        index += 1;
        training.step(backend, index - 1, 100).map(drop)
    })?;
    let Shape { pairs, micro, patches, words, d, codes } = shape;
    let tokens = (pairs * (patches + words)) as f64;
    let name = format!("training step, {} pairs at a time", micro.min(pairs));
    Ok(Timing { name, seconds, tokens, flops: 2.0 * tokens * (d * codes.latents()) as f64, bytes: 0.0 })
}

/// A step whose launches are given one by one, and by graphs.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ByGraphs {
    pub name: String,
    pub one_by_one_seconds: f64,
    pub graphs_seconds: f64,
    /// Share of the replayed operations that were set anew.
    pub changed: f64,
    /// The losses of the steps by graphs are those of the others, to the bit.
    pub same_bits: bool,
}

/// Steps by graphs: of pairs that are always the same, and of two batches of other lengths in turn.
pub fn by_graphs<D: GraphDriver>(
    device: &Cuda<Graphs<D>>,
    shapes: &[(&str, Shape)],
) -> Result<Vec<ByGraphs>, KernelError> {
    let was_on = device.driver().on();
    let mut out = Vec::new();
    for (size, shape) in shapes {
        let other = Shape { words: shape.words - 1, ..*shape };
        for (precision, name) in [(Precision::F32, "f32"), (Precision::Bf16, "bf16")] {
            let backend = device.with_precision(precision)?;
            for (batches, both) in [("the same batch", false), ("two batches in turn", true)] {
                let shapes = if both { vec![*shape, other] } else { vec![*shape] };
                let run = |on: bool| {
                    backend.driver().set_on(on)?;
                    let mut trainings = shapes
                        .iter()
                        .map(|shape| Training::new(&backend, *shape, None))
                        .collect::<Result<Vec<_>, _>>()?;
                    let mut losses = Vec::new();
                    let before = backend.driver().counts();
                    let seconds = best(&backend, || {
                        for training in &mut trainings {
                            losses.push(training.step(&backend, losses.len(), 100)?.to_bits());
                        }
                        Ok(())
                    })?;
                    let after = backend.driver().counts();
                    let (changed, all) = (after.changed - before.changed, after.operations - before.operations);
                    Ok::<_, KernelError>((seconds / shapes.len() as f64, losses, changed as f64 / all.max(1) as f64))
                };
                let ((one_by_one_seconds, expected, _), (graphs_seconds, losses, changed)) = (run(false)?, run(true)?);
                out.push(ByGraphs {
                    name: format!("{size}, {name}, {batches}"),
                    one_by_one_seconds,
                    graphs_seconds,
                    changed,
                    same_bits: losses == expected,
                });
            }
        }
    }
    device.driver().set_on(was_on)?;
    Ok(out)
}

/// Sum of a kernel's launches in a step.
pub struct KernelTime {
    pub kernel: &'static str,
    pub launches: usize,
    pub seconds: f64,
}

/// Where the time of a step at the paper's shape goes on the device, the longest first.
pub fn kernels(gpu: &Cuda<Graphs<Gpu>>) -> Result<Vec<KernelTime>, KernelError> {
    let shape = Shape::PAPER.whole();
    let mut training = Training::new(gpu, shape, None)?;
    for index in 0..3 {
        if index == 2 {
            gpu.driver().give()?;
            gpu.driver().inner().start_timing();
        }
        training.step(gpu, index, 100)?;
    }
    let mut kernels: Vec<KernelTime> = Vec::new();
    for Launch { kernel, seconds } in gpu.driver().inner().stop_timing()? {
        match kernels.iter_mut().find(|known| known.kernel == kernel) {
            Some(known) => (known.launches, known.seconds) = (known.launches + 1, known.seconds + seconds),
            None => kernels.push(KernelTime { kernel, launches: 1, seconds }),
        }
    }
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(kernels)
}
