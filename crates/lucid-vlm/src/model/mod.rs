//! The two-tower architecture on candle: pre-LN transformers over patches and tokens, pooled and compared. What sets SigLIP,
//! SigLIP 2 and CLIP apart is read from [`crate::family`].
//!
//! The model is built over a map from Hugging Face's tensor names to tensors. Loaded tensors and the tensors of candle
//! [`Var`](candle_core::Var)s (`var.as_tensor().clone()`, which shares the variable's storage) work alike, so training and
//! inference run the same lines.

mod layers;
mod positions;

use crate::config::ModelConfig;
use crate::error::VlmError;
use crate::family::{PatchWeight, TextPooling, VisionPooling};
use crate::weights;
use crate::weights::TensorMap;
use candle_core::{DType, Result, Tensor};
use layers::{AttentionPooling, Block, LayerNorm, Linear, Mlp, causal_mask, run_blocks};

/// What the image tower gives for n images with P patches each.
#[derive(Debug, Clone)]
pub struct VisionOutput {
    /// Residual stream of the patches after every block, [n, P, d]; empty unless asked for.
    pub blocks: Vec<Tensor>,
    /// Residual stream of the class token after every block, [n, d]; empty unless asked for, and in families without one.
    pub class_blocks: Vec<Tensor>,
    /// The patches after `post_layernorm`, [n, P, d]: the default hook. SigLIP's head sees exactly this; CLIP itself applies the
    /// norm to its class token only.
    pub post_ln: Tensor,
    /// Pooled output, [n, projection]; absent in models without a head.
    pub pooled: Option<Tensor>,
}

/// What the text tower gives for n captions of L positions each.
#[derive(Debug, Clone)]
pub struct TextOutput {
    /// Residual stream after every block, [n, L, d]; empty unless asked for.
    pub blocks: Vec<Tensor>,
    /// After `final_layer_norm`, [n, L, d]: the default hook.
    pub final_ln: Tensor,
    /// Linear head on the position that stands for the caption, [n, projection].
    pub pooled: Tensor,
}

enum Pooling {
    None,
    Attention(Box<AttentionPooling>),
    Class(Linear),
}

/// A model of two towers. Cloning a tensor of candle shares its storage, so building one over variables copies no weight.
pub struct DualEncoder {
    config: ModelConfig,
    tensors: TensorMap,
    patch: Linear,
    class: Option<Tensor>,
    vision_position: Tensor,
    pre_norm: Option<LayerNorm>,
    vision_blocks: Vec<Block>,
    post_norm: LayerNorm,
    pooling: Pooling,
    token: Tensor,
    text_position: Tensor,
    text_blocks: Vec<Block>,
    final_norm: LayerNorm,
    text_head: Linear,
    logit_scale: Tensor,
    logit_bias: Tensor,
}

/// Looks tensors up by their names.
struct Parts<'a>(&'a TensorMap);

impl Parts<'_> {
    fn get(&self, name: &str) -> Tensor {
        self.0[name].clone()
    }

    /// A projection; a bias that the family does not have is zero.
    fn linear(&self, name: &str) -> Result<Linear> {
        let weight = self.get(&format!("{name}.weight"));
        let bias = match self.0.get(&format!("{name}.bias")) {
            Some(bias) => bias.clone(),
            None => Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?,
        };
        Ok(Linear::new(weight, bias))
    }

    fn norm(&self, name: &str, eps: f64) -> LayerNorm {
        LayerNorm { weight: self.get(&format!("{name}.weight")), bias: self.get(&format!("{name}.bias")), eps }
    }

    fn mlp(&self, name: &str, activation: crate::config::Activation) -> Result<Mlp> {
        let (fc1, fc2) = (self.linear(&format!("{name}.fc1"))?, self.linear(&format!("{name}.fc2"))?);
        Ok(Mlp { fc1, fc2, activation })
    }

    fn block(&self, p: &str, heads: usize, eps: f64, activation: crate::config::Activation) -> Result<Block> {
        Ok(Block {
            norm1: self.norm(&format!("{p}.layer_norm1"), eps),
            q: self.linear(&format!("{p}.self_attn.q_proj"))?,
            k: self.linear(&format!("{p}.self_attn.k_proj"))?,
            v: self.linear(&format!("{p}.self_attn.v_proj"))?,
            out: self.linear(&format!("{p}.self_attn.out_proj"))?,
            norm2: self.norm(&format!("{p}.layer_norm2"), eps),
            mlp: self.mlp(&format!("{p}.mlp"), activation)?,
            heads,
        })
    }

    fn attention_pooling(&self, config: &ModelConfig) -> Result<AttentionPooling> {
        let (v, h) = (&config.vision_config, "vision_model.head");
        let weight = self.get(&format!("{h}.attention.in_proj_weight"));
        let bias = self.get(&format!("{h}.attention.in_proj_bias"));
        let part = |i: usize| -> Result<Linear> {
            let d = v.hidden_size;
            Ok(Linear::new(weight.narrow(0, i * d, d)?, bias.narrow(0, i * d, d)?))
        };
        Ok(AttentionPooling {
            probe: self.get(&format!("{h}.probe")),
            q: part(0)?,
            k: part(1)?,
            v: part(2)?,
            out: self.linear(&format!("{h}.attention.out_proj"))?,
            norm: self.norm(&format!("{h}.layernorm"), v.layer_norm_eps),
            mlp: self.mlp(&format!("{h}.mlp"), v.hidden_act)?,
            heads: v.num_attention_heads,
        })
    }
}

