//! Loading a folder, hooks, states and logits, other precisions, damaged folders, thread counts.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device};
use image::RgbImage;
use lucid_vlm::{Backbone, ModelConfig, VlmError};
use std::path::Path;

fn pictures(n: u32) -> Vec<RgbImage> {
    (0..n)
        .map(|i| {
            RgbImage::from_fn(40 + i, 33, |x, y| {
                image::Rgb([(x * 5 + i) as u8, (y * 7) as u8, (x * y * (i + 1)) as u8])
            })
        })
        .collect()
}

const TEXTS: [&str; 3] = ["a kitchen with a white oven", "two buses", "a woman on a motorcycle near the door"];

fn write_folder(folder: &Path, weights: &[u8]) {
    std::fs::write(folder.join("config.json"), common::CONFIG).unwrap();
    std::fs::write(folder.join("model.safetensors"), weights).unwrap();
    std::fs::copy(common::fixture("tokenizer-unigram.json"), folder.join("tokenizer.json")).unwrap();
}

fn load_error(folder: &Path) -> VlmError {
    match Backbone::load(folder) {
        Ok(_) => panic!("a damaged folder was loaded"),
        Err(error) => error,
    }
}

#[test]
fn every_hook_gives_the_states_of_the_forward_pass() {
    let backbone = common::small_backbone();
    assert_eq!(
        backbone.hooks(),
        ["vision.post_ln", "vision.block:0", "vision.block:1", "text.final_ln", "text.block:0", "text.block:1"]
    );
    assert_eq!(
        (backbone.vision_dim(), backbone.text_dim(), backbone.grid(), backbone.image_size()),
        (48, 32, [4, 4], 32)
    );
    let images = pictures(2);
    let p = backbone.preprocessing();
    let pixels: Vec<_> = images.iter().map(|i| p.pixels(&p.fitted(i).unwrap()).unwrap()).collect();
    let whole = backbone.model().vision(&candle_core::Tensor::stack(&pixels, 0).unwrap(), true).unwrap();
    for (hook, expected) in
        [("vision.post_ln", &whole.post_ln), ("vision.block:0", &whole.blocks[0]), ("vision.block:1", &whole.blocks[1])]
    {
        let found = backbone.encode_images(&images, hook).unwrap();
        assert_eq!((found.images, found.grids.len(), found.dim, found.states.len()), (2, 2, 48, 2 * 16 * 48));
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (a, b) in found.states.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-5, "{hook}");
        }
        assert_eq!(found.pooled.len(), 2 * 48);
    }
    let text = backbone.encode_texts(&TEXTS, "text.block:0").unwrap();
    let total: u32 = text.lengths.iter().sum();
    assert_eq!(text.states.len(), total as usize * 32);
    assert_eq!((text.ids.len(), text.kinds.len(), text.spans.len()), (total as usize, total as usize, total as usize));
    assert_eq!(text.pooled.len(), 3 * 48);
    let last = text.lengths[0] as usize - 1;
    assert_eq!((text.ids[last], text.kinds[last]), (1, 1));
    assert!(text.kinds[..last].iter().all(|&k| k == 0));

    // Logits are exp(scale) · cos + bias of the pooled outputs, computed here by hand.
    let image = backbone.encode_images(&images, "vision.post_ln").unwrap();
    let logits = backbone.logits(&image, &text).unwrap();
    let weights = common::random_weights(backbone.config());
    let scalar = |name: &str| weights[name].to_vec1::<f32>().unwrap()[0];
    for (i, u) in image.pooled.chunks_exact(48).enumerate() {
        for (j, v) in text.pooled.chunks_exact(48).enumerate() {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            let cosine = dot(u, v) / (dot(u, u) * dot(v, v)).sqrt();
            let expected = scalar("logit_scale").exp() * cosine + scalar("logit_bias");
            assert!((logits[i * 3 + j] - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn states_have_the_same_bits_whatever_the_threads_and_the_company() {
    let backbone = common::small_backbone();
    let images = pictures(7);
    let one = backbone.clone().with_threads(1).encode_images(&images, "vision.post_ln").unwrap();
    let three = backbone.clone().with_threads(3).encode_images(&images, "vision.post_ln").unwrap();
    assert!(one == three);
    let alone = backbone.encode_images(&images[4..5], "vision.post_ln").unwrap();
    let n = 16 * 48;
    assert!(one.states[4 * n..5 * n] == alone.states[..]);
    let a = backbone.clone().with_threads(1).encode_texts(&TEXTS, "text.final_ln").unwrap();
    let b = backbone.clone().with_threads(3).encode_texts(&TEXTS, "text.final_ln").unwrap();
    assert!(a == b);
}

#[test]
fn an_unknown_hook_names_the_nearest_ones_of_its_tower() {
    let backbone = common::small_backbone();
    let error = backbone.encode_images(&pictures(1), "vision.postln").unwrap_err();
    assert_eq!(error.code(), "E_HOOK");
    assert_eq!(error.details()["expected"][0], "vision.post_ln");
    let error = backbone.encode_images(&pictures(1), "vision.block:7").unwrap_err();
    assert!(error.details()["expected"][0].as_str().unwrap().starts_with("vision.block:"));
    let error = backbone.encode_texts(&TEXTS, "vision.post_ln").unwrap_err();
    assert!(error.details()["expected"].as_array().unwrap().iter().all(|n| n.as_str().unwrap().starts_with("text.")));
    assert_eq!(backbone.encode_texts(&["a", " ?"], "text.final_ln").unwrap_err().code(), "E_EMPTY_TEXT");
}

#[test]
fn f16_and_bf16_weights_load_as_their_rounded_values() {
    let config = ModelConfig::parse(common::CONFIG.as_bytes(), "config.json").unwrap();
    let weights = common::random_weights(&config);
    let reference = common::small_backbone().encode_images(&pictures(1), "vision.post_ln").unwrap();
    for (dtype, tolerance) in [(DType::F16, 0.01), (DType::BF16, 0.08)] {
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), &common::serialise(&weights, dtype));
        let states = Backbone::load(folder.path()).unwrap().encode_images(&pictures(1), "vision.post_ln").unwrap();
        let most = reference.states.iter().fold(0f32, |m, x| m.max(x.abs()));
        let worst = states.states.iter().zip(&reference.states).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst > 0.0 && worst / most < tolerance, "{dtype:?}: {worst} of {most}");
    }
}

#[test]
fn damaged_folders_give_typed_errors_that_name_the_tensor_or_file() {
    let config = ModelConfig::parse(common::CONFIG.as_bytes(), "config.json").unwrap();
    let good = common::random_weights(&config);
    let name = "vision_model.encoder.layers.1.mlp.fc1.weight";
    let folder = tempfile::tempdir().unwrap();
    let with = |change: &dyn Fn(&mut lucid_vlm::TensorMap)| {
        let mut weights = good.clone();
        change(&mut weights);
        write_folder(folder.path(), &common::serialise(&weights, DType::F32));
        let error = load_error(folder.path());
        assert_eq!(error.code(), "E_BACKBONE_WEIGHTS");
        assert!(error.hint().is_some());
        error.details()["tensor"].as_str().unwrap().to_string()
    };
    assert_eq!(with(&|w| drop(w.remove(name))), name);
    assert_eq!(with(&|w| drop(w.insert(name.into(), w[name].t().unwrap().contiguous().unwrap()))), name);
    assert_eq!(with(&|w| drop(w.insert("vision_model.extra".into(), w["logit_bias"].clone()))), "vision_model.extra");
    for bad in [f32::NAN, f32::INFINITY] {
        let spoil = |w: &mut lucid_vlm::TensorMap| {
            let mut values = w[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values[17] = bad;
            let tensor = candle_core::Tensor::from_vec(values, w[name].shape(), &Device::Cpu).unwrap();
            w.insert(name.into(), tensor);
        };
        assert_eq!(with(&spoil), name);
    }

    let bytes = common::serialise(&good, DType::F32);
    write_folder(folder.path(), &bytes);
    assert_eq!(Backbone::load(folder.path()).unwrap().id(), folder.path().file_name().unwrap().to_str().unwrap());
    write_folder(folder.path(), &bytes[..bytes.len() - 100]);
    let error = load_error(folder.path());
    assert_eq!(error.code(), "E_BACKBONE");
    assert!(error.details()["file"].as_str().unwrap().ends_with("model.safetensors"));
    for absent in ["model.safetensors", "tokenizer.json", "config.json"] {
        write_folder(folder.path(), &bytes);
        std::fs::remove_file(folder.path().join(absent)).unwrap();
        let error = load_error(folder.path());
        assert_eq!(error.code(), "E_BACKBONE");
        assert!(error.details()["file"].as_str().unwrap().ends_with(absent));
    }
}

#[test]
fn configs_leave_defaults_out_and_are_refused_by_field() {
    let base =
        ModelConfig::parse(br#"{ "model_type": "siglip", "text_config": {}, "vision_config": {} }"#, "config.json")
            .unwrap();
    let v = &base.vision_config;
    assert_eq!((v.hidden_size, v.num_hidden_layers, v.intermediate_size, v.patches()), (768, 12, 3072, 196));
    let t = &base.text_config;
    assert_eq!((t.vocab_size, t.max_position_embeddings, t.pad_token_id, t.layer_norm_eps), (32_000, 64, 1, 1e-6));
    for (json, field) in [
        (r#"{ "model_type": "blip" }"#, "model_type"),
        (r#"{ "vision_config": { "hidden_size": 0 } }"#, "vision_config.hidden_size"),
        (r#"{ "vision_config": { "num_attention_heads": 7 } }"#, "vision_config.num_attention_heads"),
        (r#"{ "vision_config": { "num_channels": 1 } }"#, "vision_config.num_channels"),
        (r#"{ "text_config": { "vocab_size": 99999999999 } }"#, "text_config.vocab_size"),
        (r#"{ "text_config": { "pad_token_id": 40000 } }"#, "text_config.pad_token_id"),
    ] {
        let error = ModelConfig::parse(json.as_bytes(), "config.json").unwrap_err();
        assert_eq!((error.code(), error.details()["field"].as_str()), ("E_BACKBONE_CONFIG", Some(field)));
    }
    let error = ModelConfig::parse(br#"{ "vision_config": { "hidden_act": "relu" } }"#, "config.json").unwrap_err();
    assert_eq!(error.code(), "E_BACKBONE");
}
