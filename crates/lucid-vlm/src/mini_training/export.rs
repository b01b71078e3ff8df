//! The files of a trained backbone in Hugging Face's layout: `config.json`, `model.safetensors` (f16), `tokenizer.json`,
//! `tokenizer_config.json` and `preprocessor_config.json`.

use crate::config::ModelConfig;
use crate::error::VlmError;
use crate::mini_training::tokens::tokenizer_json;
use crate::mini_training::trainee::Trainee;
use half::f16;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use std::path::Path;

fn file_error(path: &Path, reason: impl ToString) -> VlmError {
    VlmError::File { file: path.display().to_string(), reason: reason.to_string() }
}

/// Writes `bytes` to `path` through a temporary file beside it, so that a reader never sees half a file.
pub fn publish(path: &Path, bytes: &[u8]) -> Result<(), VlmError> {
    let partial = path.with_extension("partial");
    let write = || {
        use std::io::Write;
        let mut file = std::fs::File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|e| file_error(path, e))
}

fn config_json(config: &ModelConfig) -> Result<Value, VlmError> {
    let mut value = serde_json::to_value(config).map_err(|e| file_error(Path::new("config.json"), e))?;
    value["architectures"] = json!(["SiglipModel"]);
    value["dtype"] = json!("float16");
    value["initializer_factor"] = json!(1.0);
    value["text_config"]["model_type"] = json!("siglip_text_model");
    value["text_config"]["eos_token_id"] = json!(1);
    value["text_config"]["bos_token_id"] = json!(null);
    value["text_config"]["attention_dropout"] = json!(0.0);
    value["vision_config"]["model_type"] = json!("siglip_vision_model");
    value["vision_config"]["attention_dropout"] = json!(0.0);
    Ok(value)
}

/// The weights as f16 safetensors; auxiliary parameters are left out.
pub fn weights(trainee: &Trainee) -> Result<Vec<u8>, VlmError> {
    let mut buffers = Vec::new();
    for (i, p) in trainee.parameters.iter().enumerate().filter(|(_, p)| !p.is_auxiliary()) {
        let bytes: Vec<u8> = trainee.values(i)?.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        buffers.push((p.name.clone(), p.var.dims().to_vec(), bytes));
    }
    let mut views = Vec::new();
    for (name, shape, bytes) in &buffers {
        let view = TensorView::new(Dtype::F16, shape.clone(), bytes).map_err(|e| file_error(Path::new(name), e))?;
        views.push((name.clone(), view));
    }
    let metadata = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    serialize(views, Some(metadata)).map_err(|e| file_error(Path::new("model.safetensors"), e))
}

/// Writes the backbone to `folder` and returns the BLAKE3 hash of `model.safetensors`.
pub fn export(trainee: &Trainee, folder: &Path) -> Result<String, VlmError> {
    std::fs::create_dir_all(folder).map_err(|e| file_error(folder, e))?;
    let config = trainee.model.config();
    let side = config.vision_config.image_size;
    let length = config.text_config.max_position_embeddings;
    let preprocessor = json!({
        "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor", "processor_class": "SiglipProcessor",
        "resample": 3, "rescale_factor": 1.0 / 255.0, "size": { "height": side, "width": side },
    });
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>",
        "model_max_length": length, "padding_side": "right", "clean_up_tokenization_spaces": false,
        "model_input_names": ["input_ids"],
    });
    let files = [
        ("config.json", config_json(config)?),
        ("preprocessor_config.json", preprocessor),
        ("tokenizer.json", tokenizer_json()),
        ("tokenizer_config.json", tokenizer_config),
    ];
    for (name, value) in files {
        let path = folder.join(name);
        let mut text = serde_json::to_string_pretty(&value).map_err(|e| file_error(&path, e))?;
        text.push('\n');
        publish(&path, text.as_bytes())?;
    }
    let bytes = weights(trainee)?;
    publish(&folder.join("model.safetensors"), &bytes)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}
