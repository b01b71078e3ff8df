//! The SigLIP architecture on candle: two pre-LN transformers without masks, attention pooling over the patches, the last
//! position of the text, sigmoid logits.
//!
//! The model is built over a map from Hugging Face's tensor names to tensors. Loaded tensors and the tensors of candle
//! [`Var`](candle_core::Var)s (`var.as_tensor().clone()`, which shares the variable's storage) work alike, so training and
//! inference run the same lines.

use crate::config::{Activation, SiglipConfig};
use crate::error::VlmError;
use crate::weights::TensorMap;
use crate::{ops, weights};
use candle_core::{Result, Tensor};

/// What the image tower gives for n images with P patches each.
#[derive(Debug, Clone)]
pub struct VisionOutput {
    /// Residual stream after every block, [n, P, d]; empty unless asked for.
    pub blocks: Vec<Tensor>,
    /// After `post_layernorm`, [n, P, d]: what the head sees, and the default hook.
    pub post_ln: Tensor,
    /// Output of the attention-pooling head, [n, d]; absent in models without one.
    pub pooled: Option<Tensor>,
}

/// What the text tower gives for n captions of L positions each.
#[derive(Debug, Clone)]
pub struct TextOutput {
    /// Residual stream after every block, [n, L, d]; empty unless asked for.
    pub blocks: Vec<Tensor>,
    /// After `final_layer_norm`, [n, L, d]: the default hook.
    pub final_ln: Tensor,
    /// Linear head on the last position, [n, projection].
    pub pooled: Tensor,
}

struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// x · weightᵀ, without the bias.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        let (dims, last) = (x.dims(), x.rank() - 1);
        let rows: usize = dims[..last].iter().product();
        let y = x.reshape((rows, dims[last]))?.matmul(&self.weight.t()?)?;
        let mut shape = dims.to_vec();
        shape[last] = self.weight.dim(0)?;
        y.reshape(shape)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::bias_add(&self.product(x)?, &self.bias)
    }

    /// residual + x · weightᵀ + bias
    fn onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        ops::bias_residual(&self.product(x)?, &self.bias, residual)
    }
}

struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

struct Mlp {
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl Mlp {
    /// residual + fc2(activation(fc1(x)))
    fn onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let h = ops::bias_activation(&self.fc1.product(x)?, &self.fc1.bias, self.activation)?;
        self.fc2.onto(&h, residual)
    }
}

/// [n, T, d] → [n, heads, T, d / heads]
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (n, t, d) = x.dims3()?;
    x.reshape((n, t, heads, d / heads))?.transpose(1, 2)?.contiguous()
}

/// Softmax attention of already projected queries [n, Q, d] over keys and values [n, T, d].
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (n, t, d) = q.dims3()?;
    let (q, k, v) = (split_heads(q, heads)?, split_heads(k, heads)?, split_heads(v, heads)?);
    let scores = q.matmul(&k.transpose(2, 3)?)?;
    let weights = ops::softmax(&scores, 1.0 / ((d / heads) as f64).sqrt())?;
    weights.matmul(&v)?.transpose(1, 2)?.reshape((n, t, d))
}

struct Block {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    mlp: Mlp,
    heads: usize,
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let (q, k, v) = (self.q.forward(&h)?, self.k.forward(&h)?, self.v.forward(&h)?);
        let x = self.out.onto(&attend(&q, &k, &v, self.heads)?, x)?;
        self.mlp.onto(&self.norm2.forward(&x)?, &x)
    }
}

/// Runs the blocks; keeps every state when `record` is set.
fn run_blocks(blocks: &[Block], mut x: Tensor, record: bool) -> Result<(Tensor, Vec<Tensor>)> {
    let mut states = Vec::new();
    for block in blocks {
        x = block.forward(&x)?;
        if record {
            states.push(x.clone());
        }
    }
    Ok((x, states))
}

/// Multi-head attention pooling: a learned query attends over the patches, then a feed-forward layer.
struct Head {
    probe: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm: LayerNorm,
    mlp: Mlp,
    heads: usize,
}

impl Head {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (n, _, d) = x.dims3()?;
        let q = self.q.forward(&self.probe)?.broadcast_as((n, 1, d))?;
        let a = attend(&q, &self.k.forward(x)?, &self.v.forward(x)?, self.heads)?;
        let a = self.out.forward(&a)?;
        self.mlp.onto(&self.norm.forward(&a)?, &a)?.squeeze(1)
    }
}