impl DualEncoder {
    /// Builds the model over `tensors`, whose names and shapes are those of [`weights::expected_shapes`].
    ///
    /// # Errors
    /// `E_BACKBONE_WEIGHTS` names a tensor that is missing, of another shape, or unknown.
    pub fn new(config: &ModelConfig, tensors: &TensorMap) -> std::result::Result<Self, VlmError> {
        weights::check_shapes(config, tensors)?;
        let (parts, traits) = (Parts(tensors), config.traits());
        let (v, t) = (&config.vision_config, &config.text_config);
        let blocks = |tower: &str, layers: usize, heads, eps, activation| {
            (0..layers)
                .map(|i| parts.block(&format!("{tower}.encoder.layers.{i}"), heads, eps, activation))
                .collect::<Result<Vec<_>>>()
        };
        let pooling = match traits.vision_pooling {
            VisionPooling::ClassToken => Pooling::Class(parts.linear("visual_projection")?),
            VisionPooling::Attention if v.vision_use_head => {
                Pooling::Attention(parts.attention_pooling(config)?.into())
            }
            VisionPooling::Attention => Pooling::None,
        };
        let by_row = (v.hidden_size, v.patch_values());
        let patch = parts.linear("vision_model.embeddings.patch_embedding")?.map_weight(|weight| {
            match traits.patch_weight {
                PatchWeight::Convolution => weight.reshape(by_row),
                PatchWeight::Matrix => weight
                    .reshape((v.hidden_size, v.patch_size, v.patch_size, v.num_channels))?
                    .permute((0, 3, 1, 2))?
                    .contiguous()?
                    .reshape(by_row),
            }
        })?;
        let token = parts.get("text_model.embeddings.token_embedding.weight");
        let no_bias = || Tensor::zeros(1, token.dtype(), token.device());
        Ok(Self {
            patch,
            class: tensors.get("vision_model.embeddings.class_embedding").cloned(),
            vision_position: parts.get("vision_model.embeddings.position_embedding.weight"),
            pre_norm: traits.norm_before_blocks.then(|| parts.norm("vision_model.pre_layrnorm", v.layer_norm_eps)),
            vision_blocks: blocks(
                "vision_model",
                v.num_hidden_layers,
                v.num_attention_heads,
                v.layer_norm_eps,
                v.hidden_act,
            )?,
            post_norm: parts.norm("vision_model.post_layernorm", v.layer_norm_eps),
            pooling,
            text_position: parts.get("text_model.embeddings.position_embedding.weight"),
            text_blocks: blocks(
                "text_model",
                t.num_hidden_layers,
                t.num_attention_heads,
                t.layer_norm_eps,
                t.hidden_act,
            )?,
            final_norm: parts.norm("text_model.final_layer_norm", t.layer_norm_eps),
            text_head: parts.linear(traits.text_head.0)?,
            logit_scale: parts.get("logit_scale").reshape(1)?,
            logit_bias: if traits.logit_bias { parts.get("logit_bias").reshape(1)? } else { no_bias()? },
            token,
            tensors: tensors.clone(),
            config: config.clone(),
        })
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weights it was built over, by Hugging Face's names.
    pub fn tensors(&self) -> &TensorMap {
        &self.tensors
    }

    /// Whole images: `pixels` [n, 3, H, W], normalised; the size the model was made for, or any with whole patches where the
    /// family's positions follow the grid. `record` keeps the state after every block.
    pub fn vision(&self, pixels: &Tensor, record: bool) -> Result<VisionOutput> {
        let p = self.config.vision_config.patch_size;
        let (_, _, h, w) = pixels.dims4()?;
        self.vision_grid(&patchify(pixels, p)?, [h / p, w / p], record)
    }

    /// As [`Self::vision`] on patches [n, rows · columns, 3·p·p] already unfolded as by [`patchify`].
    pub fn vision_grid(&self, patches: &Tensor, grid: [usize; 2], record: bool) -> Result<VisionOutput> {
        let x = self.patch.forward(patches)?;
        let rows = self.vision_position.dim(0)?;
        let x = match &self.class {
            None if self.config.traits().positions_follow_grid => {
                x.broadcast_add(&positions::on_grid(&self.vision_position, grid)?)?
            }
            None => x.broadcast_add(&self.vision_position)?,
            Some(_) => x.broadcast_add(&self.vision_position.narrow(0, 1, rows - 1)?)?,
        };
        self.vision_blocks(x, record)
    }

    /// Some patches of each image: `patches` [n, P, 3·p·p] unfolded as by [`patchify`], `positions` the u32 index of each in
    /// the full grid (row-major), [P] when every image has the same ones or [n, P]; `None` means the whole grid in order.
    /// Attention sees only the patches given, so this serves patch dropping and crops in training.
    pub fn vision_patches(&self, patches: &Tensor, positions: Option<&Tensor>, record: bool) -> Result<VisionOutput> {
        let side = self.config.vision_config.side();
        let Some(index) = positions else { return self.vision_grid(patches, [side, side], record) };
        let (n, p, _) = patches.dims3()?;
        let x = self.patch.forward(patches)?;
        let first = usize::from(self.class.is_some());
        let table = self.vision_position.narrow(0, first, self.vision_position.dim(0)? - first)?;
        let rows = table.index_select(&index.flatten_all()?, 0)?;
        let x = if index.rank() == 1 {
            x.broadcast_add(&rows)?
        } else {
            (x + rows.reshape((n, p, self.config.vision_config.hidden_size))?)?
        };
        self.vision_blocks(x, record)
    }

    /// The tower from embedded patches [n, P, d] on.
    fn vision_blocks(&self, mut x: Tensor, record: bool) -> Result<VisionOutput> {
        let (n, p, d) = x.dims3()?;
        if let Some(class) = &self.class {
            let class = (class.reshape((1, d))? + self.vision_position.narrow(0, 0, 1)?)?;
            x = Tensor::cat(&[&class.broadcast_as((n, 1, d))?.contiguous()?, &x], 1)?;
        }
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(&x)?;
        }
        let (x, states) = run_blocks(&self.vision_blocks, x, None, record)?;
        let normed = self.post_norm.forward(&x)?;
        let first = usize::from(self.class.is_some());
        let patches = |x: &Tensor| if first == 0 { Ok(x.clone()) } else { x.narrow(1, first, p)?.contiguous() };
        let pooled = match &self.pooling {
            Pooling::None => None,
            Pooling::Attention(head) => Some(head.forward(&normed)?),
            Pooling::Class(projection) => Some(projection.forward(&normed.narrow(1, 0, 1)?.squeeze(1)?)?),
        };
        let class_of = |x: &Tensor| x.narrow(1, 0, 1)?.squeeze(1);
        Ok(VisionOutput {
            blocks: states.iter().map(patches).collect::<Result<_>>()?,
            class_blocks: states.iter().take(first * states.len()).map(class_of).collect::<Result<_>>()?,
            post_ln: patches(&normed)?,
            pooled,
        })
    }

