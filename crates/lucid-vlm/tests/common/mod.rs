//! Fixtures and small backbones for the tests.
#![allow(dead_code, clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use lucid_vlm::weights::expected_shapes;
use lucid_vlm::{Backbone, BackboneFiles, SiglipConfig, TensorMap};
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
pub fn random_weights(config: &SiglipConfig) -> TensorMap {
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
    let config = SiglipConfig::parse(CONFIG.as_bytes(), "config.json").unwrap();
    Backbone::from_files(BackboneFiles {
        id: "small",
        config: CONFIG.as_bytes(),
        weights: &serialise(&random_weights(&config), DType::F32),
        tokenizer: &std::fs::read(fixture("tokenizer-unigram.json")).unwrap(),
        preprocessor: None,
    })
    .unwrap()
}
