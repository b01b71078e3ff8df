//! Checkpoints of open_clip: its configuration and its names of tensors, turned into Hugging Face's.
//!
//! Two forms occur: CLIP as OpenAI wrote it (`visual.transformer.resblocks.…`, fused query-key-value, projections stored transposed)
//! and SigLIP with timm's image tower (`visual.trunk.blocks.…`). Sizes are read from the tensors; the configuration only says what
//! they cannot: heads, activation, preprocessing.

use crate::error::VlmError;
use crate::weights::TensorMap;
use candle_core::Tensor;
use serde_json::{Value, json};

/// A translated checkpoint: `config.json`, `preprocessor_config.json` and tensors as `transformers` has them.
pub(crate) struct Translated {
    pub config: Value,
    pub preprocessor: Value,
    pub tensors: TensorMap,
}

/// The file of the configuration.
pub(crate) const CONFIG: &str = "open_clip_config.json";

/// Whether a configuration is open_clip's.
pub(crate) fn is_ours(config: &Value) -> bool {
    config.get("model_cfg").is_some()
}

fn bad(field: &str, found: &Value, expected: &str) -> VlmError {
    VlmError::Config { file: CONFIG.into(), field: field.into(), found: found.to_string(), expected: expected.into() }
}

/// The tensors still to be translated.
struct Source(TensorMap);

impl Source {
    fn take(&mut self, name: &str) -> Result<Tensor, VlmError> {
        self.0.remove(name).ok_or_else(|| VlmError::Weights {
            tensor: name.into(),
            found: "nothing".into(),
            expected: "a tensor of open_clip's naming".into(),
        })
    }

    fn peek(&self, name: &str) -> Result<Vec<usize>, VlmError> {
        self.0.get(name).map(|t| t.dims().to_vec()).ok_or_else(|| VlmError::Weights {
            tensor: name.into(),
            found: "nothing".into(),
            expected: "a tensor of open_clip's naming".into(),
        })
    }

    fn layers(&self, prefix: &str, suffix: &str) -> usize {
        (0..).take_while(|i| self.0.contains_key(&format!("{prefix}{i}.{suffix}"))).count()
    }
}

struct Target(TensorMap);

impl Target {
    fn put(&mut self, name: String, tensor: Tensor) {
        self.0.insert(name, tensor);
    }
}

/// Moves `from.{weight,bias}` to `to.{weight,bias}`.
fn pair(source: &mut Source, target: &mut Target, from: &str, to: &str) -> Result<(), VlmError> {
    for part in ["weight", "bias"] {
        target.put(format!("{to}.{part}"), source.take(&format!("{from}.{part}"))?);
    }
    Ok(())
}

/// Splits a fused projection [3 d, …] into query, key and value.
fn split_qkv(target: &mut Target, to: &str, weight: &Tensor, bias: &Tensor) -> Result<(), VlmError> {
    let d = weight.dim(1)?;
    if weight.dim(0)? != 3 * d || bias.dims() != [3 * d] {
        return Err(VlmError::Weights {
            tensor: to.into(),
            found: format!("shapes {:?} and {:?}", weight.dims(), bias.dims()),
            expected: format!("[{}, {d}] and [{}]", 3 * d, 3 * d),
        });
    }
    for (i, name) in ["q_proj", "k_proj", "v_proj"].iter().enumerate() {
        target.put(format!("{to}.{name}.weight"), weight.narrow(0, i * d, d)?.contiguous()?);
        target.put(format!("{to}.{name}.bias"), bias.narrow(0, i * d, d)?.contiguous()?);
    }
    Ok(())
}