    /// Captions: `ids` u32 [n, L], padded as trained (L = `max_position_embeddings` at inference). SigLIP's positions attend to
    /// every other, pads included; CLIP's to those before them, so its pads reach nothing that is kept.
    pub fn text(&self, ids: &Tensor, record: bool) -> Result<TextOutput> {
        let (n, l) = ids.dims2()?;
        let (d, traits) = (self.config.text_config.hidden_size, self.config.traits());
        let x = self.token.index_select(&ids.flatten_all()?, 0)?.reshape((n, l, d))?;
        let x = x.broadcast_add(&self.text_position.narrow(0, 0, l)?)?;
        let mask = if traits.causal_text { Some(causal_mask(l, &x)?) } else { None };
        let (x, blocks) = run_blocks(&self.text_blocks, x, mask.as_ref(), record)?;
        let final_ln = self.final_norm.forward(&x)?;
        let whole = match traits.text_pooling {
            TextPooling::Last => final_ln.narrow(1, l - 1, 1)?.squeeze(1)?,
            TextPooling::EndOfText => {
                let ends: Vec<u32> = ids
                    .to_dtype(DType::U32)?
                    .to_vec2::<u32>()?
                    .iter()
                    .enumerate()
                    .map(|(i, row)| (i * l + self.end_of_text(row)) as u32)
                    .collect();
                final_ln.reshape((n * l, d))?.index_select(&Tensor::from_vec(ends, n, ids.device())?, 0)?
            }
        };
        Ok(TextOutput { blocks, pooled: self.text_head.forward(&whole)?, final_ln })
    }

    /// Position of the end-of-text token: the first of its id, or of the largest id where the config says 2 (a value that OpenAI's
    /// files carry by mistake), as `transformers` finds it.
    fn end_of_text(&self, ids: &[u32]) -> usize {
        let end = match self.config.text_config.eos_token_id {
            None | Some(2) => ids.iter().copied().max().unwrap_or(0),
            Some(end) => end,
        };
        ids.iter().position(|&id| id == end).unwrap_or(0)
    }

    /// `exp(logit_scale) · cos(image, text) + logit_bias`, [images, texts], from pooled outputs. A family without a bias has 0.
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
pub(crate) fn unit(x: &Tensor) -> Result<Tensor> {
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
