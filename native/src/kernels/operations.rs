//! One call each: arrays in, one kernel, arrays out.

use lucid_kernels::{
    Backend, Block, Codes, Dictionary, Direction, KernelError, Pairs, Plan, Real, SinkhornOptions, Transport,
    TransportOptions,
};

use super::{KernelOptions, TransportFields, codes_of, expect_len, upload_codes};

/// Indices and values of codes.
pub type HostCodes<R> = (Vec<u32>, Vec<R>);

/// A plan with its diagnostics; marginals and weights where the kernel makes them.
pub struct HostPlan<R> {
    pub plan: Vec<R>,
    pub u: Vec<R>,
    pub v: Vec<R>,
    pub marginal_error: Vec<f64>,
    pub transport_cost: Vec<f64>,
    pub entropy: Vec<f64>,
    pub iterations: Vec<u32>,
    pub column_marginal: Option<Vec<R>>,
    pub weights: Option<Vec<R>>,
}

/// A plan given by the caller, and the tokens it connects.
pub struct GivenPlan<'a, R> {
    pub values: &'a [R],
    pub pairs: &'a Pairs,
}

/// The arrays of one modality's dictionary that a kernel needs, in the layout of files.
pub struct Weights<'a, R> {
    /// W_enc \[d · K\]; empty where the kernel only decodes.
    pub w_enc: &'a [R],
    pub b_enc: &'a [R],
    /// W_dec \[K · d\]; empty where the kernel only encodes.
    pub w_dec: &'a [R],
    pub b_dec: &'a [R],
}

impl<R: Real> Weights<'_, R> {
    fn upload<B: Backend<Real = R>>(&self, backend: &B, latents: usize) -> Result<Dictionary<B>, KernelError> {
        let d = self.b_dec.len();
        if d == 0 {
            return Err(KernelError::shape("b_dec", 0, "at least 1"));
        }
        for (what, values, expected) in
            [("W_enc", self.w_enc, d * latents), ("b_enc", self.b_enc, latents), ("W_dec", self.w_dec, latents * d)]
        {
            if !values.is_empty() {
                expect_len(what, values.len(), expected)?;
            }
        }
        Ok(Dictionary {
            d,
            latents,
            w_enc_t: match self.w_enc {
                [] => backend.zeros(0)?,
                w_enc => backend.upload(&lucid_sae::params::transpose(w_enc, d, latents))?,
            },
            b_enc: backend.upload(self.b_enc)?,
            w_dec: backend.upload(self.w_dec)?,
            b_dec: backend.upload(self.b_dec)?,
        })
    }
}

/// Codes of raw activations.
pub fn encode_topk<B: Backend>(
    backend: &B,
    options: &KernelOptions,
    acts: &[B::Real],
    weights: &Weights<'_, B::Real>,
) -> Result<HostCodes<B::Real>, KernelError> {
    let shape = options.shape();
    let dictionary = weights.upload(backend, shape.latents())?;
    let n = acts.len() / dictionary.d;
    expect_len("activations", acts.len(), n * dictionary.d)?;
    let mut codes = Codes::new(backend, n, shape)?;
    backend.encode_topk(&backend.upload(acts)?, &dictionary, &mut codes)?;
    codes.read(backend)
}

/// Reconstructions from one block and the bias.
pub fn decode<B: Backend>(
    backend: &B,
    options: &KernelOptions,
    codes: (&[u32], &[B::Real]),
    weights: &Weights<'_, B::Real>,
) -> Result<Vec<B::Real>, KernelError> {
    let shape = options.shape();
    let dictionary = weights.upload(backend, shape.latents())?;
    let codes = upload_codes(backend, shape, codes.0, codes.1)?;
    let mut out = backend.zeros(codes.n * dictionary.d)?;
    backend.decode(&codes, options.block.unwrap_or(Block::Joint), &dictionary, true, &mut out)?;
    backend.read_vec(&out, codes.n * dictionary.d)
}