/// A SigLIP model. Cloning a tensor of candle shares its storage, so building one over variables copies no weight.
pub struct Siglip {
    config: SiglipConfig,
    patch: Linear,
    vision_position: Tensor,
    vision_blocks: Vec<Block>,
    post_norm: LayerNorm,
    head: Option<Head>,
    token: Tensor,
    text_position: Tensor,
    text_blocks: Vec<Block>,
    final_norm: LayerNorm,
    text_head: Linear,
    logit_scale: Tensor,
    logit_bias: Tensor,
}

impl Siglip {
    /// Builds the model over `tensors`, whose names and shapes are those of [`weights::expected_shapes`].
    ///
    /// # Errors
    /// `E_BACKBONE_WEIGHTS` names a tensor that is missing, of another shape, or unknown.
    pub fn new(config: &SiglipConfig, tensors: &TensorMap) -> std::result::Result<Self, VlmError> {
        weights::check_shapes(config, tensors)?;
        let get = |name: &str| tensors[name].clone();
        let linear = |name: &str| Linear { weight: get(&format!("{name}.weight")), bias: get(&format!("{name}.bias")) };
        let norm = |name: &str, eps: f64| LayerNorm {
            weight: get(&format!("{name}.weight")),
            bias: get(&format!("{name}.bias")),
            eps,
        };
        let mlp = |name: &str, activation| Mlp {
            fc1: linear(&format!("{name}.fc1")),
            fc2: linear(&format!("{name}.fc2")),
            activation,
        };
        let blocks = |tower: &str, layers: usize, heads: usize, eps: f64, activation| {
            (0..layers)
                .map(|i| {
                    let p = format!("{tower}.encoder.layers.{i}");
                    Block {
                        norm1: norm(&format!("{p}.layer_norm1"), eps),
                        q: linear(&format!("{p}.self_attn.q_proj")),
                        k: linear(&format!("{p}.self_attn.k_proj")),
                        v: linear(&format!("{p}.self_attn.v_proj")),
                        out: linear(&format!("{p}.self_attn.out_proj")),
                        norm2: norm(&format!("{p}.layer_norm2"), eps),
                        mlp: mlp(&format!("{p}.mlp"), activation),
                        heads,
                    }
                })
                .collect::<Vec<_>>()
        };
        let (v, t) = (&config.vision_config, &config.text_config);
        let d = v.hidden_size;
        let head = if v.vision_use_head {
            let h = "vision_model.head";
            let weight = get(&format!("{h}.attention.in_proj_weight"));
            let bias = get(&format!("{h}.attention.in_proj_bias"));
            let part = |i: usize| -> Result<Linear> {
                Ok(Linear { weight: weight.narrow(0, i * d, d)?, bias: bias.narrow(0, i * d, d)? })
            };
            Some(Head {
                probe: get(&format!("{h}.probe")),
                q: part(0)?,
                k: part(1)?,
                v: part(2)?,
                out: linear(&format!("{h}.attention.out_proj")),
                norm: norm(&format!("{h}.layernorm"), v.layer_norm_eps),
                mlp: mlp(&format!("{h}.mlp"), v.hidden_act),
                heads: v.num_attention_heads,
            })
        } else {
            None
        };
        let patch = linear("vision_model.embeddings.patch_embedding");
        Ok(Self {
            patch: Linear { weight: patch.weight.reshape((d, v.patch_values()))?, bias: patch.bias },
            vision_position: get("vision_model.embeddings.position_embedding.weight"),
            vision_blocks: blocks(
                "vision_model",
                v.num_hidden_layers,
                v.num_attention_heads,
                v.layer_norm_eps,
                v.hidden_act,
            ),
            post_norm: norm("vision_model.post_layernorm", v.layer_norm_eps),
            head,
            token: get("text_model.embeddings.token_embedding.weight"),
            text_position: get("text_model.embeddings.position_embedding.weight"),
            text_blocks: blocks(
                "text_model",
                t.num_hidden_layers,
                t.num_attention_heads,
                t.layer_norm_eps,
                t.hidden_act,
            ),
            final_norm: norm("text_model.final_layer_norm", t.layer_norm_eps),
            text_head: linear("text_model.head"),
            logit_scale: get("logit_scale"),
            logit_bias: get("logit_bias"),
            config: config.clone(),
        })
    }

