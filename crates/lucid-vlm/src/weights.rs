//! The tensors of a checkpoint: their names and shapes, and reading them from safetensors.

use crate::config::ModelConfig;
use crate::error::VlmError;
use crate::family::{PatchWeight, VisionPooling};
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;

/// Tensors by their name in `model.safetensors`.
pub type TensorMap = HashMap<String, Tensor>;

/// Reads the bytes of a `model.safetensors` (f32, f16 or bf16) into f32 tensors on the CPU.
///
/// # Errors
/// `E_BACKBONE` when it is not safetensors or is cut short, `E_BACKBONE_WEIGHTS` names a tensor of another type or one with a
/// value that is not finite.
pub fn read_weights(bytes: &[u8], file: &str) -> Result<TensorMap, VlmError> {
    let parsed = SafeTensors::deserialize(bytes)
        .map_err(|e| VlmError::File { file: file.into(), reason: format!("not a whole safetensors file: {e}") })?;
    let mut tensors = TensorMap::new();
    for (name, view) in parsed.iter() {
        if name.ends_with(".position_ids") {
            continue;
        }
        let wrong =
            |found: String, expected: &str| VlmError::Weights { tensor: name.into(), found, expected: expected.into() };
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => return Err(wrong(format!("{other:?}"), "F32, F16 or BF16")),
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?.to_dtype(DType::F32)?;
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(wrong(format!("{} at value {at}", values[at]), "finite values"));
        }
        tensors.insert(name.into(), tensor);
    }
    Ok(tensors)
}

/// Every tensor of a model with this config: name and shape, in a fixed order.
pub fn expected_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let mut all: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: String, shape: &[usize]| all.push((name, shape.to_vec()));
    let traits = config.traits();
    if traits.logit_bias {
        add("logit_bias".into(), &[1]);
    }
    add("logit_scale".into(), &[1]);
    let (v, t) = (&config.vision_config, &config.text_config);
    let embeddings = "text_model.embeddings";
    add(format!("{embeddings}.position_embedding.weight"), &[t.max_position_embeddings, t.hidden_size]);
    add(format!("{embeddings}.token_embedding.weight"), &[t.vocab_size, t.hidden_size]);
    let towers = [
        ("text_model", t.num_hidden_layers, t.hidden_size, t.intermediate_size),
        ("vision_model", v.num_hidden_layers, v.hidden_size, v.intermediate_size),
    ];
    for (tower, layers, d, inner) in towers {
        for i in 0..layers {
            let p = format!("{tower}.encoder.layers.{i}");
            for norm in ["layer_norm1", "layer_norm2"] {
                add(format!("{p}.{norm}.weight"), &[d]);
                add(format!("{p}.{norm}.bias"), &[d]);
            }
            for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                add(format!("{p}.self_attn.{projection}.weight"), &[d, d]);
                add(format!("{p}.self_attn.{projection}.bias"), &[d]);
            }
            add(format!("{p}.mlp.fc1.weight"), &[inner, d]);
            add(format!("{p}.mlp.fc1.bias"), &[inner]);
            add(format!("{p}.mlp.fc2.weight"), &[d, inner]);
            add(format!("{p}.mlp.fc2.bias"), &[d]);
        }
    }
    let (projection, (head, biased)) = (config.text_projection(), traits.text_head);
    add(format!("{head}.weight"), &[projection, t.hidden_size]);
    if biased {
        add(format!("{head}.bias"), &[projection]);
    }
    let d = v.hidden_size;
    for name in ["weight", "bias"] {
        add(format!("text_model.final_layer_norm.{name}"), &[t.hidden_size]);
        add(format!("vision_model.post_layernorm.{name}"), &[d]);
        if traits.norm_before_blocks {
            add(format!("vision_model.pre_layrnorm.{name}"), &[d]);
        }
    }
    let embeddings = "vision_model.embeddings";
    match traits.patch_weight {
        PatchWeight::Convolution => {
            add(format!("{embeddings}.patch_embedding.weight"), &[d, v.num_channels, v.patch_size, v.patch_size]);
        }
        PatchWeight::Matrix => add(format!("{embeddings}.patch_embedding.weight"), &[d, v.patch_values()]),
    }
    if traits.patch_bias {
        add(format!("{embeddings}.patch_embedding.bias"), &[d]);
    }
    let class = usize::from(traits.vision_pooling == VisionPooling::ClassToken);
    add(format!("{embeddings}.position_embedding.weight"), &[v.patches() + class, d]);
    if class == 1 {
        add(format!("{embeddings}.class_embedding"), &[d]);
        add("visual_projection.weight".into(), &[config.vision_projection(), d]);
    } else if v.vision_use_head {
        let h = "vision_model.head";
        add(format!("{h}.probe"), &[1, 1, d]);
        add(format!("{h}.attention.in_proj_weight"), &[3 * d, d]);
        add(format!("{h}.attention.in_proj_bias"), &[3 * d]);
        add(format!("{h}.attention.out_proj.weight"), &[d, d]);
        add(format!("{h}.attention.out_proj.bias"), &[d]);
        add(format!("{h}.layernorm.weight"), &[d]);
        add(format!("{h}.layernorm.bias"), &[d]);
        add(format!("{h}.mlp.fc1.weight"), &[v.intermediate_size, d]);
        add(format!("{h}.mlp.fc1.bias"), &[v.intermediate_size]);
        add(format!("{h}.mlp.fc2.weight"), &[d, v.intermediate_size]);
        add(format!("{h}.mlp.fc2.bias"), &[d]);
    }
    all
}

/// Names, shapes: every expected tensor is there, none is unknown. Buffers of position ids, which older files carry, pass.
pub(crate) fn check_shapes(config: &ModelConfig, tensors: &TensorMap) -> Result<(), VlmError> {
    let expected = expected_shapes(config);
    for (name, shape) in &expected {
        let wrong =
            |found: String| VlmError::Weights { tensor: name.clone(), found, expected: format!("shape {shape:?}") };
        let tensor = tensors.get(name).ok_or_else(|| wrong("nothing".into()))?;
        // The logits' scale and bias are scalars in some files and vectors of one in others.
        let scalar = name.starts_with("logit_") && tensor.rank() == 0;
        if tensor.dims() != shape.as_slice() && !scalar {
            return Err(wrong(format!("shape {:?}", tensor.dims())));
        }
    }
    let known: std::collections::HashSet<&str> = expected.iter().map(|(n, _)| n.as_str()).collect();
    let mut extra: Vec<&String> =
        tensors.keys().filter(|n| !known.contains(n.as_str()) && !n.ends_with(".position_ids")).collect();
    extra.sort();
    match extra.first() {
        None => Ok(()),
        Some(name) => Err(VlmError::Weights {
            tensor: (*name).clone(),
            found: format!("shape {:?}", tensors[*name].dims()),
            expected: "no tensor of this name for this config".into(),
        }),
    }
}