/// How a kind of transformer block names its fused projection (weight, bias) and, in the order of [`BLOCK`], the rest.
struct BlockNames {
    qkv: [&'static str; 2],
    rest: [&'static str; 5],
}

/// The parts of a block beside its projections, as Hugging Face names them.
const BLOCK: [&str; 5] = ["layer_norm1", "self_attn.out_proj", "layer_norm2", "mlp.fc1", "mlp.fc2"];

/// OpenAI's transformer.
const RESBLOCK: BlockNames = BlockNames {
    qkv: ["attn.in_proj_weight", "attn.in_proj_bias"],
    rest: ["ln_1", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"],
};

/// timm's image tower.
const TIMM: BlockNames = BlockNames {
    qkv: ["attn.qkv.weight", "attn.qkv.bias"],
    rest: ["norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"],
};

/// The blocks `from.0`, `from.1` … of a tower; how many there are.
fn blocks(
    source: &mut Source,
    target: &mut Target,
    names: &BlockNames,
    from: &str,
    tower: &str,
) -> Result<usize, VlmError> {
    let layers = source.layers(&format!("{from}."), &format!("{}.weight", names.rest[0]));
    for i in 0..layers {
        let (from, to) = (format!("{from}.{i}"), format!("{tower}.encoder.layers.{i}"));
        let [weight, bias] = names.qkv.map(|part| source.take(&format!("{from}.{part}")));
        split_qkv(target, &format!("{to}.self_attn"), &weight?, &bias?)?;
        for (old, new) in names.rest.iter().zip(BLOCK) {
            pair(source, target, &format!("{from}.{old}"), &format!("{to}.{new}"))?;
        }
    }
    Ok(layers)
}

/// timm's attention pooling: one query, keys and values fused.
fn attention_pool(source: &mut Source, target: &mut Target) -> Result<(), VlmError> {
    let (from, to) = ("visual.trunk.attn_pool", "vision_model.head");
    target.put(format!("{to}.probe"), source.take(&format!("{from}.latent"))?);
    for part in ["weight", "bias"] {
        let q = source.take(&format!("{from}.q.{part}"))?;
        let kv = source.take(&format!("{from}.kv.{part}"))?;
        target.put(format!("{to}.attention.in_proj_{part}"), Tensor::cat(&[&q, &kv], 0)?);
    }
    for (old, new) in
        [("proj", "attention.out_proj"), ("norm", "layernorm"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")]
    {
        pair(source, target, &format!("{from}.{old}"), &format!("{to}.{new}"))?;
    }
    Ok(())
}

/// Translates a checkpoint.
///
/// # Errors
/// `E_BACKBONE_CONFIG`, `E_BACKBONE_WEIGHTS` for what is missing or of another form.
pub(crate) fn translate(config: &Value, tensors: TensorMap) -> Result<Translated, VlmError> {
    let model = &config["model_cfg"];
    let sigmoid = tensors.contains_key("visual.trunk.pos_embed");
    let mut source = Source(tensors);
    let mut target = Target(TensorMap::new());
    let (vision, text) = if sigmoid {
        timm_vision(model, &mut source, &mut target)?
    } else {
        openai_vision(model, &mut source, &mut target)?
    };
    target.put("logit_scale".into(), source.take("logit_scale")?);
    if sigmoid {
        target.put("logit_bias".into(), source.take("logit_bias")?);
    }
    // What is left is reported under its own name by the check of shapes; buffers are no parameters.
    for (name, tensor) in source.0 {
        if name != "attn_mask" && name != "text.attn_mask" {
            target.put(name, tensor);
        }
    }
    let side = vision["image_size"].clone();
    let family = if sigmoid { "siglip" } else { "clip" };
    let mut hf = json!({ "model_type": family, "text_config": text, "vision_config": vision });
    if !sigmoid {
        hf["projection_dim"] = model["embed_dim"].clone();
    }
    Ok(Translated { config: hf, preprocessor: preprocessor(config, sigmoid, &side)?, tensors: target.0 })
}

/// The text tower; its tensors have a prefix where it is a module of its own.
fn text_tower(
    model: &Value,
    source: &mut Source,
    target: &mut Target,
    sigmoid: bool,
    act: &str,
) -> Result<Value, VlmError> {
    let prefix = if source.0.contains_key("text.token_embedding.weight") { "text." } else { "" };
    let token = source.peek(&format!("{prefix}token_embedding.weight"))?;
    let position = source.peek(&format!("{prefix}positional_embedding"))?;
    let (vocabulary, width) = (token[0], token.get(1).copied().unwrap_or(0));
    let inner = source.peek(&format!("{prefix}transformer.resblocks.0.mlp.c_fc.weight"))?[0];
    let embeddings = "text_model.embeddings";
    for (old, new) in
        [("token_embedding.weight", "token_embedding.weight"), ("positional_embedding", "position_embedding.weight")]
    {
        target.put(format!("{embeddings}.{new}"), source.take(&format!("{prefix}{old}"))?);
    }
    let from = format!("{prefix}transformer.resblocks");
    let layers = blocks(source, target, &RESBLOCK, &from, "text_model")?;
    pair(source, target, &format!("{prefix}ln_final"), "text_model.final_layer_norm")?;
    let mut projection = width;
    if sigmoid {
        projection = source.peek(&format!("{prefix}text_projection.weight"))?[0];
        pair(source, target, &format!("{prefix}text_projection"), "text_model.head")?;
    } else {
        let matrix = source.take(&format!("{prefix}text_projection"))?;
        target.put("text_projection.weight".into(), matrix.t()?.contiguous()?);
    }
    let found = &model["text_cfg"]["heads"];
    let heads = match found {
        Value::Null => (width / 64) as u64,
        number => number.as_u64().ok_or_else(|| bad("model_cfg.text_cfg.heads", number, "a whole number"))?,
    };
    Ok(json!({
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "vocab_size": vocabulary, "max_position_embeddings": position[0], "hidden_act": act,
        "layer_norm_eps": if sigmoid { 1e-6 } else { 1e-5 },
        "projection_size": projection, "eos_token_id": 2,
        // open_clip's pad for CLIP is 0; SigLIP's is in its tokenizer's files.
        "pad_token_id": u32::from(sigmoid),
    }))
}

fn openai_vision(model: &Value, source: &mut Source, target: &mut Target) -> Result<(Value, Value), VlmError> {
    let act = if model["quick_gelu"] == json!(true) { "quick_gelu" } else { "gelu" };
    let conv = source.peek("visual.conv1.weight")?;
    let (width, patch) = (conv[0], conv.last().copied().unwrap_or(0));
    let positions = source.peek("visual.positional_embedding")?[0];
    let inner = source.peek("visual.transformer.resblocks.0.mlp.c_fc.weight")?[0];
    let embeddings = "vision_model.embeddings";
    for (old, new) in [
        ("visual.conv1.weight", "patch_embedding.weight"),
        ("visual.class_embedding", "class_embedding"),
        ("visual.positional_embedding", "position_embedding.weight"),
    ] {
        target.put(format!("{embeddings}.{new}"), source.take(old)?);
    }
    pair(source, target, "visual.ln_pre", "vision_model.pre_layrnorm")?;
    let layers = blocks(source, target, &RESBLOCK, "visual.transformer.resblocks", "vision_model")?;
    pair(source, target, "visual.ln_post", "vision_model.post_layernorm")?;
    target.put("visual_projection.weight".into(), source.take("visual.proj")?.t()?.contiguous()?);
    let head_width = model["vision_cfg"]["head_width"].as_u64().unwrap_or(64).max(1) as usize;
    let vision = json!({
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": width / head_width, "patch_size": patch,
        "image_size": positions.saturating_sub(1).isqrt() * patch, "hidden_act": act, "layer_norm_eps": 1e-5,
    });
    Ok((vision, text_tower(model, source, target, false, act)?))
}

/// Heads of timm's SigLIP towers by their width; the configuration only names the architecture.
fn timm_heads(width: usize) -> Option<usize> {
    match width {
        1152 | 1536 => Some(16),
        width if width.is_multiple_of(64) => Some(width / 64),
        _ => None,
    }
}

fn timm_vision(model: &Value, source: &mut Source, target: &mut Target) -> Result<(Value, Value), VlmError> {
    let act = "gelu_pytorch_tanh";
    let conv = source.peek("visual.trunk.patch_embed.proj.weight")?;
    let (width, patch) = (conv[0], conv.last().copied().unwrap_or(0));
    let position = source.take("visual.trunk.pos_embed")?;
    let positions = position.elem_count() / width.max(1);
    let inner = source.peek("visual.trunk.blocks.0.mlp.fc1.weight")?[0];
    let embeddings = "vision_model.embeddings";
    pair(source, target, "visual.trunk.patch_embed.proj", &format!("{embeddings}.patch_embedding"))?;
    target.put(format!("{embeddings}.position_embedding.weight"), position.reshape((positions, width))?);
    let layers = blocks(source, target, &TIMM, "visual.trunk.blocks", "vision_model")?;
    pair(source, target, "visual.trunk.norm", "vision_model.post_layernorm")?;
    attention_pool(source, target)?;
    let heads = model["vision_cfg"]["heads"].as_u64().map(|h| h as usize).or_else(|| timm_heads(width));
    let heads =
        heads.ok_or_else(|| bad("model_cfg.vision_cfg", &model["vision_cfg"], "a tower whose heads are known"))?;
    let vision = json!({
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "patch_size": patch, "image_size": positions.isqrt() * patch, "hidden_act": act, "layer_norm_eps": 1e-6,
    });
    Ok((vision, text_tower(model, source, target, true, act)?))
}

/// `preprocess_cfg` in Hugging Face's terms; what it leaves out has open_clip's defaults.
fn preprocessor(config: &Value, sigmoid: bool, side: &Value) -> Result<Value, VlmError> {
    let given = config.get("preprocess_cfg").cloned().unwrap_or_default();
    let resample = match given["interpolation"].as_str() {
        None | Some("bicubic") => 3,
        Some("bilinear") => 2,
        Some(_) => return Err(bad("preprocess_cfg.interpolation", &given["interpolation"], "bicubic or bilinear")),
    };
    let mut form = json!({ "resample": resample });
    match given["resize_mode"].as_str() {
        Some("squash") => form["size"] = json!({ "height": side, "width": side }),
        None if sigmoid => form["size"] = json!({ "height": side, "width": side }),
        None | Some("shortest") => {
            form["size"] = json!({ "shortest_edge": side });
            form["do_center_crop"] = json!(true);
        }
        Some(_) => return Err(bad("preprocess_cfg.resize_mode", &given["resize_mode"], "shortest or squash")),
    }
    for (old, new) in [("mean", "image_mean"), ("std", "image_std")] {
        if !given[old].is_null() {
            form[new] = given[old].clone();
        }
    }
    Ok(form)
}