    /// The shape of the model.
    pub fn config(&self) -> &SiglipConfig {
        &self.config
    }

    /// Whole images: `pixels` [n, 3, S, S], normalised. `record` keeps the state after every block.
    pub fn vision(&self, pixels: &Tensor, record: bool) -> Result<VisionOutput> {
        let patches = patchify(pixels, self.config.vision_config.patch_size)?;
        self.vision_patches(&patches, None, record)
    }

    /// Some patches of each image: `patches` [n, P, 3·p·p] unfolded as by [`patchify`], `positions` the u32 index of each in
    /// the full grid (row-major), [P] when every image has the same ones or [n, P]; `None` means the whole grid in order.
    /// Attention sees only the patches given, so this serves patch dropping and crops in training.
    pub fn vision_patches(&self, patches: &Tensor, positions: Option<&Tensor>, record: bool) -> Result<VisionOutput> {
        let (n, p, _) = patches.dims3()?;
        let x = self.patch.forward(patches)?;
        let x = match positions {
            None => x.broadcast_add(&self.vision_position)?,
            Some(index) if index.rank() == 1 => x.broadcast_add(&self.vision_position.index_select(index, 0)?)?,
            Some(index) => {
                let rows = self.vision_position.index_select(&index.flatten_all()?, 0)?;
                (x + rows.reshape((n, p, self.config.vision_config.hidden_size))?)?
            }
        };
        let (x, blocks) = run_blocks(&self.vision_blocks, x, record)?;
        let post_ln = self.post_norm.forward(&x)?;
        let pooled = self.head.as_ref().map(|head| head.forward(&post_ln)).transpose()?;
        Ok(VisionOutput { blocks, post_ln, pooled })
    }

    /// Captions: `ids` u32 [n, L], padded as trained (L = `max_position_embeddings` at inference). Every position attends to
    /// every other, pads included.
    pub fn text(&self, ids: &Tensor, record: bool) -> Result<TextOutput> {
        let (n, l) = ids.dims2()?;
        let d = self.config.text_config.hidden_size;
        let x = self.token.index_select(&ids.flatten_all()?, 0)?.reshape((n, l, d))?;
        let x = x.broadcast_add(&self.text_position.narrow(0, 0, l)?)?;
        let (x, blocks) = run_blocks(&self.text_blocks, x, record)?;
        let final_ln = self.final_norm.forward(&x)?;
        let last = final_ln.narrow(1, l - 1, 1)?.squeeze(1)?;
        Ok(TextOutput { blocks, pooled: self.text_head.forward(&last)?, final_ln })
    }

    /// `exp(logit_scale) · cos(image, text) + logit_bias`, [images, texts], from pooled outputs.
    pub fn logits(&self, image_pooled: &Tensor, text_pooled: &Tensor) -> Result<Tensor> {
        let cosine = unit(image_pooled)?.matmul(&unit(text_pooled)?.t()?)?;
        cosine.broadcast_mul(&self.logit_scale.exp()?)?.broadcast_add(&self.logit_bias)
    }

    /// The logit of each image with the text of the same row, [n]: the diagonal of [`Self::logits`].
    pub fn pair_logits(&self, image_pooled: &Tensor, text_pooled: &Tensor) -> Result<Tensor> {
        let cosine = (unit(image_pooled)? * unit(text_pooled)?)?.sum(1)?;
        cosine.broadcast_mul(&self.logit_scale.exp()?)?.broadcast_add(&self.logit_bias)
    }
}

/// Rows divided by their norms.
fn unit(x: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&x.sqr()?.sum_keepdim(1)?.sqrt()?)
}

/// Unfolds images [n, 3, S, S] into patches [n, (S/p)², 3·p·p]: rows of patches first, values ordered (channel, y, x) as the
/// weight of the patch convolution. Pixels beyond the last whole patch are ignored, as the convolution does.
pub fn patchify(pixels: &Tensor, patch: usize) -> Result<Tensor> {
    let (n, c, h, w) = pixels.dims4()?;
    let (rows, columns) = (h / patch, w / patch);
    pixels
        .narrow(2, 0, rows * patch)?
        .narrow(3, 0, columns * patch)?
        .contiguous()?
        .reshape(vec![n, c, rows, patch, columns, patch])?
        .permute(vec![0, 2, 4, 1, 3, 5])?
        .contiguous()?
        .reshape((n, rows * columns, c * patch * patch))
}
