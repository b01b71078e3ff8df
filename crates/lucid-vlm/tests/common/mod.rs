//! Fixtures and small backbones for the tests.
#![allow(dead_code, clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use lucid_data::{Dataset, DatasetSpec, FolderSpec, PairRecord};
use lucid_vlm::weights::expected_shapes;
use lucid_vlm::{Backbone, BackboneFiles, ModelConfig, TensorMap};
use std::path::{Path, PathBuf};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A file of the test data that is not part of the project; `None` prints why the test is skipped.
pub fn shared(test: &str, name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED {test}: ../shared/{name} is absent");
    None
}

/// Numbers without a pattern, in −1..1.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

pub const CONFIG: &str = r#"{ "model_type": "siglip",
  "text_config": { "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 400, "max_position_embeddings": 16, "projection_size": 48 },
  "vision_config": { "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
    "image_size": 32, "patch_size": 8 } }"#;

/// Random weights for a config.
pub fn random_weights(config: &ModelConfig) -> TensorMap {
    let mut numbers = Numbers(7);
    expected_shapes(config)
        .into_iter()
        .map(|(name, shape)| {
            let n: usize = shape.iter().product();
            let scale = 1.0 / (*shape.last().unwrap() as f32).sqrt();
            let values: Vec<f32> = (0..n).map(|_| numbers.next() * scale).collect();
            (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        })
        .collect()
}

pub fn serialise(tensors: &TensorMap, dtype: DType) -> Vec<u8> {
    let cast: TensorMap = tensors.iter().map(|(k, v)| (k.clone(), v.to_dtype(dtype).unwrap())).collect();
    safetensors::serialize(cast.iter(), None).unwrap()
}

/// A small backbone with random weights and the unigram tokenizer of the fixtures.
pub fn small_backbone() -> Backbone {
    let config = ModelConfig::parse(CONFIG.as_bytes(), "config.json").unwrap();
    Backbone::from_files(BackboneFiles {
        id: "small",
        config: CONFIG.as_bytes(),
        weights: &[("model.safetensors", &serialise(&random_weights(&config), DType::F32))],
        tokenizer: &std::fs::read(fixture("tokenizer-unigram.json")).unwrap(),
        tokenizer_config: None,
        preprocessor: None,
    })
    .unwrap()
}

/// The same weights under open_clip's names, with the configuration it would have.
pub fn open_clip_names(config: &ModelConfig, weights: &TensorMap) -> (TensorMap, serde_json::Value) {
    use lucid_vlm::Family;
    let sigmoid = config.model_type == Family::Siglip;
    let (text, vision) = (&config.text_config, &config.vision_config);
    let mut out = TensorMap::new();
    let fused = |from: &str, part: &str| {
        let get = |name: &str| weights[&format!("{from}.self_attn.{name}.{part}")].clone();
        Tensor::cat(&[get("q_proj"), get("k_proj"), get("v_proj")], 0).unwrap()
    };
    let mut both = |old: &str, new: &str| {
        for part in ["weight", "bias"] {
            out.insert(format!("{new}.{part}"), weights[&format!("{old}.{part}")].clone());
        }
    };
    let prefix = if sigmoid { "text." } else { "" };
    both("text_model.final_layer_norm", &format!("{prefix}ln_final"));
    let blocks = |tower: &str, layers: usize, to: &str, timm: bool, both: &mut dyn FnMut(&str, &str)| {
        for i in 0..layers {
            let (from, to) = (format!("{tower}.encoder.layers.{i}"), format!("{to}.{i}"));
            let names = match timm {
                true => ["norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"],
                false => ["ln_1", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"],
            };
            let theirs = ["layer_norm1", "self_attn.out_proj", "layer_norm2", "mlp.fc1", "mlp.fc2"];
            for (old, new) in theirs.iter().zip(names) {
                both(&format!("{from}.{old}"), &format!("{to}.{new}"));
            }
        }
    };
    let text_blocks = format!("{prefix}transformer.resblocks");
    let vision_blocks = if sigmoid { "visual.trunk.blocks" } else { "visual.transformer.resblocks" };
    blocks("text_model", text.num_hidden_layers, &text_blocks, false, &mut both);
    blocks("vision_model", vision.num_hidden_layers, vision_blocks, sigmoid, &mut both);
    if sigmoid {
        both("vision_model.embeddings.patch_embedding", "visual.trunk.patch_embed.proj");
        both("vision_model.post_layernorm", "visual.trunk.norm");
        both("text_model.head", "text.text_projection");
        for (old, new) in
            [("attention.out_proj", "proj"), ("layernorm", "norm"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")]
        {
            both(&format!("vision_model.head.{old}"), &format!("visual.trunk.attn_pool.{new}"));
        }
    } else {
        both("vision_model.pre_layrnorm", "visual.ln_pre");
        both("vision_model.post_layernorm", "visual.ln_post");
    }
    for (tower, layers, to) in [
        ("text_model", text.num_hidden_layers, text_blocks.as_str()),
        ("vision_model", vision.num_hidden_layers, vision_blocks),
    ] {
        for i in 0..layers {
            for part in ["weight", "bias"] {
                let name = match to.contains("trunk") {
                    true => format!("{to}.{i}.attn.qkv.{part}"),
                    false => format!("{to}.{i}.attn.in_proj_{part}"),
                };
                out.insert(name, fused(&format!("{tower}.encoder.layers.{i}"), part));
            }
        }
    }
    let mut one = |old: &str, new: &str| out.insert(new.into(), weights[old].clone());
    one("text_model.embeddings.token_embedding.weight", &format!("{prefix}token_embedding.weight"));
    one("text_model.embeddings.position_embedding.weight", &format!("{prefix}positional_embedding"));
    one("logit_scale", "logit_scale");
    let position = "vision_model.embeddings.position_embedding.weight";
    if sigmoid {
        one("logit_bias", "logit_bias");
        one("vision_model.head.probe", "visual.trunk.attn_pool.latent");
        out.insert("visual.trunk.pos_embed".into(), weights[position].unsqueeze(0).unwrap());
        let d = vision.hidden_size;
        for part in ["weight", "bias"] {
            let fused = &weights[&format!("vision_model.head.attention.in_proj_{part}")];
            let cut = |from: usize, n: usize| fused.narrow(0, from * d, n * d).unwrap().contiguous().unwrap();
            out.insert(format!("visual.trunk.attn_pool.q.{part}"), cut(0, 1));
            out.insert(format!("visual.trunk.attn_pool.kv.{part}"), cut(1, 2));
        }
    } else {
        one(position, "visual.positional_embedding");
        one("vision_model.embeddings.class_embedding", "visual.class_embedding");
        one("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight");
        let turned = |name: &str| weights[name].t().unwrap().contiguous().unwrap();
        out.insert("visual.proj".into(), turned("visual_projection.weight"));
        out.insert("text_projection".into(), turned("text_projection.weight"));
    }
    let settings = serde_json::json!({
        "model_cfg": {
            "embed_dim": config.projection_dim, "quick_gelu": !sigmoid,
            "vision_cfg": { "image_size": vision.image_size, "heads": sigmoid.then_some(vision.num_attention_heads),
                "head_width": vision.hidden_size / vision.num_attention_heads },
            "text_cfg": { "heads": text.num_attention_heads },
        },
        "preprocess_cfg": { "interpolation": "bicubic", "resize_mode": if sigmoid { "squash" } else { "shortest" } },
    });
    (out, settings)
}

/// Records in memory, as a data set that says it lay in a private folder.
pub struct Given(pub Vec<PairRecord>);

impl Dataset for Given {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn pair(&self, index: usize) -> lucid_data::Result<PairRecord> {
        Ok(self.0[index].clone())
    }
    fn spec(&self) -> DatasetSpec {
        DatasetSpec::Folder(FolderSpec {
            images: "/somewhere/private/photos".into(),
            captions: None,
            uncaptioned: false,
        })
    }
}