fn both<B: Backend>(
    backend: &B,
    options: &KernelOptions,
    vision: (&[u32], &[B::Real]),
    text: (&[u32], &[B::Real]),
    pairs: &Pairs,
) -> Result<(Codes<B>, Codes<B>), KernelError> {
    let shape = options.shape();
    Ok((
        codes_of(backend, "vision", shape, pairs.vision.total(), vision.0, vision.1)?,
        codes_of(backend, "text", shape, pairs.text.total(), text.0, text.1)?,
    ))
}

/// 1 − cosine of the shared codes.
pub fn cosine_cost<B: Backend>(
    backend: &B,
    options: &KernelOptions,
    vision: (&[u32], &[B::Real]),
    text: (&[u32], &[B::Real]),
    pairs: &Pairs,
) -> Result<Vec<B::Real>, KernelError> {
    let (vision, text) = both(backend, options, vision, text, pairs)?;
    let mut cost = backend.zeros(pairs.cells.total())?;
    backend.cosine_cost(&vision, &text, pairs, &mut cost)?;
    backend.read_vec(&cost, pairs.cells.total())
}

fn sinkhorn_options(fields: &TransportFields) -> SinkhornOptions {
    SinkhornOptions {
        epsilon: fields.epsilon,
        iterations: fields.iterations,
        tolerance: fields.tolerance,
        sink_mass: fields.sink_mass,
    }
}

fn read_plan<B: Backend>(backend: &B, plan: &Plan<B>, pairs: &Pairs) -> Result<HostPlan<B::Real>, KernelError> {
    Ok(HostPlan {
        plan: backend.read_vec(&plan.plan, pairs.cells.total())?,
        u: backend.read_vec(&plan.u, pairs.vision.total())?,
        v: backend.read_vec(&plan.v, pairs.text.total())?,
        marginal_error: backend.read_vec(&plan.marginal_error, pairs.len())?,
        transport_cost: backend.read_vec(&plan.transport_cost, pairs.len())?,
        entropy: backend.read_vec(&plan.entropy, pairs.len())?,
        iterations: backend.read_vec(&plan.iterations, pairs.len())?,
        column_marginal: None,
        weights: None,
    })
}

/// A marginal given by the caller, or the uniform one.
fn marginal<B: Backend>(
    backend: &B,
    option: &'static str,
    given: Option<&[B::Real]>,
    segments: &lucid_kernels::Ragged,
) -> Result<B::Buffer<B::Real>, KernelError> {
    let Some(given) = given else {
        let mut uniform = backend.zeros(segments.total())?;
        backend.uniform_marginal(segments, &mut uniform)?;
        return Ok(uniform);
    };
    expect_len(option, given.len(), segments.total())?;
    if let Some(bad) = given.iter().find(|mass| !(mass.widen() > 0.0 && mass.widen().is_finite())) {
        return Err(KernelError::Option { option, found: bad.to_string(), expected: "positive masses".into() });
    }
    backend.upload(given)
}

fn mask<B: Backend>(
    backend: &B,
    given: Option<&[B::Real]>,
    pairs: &Pairs,
) -> Result<Option<B::Buffer<B::Real>>, KernelError> {
    let Some(given) = given else { return Ok(None) };
    expect_len("mask", given.len(), pairs.cells.total())?;
    if let Some(bad) = given.iter().find(|value| !(0.0..=1.0).contains(&value.widen())) {
        return Err(KernelError::shape("a mask value", bad, "in [0, 1]"));
    }
    backend.upload(given).map(Some)
}

/// The entropic plan of given costs.
pub fn sinkhorn<B: Backend>(
    backend: &B,
    options: &KernelOptions,
    cost: &[B::Real],
    pairs: &Pairs,
    row: Option<&[B::Real]>,
    column: Option<&[B::Real]>,
    admissible: Option<&[B::Real]>,
) -> Result<HostPlan<B::Real>, KernelError> {
    let fields = options.transport()?;
    let cells = pairs.cells.total();
    expect_len("cost", cost.len(), cells)?;
    let row = marginal(backend, "rowMarginal", row, &pairs.vision)?;
    let column = marginal(backend, "columnMarginal", column, &pairs.text)?;
    let mut guided = backend.zeros(cells)?;
    let admissible = mask(backend, admissible, pairs)?;
    let penalty = fields.mask_penalty.unwrap_or(f64::INFINITY);
    backend.guide_cost(&backend.upload(cost)?, pairs, admissible.as_ref(), penalty, None, 0.0, &mut guided)?;
    let mut plan = Plan::new(backend, pairs)?;
    backend.sinkhorn(&guided, pairs, &row, &column, sinkhorn_options(fields), &mut plan)?;
    read_plan(backend, &plan, pairs)
}

