//! The parts a tower is made of.

use std::sync::OnceLock;

use crate::config::Activation;
use crate::ops;
use candle_core::{Result, Tensor};
use lucid_kernels::cpu::PackedMatrix;

pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
    /// The weights as products want them, made when first needed; `None` where nothing is gained.
    packed: OnceLock<Option<PackedMatrix>>,
}

impl Linear {
    /// `weight` \[out, in\], `bias` \[out\].
    pub fn new(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias, packed: OnceLock::new() }
    }

    /// The same projection by other weights.
    pub fn map_weight(self, change: impl FnOnce(Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self::new(change(self.weight)?, self.bias))
    }

    /// The weights packed, where that is faster and nobody differentiates: a weight in training changes, and candle has to see the
    /// product.
    fn packed(&self, x: &Tensor) -> Result<Option<&PackedMatrix>> {
        if !ops::fused(x) || !ops::fused(&self.weight) || x.track_op() || self.weight.track_op() {
            return Ok(None);
        }
        if self.packed.get().is_none() {
            let (rows, d) = self.weight.dims2()?;
            let made = ops::with_values(&self.weight, |weights| Ok(PackedMatrix::new(weights, rows, d)))?;
            // Another thread may have been faster, with the same.
            let _ = self.packed.set(made);
        }
        Ok(self.packed.get().and_then(Option::as_ref))
    }

    /// x · weightᵀ, without the bias.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        let (dims, last) = (x.dims(), x.rank() - 1);
        let rows: usize = dims[..last].iter().product();
        let mut shape = dims.to_vec();
        shape[last] = self.weight.dim(0)?;
        match self.packed(x)? {
            Some(packed) => {
                let product = ops::with_values(x, |x| Ok(packed.multiply(x)))?;
                Tensor::from_vec(product, shape, x.device())
            }
            None => x.reshape((rows, dims[last]))?.matmul(&self.weight.t()?)?.reshape(shape),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::bias_add(&self.product(x)?, &self.bias)
    }

    /// residual + x · weightᵀ + bias
    pub fn onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        ops::bias_residual(&self.product(x)?, &self.bias, residual)
    }
}

pub(super) struct LayerNorm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
}

impl LayerNorm {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

pub(super) struct Mlp {
    pub fc1: Linear,
    pub fc2: Linear,
    pub activation: Activation,
}

impl Mlp {
    /// residual + fc2(activation(fc1(x)))
    pub fn onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let h = ops::bias_activation(&self.fc1.product(x)?, &self.fc1.bias, self.activation)?;
        self.fc2.onto(&h, residual)
    }
}

/// [n, T, d] → [n, heads, T, d / heads]
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (n, t, d) = x.dims3()?;
    x.reshape((n, t, heads, d / heads))?.transpose(1, 2)?.contiguous()
}

/// Softmax attention of already projected queries [n, Q, d] over keys and values [n, T, d]; `mask` [Q, T] is added to the
/// scores.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    let (n, t, d) = q.dims3()?;
    let (q, k, v) = (split_heads(q, heads)?, split_heads(k, heads)?, split_heads(v, heads)?);
    let mut scores = q.matmul(&k.transpose(2, 3)?)?;
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    let weights = ops::softmax(&scores, 1.0 / ((d / heads) as f64).sqrt())?;
    weights.matmul(&v)?.transpose(1, 2)?.reshape((n, t, d))
}

/// −∞ above the diagonal, [T, T]: a token sees itself and those before it.
pub(super) fn causal_mask(tokens: usize, like: &Tensor) -> Result<Tensor> {
    let value = |i: usize| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 };
    let values: Vec<f32> = (0..tokens * tokens).map(value).collect();
    Tensor::from_vec(values, (tokens, tokens), like.device())?.to_dtype(like.dtype())
}

pub(super) struct Block {
    pub norm1: LayerNorm,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub out: Linear,
    pub norm2: LayerNorm,
    pub mlp: Mlp,
    pub heads: usize,
}

impl Block {
    fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let (q, k, v) = (self.q.forward(&h)?, self.k.forward(&h)?, self.v.forward(&h)?);
        let x = self.out.onto(&attend(&q, &k, &v, self.heads, mask)?, x)?;
        self.mlp.onto(&self.norm2.forward(&x)?, &x)
    }
}

/// Runs the blocks; keeps every state when `record` is set.
pub(super) fn run_blocks(
    blocks: &[Block],
    mut x: Tensor,
    mask: Option<&Tensor>,
    record: bool,
) -> Result<(Tensor, Vec<Tensor>)> {
    let mut states = Vec::new();
    for block in blocks {
        x = block.forward(&x, mask)?;
        if record {
            states.push(x.clone());
        }
    }
    Ok((x, states))
}

/// Multi-head attention pooling: a learned query attends over the patches, then a feed-forward layer.
pub(super) struct AttentionPooling {
    pub probe: Tensor,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub out: Linear,
    pub norm: LayerNorm,
    pub mlp: Mlp,
    pub heads: usize,
}

impl AttentionPooling {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (n, _, d) = x.dims3()?;
        let q = self.q.forward(&self.probe)?.broadcast_as((n, 1, d))?;
        let a = attend(&q, &self.k.forward(x)?, &self.v.forward(x)?, self.heads, None)?;
        let a = self.out.forward(&a)?;
        self.mlp.onto(&self.norm.forward(&a)?, &a)?.squeeze(1)
    }
}