/// The guided plan between shared codes.
pub fn gcmt<B: Backend>(
    backend: &B,
    options: &KernelOptions,
    vision: (&[u32], &[B::Real]),
    text: (&[u32], &[B::Real]),
    pairs: &Pairs,
    admissible: Option<&[B::Real]>,
) -> Result<HostPlan<B::Real>, KernelError> {
    let fields = options.transport()?;
    let (vision, text) = both(backend, options, vision, text, pairs)?;
    let admissible = mask(backend, admissible, pairs)?;
    let transport_options = TransportOptions {
        sinkhorn: sinkhorn_options(fields),
        mass_reweighting: fields.mass_reweighting,
        lambda_global: fields.lambda_global,
        mask_penalty: fields.mask_penalty.unwrap_or(f64::INFINITY),
    };
    let mut transport = Transport::new(backend, pairs)?;
    transport.solve(backend, &vision, &text, pairs, admissible.as_ref(), &transport_options)?;
    // The weights are reported even where no part of GCMT uses them.
    if !transport_options.uses_weights() {
        backend.mass_weights(&vision, &text, pairs, &mut transport.weights)?;
    }
    Ok(HostPlan {
        column_marginal: Some(backend.read_vec(&transport.column, pairs.text.total())?),
        weights: Some(backend.read_vec(&transport.weights, pairs.text.total())?),
        ..read_plan(backend, &transport.plan, pairs)?
    })
}

/// Cross reconstructions of the target's tokens from the source's shared codes.
pub fn barycenter<B: Backend>(
    backend: &B,
    options: &KernelOptions,
    given: &GivenPlan<'_, B::Real>,
    codes: (&[u32], &[B::Real]),
    weights: &Weights<'_, B::Real>,
) -> Result<Vec<B::Real>, KernelError> {
    let GivenPlan { values, pairs } = *given;
    let direction: Direction = options.direction()?;
    let shape = options.shape();
    let dictionary = weights.upload(backend, shape.latents())?;
    let codes = codes_of(backend, "source", shape, direction.source(pairs).total(), codes.0, codes.1)?;
    expect_len("plan", values.len(), pairs.cells.total())?;
    let mut plan = Plan::new(backend, pairs)?;
    let (rows, columns) = plan_sums(values, pairs);
    plan.plan = backend.upload(values)?;
    plan.row_sums = backend.upload(&rows)?;
    plan.column_sums = backend.upload(&columns)?;
    let (d, n) = (dictionary.d, direction.target(pairs).total());
    let mut decoded = backend.zeros(codes.n * d)?;
    backend.decode(&codes, Block::Shared, &dictionary, true, &mut decoded)?;
    let mut out = backend.zeros(n * d)?;
    backend.barycenter(&plan, pairs, direction, d, &decoded, &mut out)?;
    backend.read_vec(&out, n * d)
}

/// Sums over rows and over columns of every pair's plan.
fn plan_sums<R: Real>(plan: &[R], pairs: &Pairs) -> (Vec<R>, Vec<R>) {
    let mut rows = Vec::with_capacity(pairs.vision.total());
    let mut columns = Vec::with_capacity(pairs.text.total());
    for pair in 0..pairs.len() {
        let width = pairs.text.length(pair);
        let cells = &plan[pairs.cells.range(pair)];
        rows.extend(cells.chunks(width).map(|row| row.iter().copied().sum::<R>()));
        columns.extend((0..width).map(|j| cells.iter().skip(j).step_by(width).copied().sum::<R>()));
    }
    (rows, columns)
}
