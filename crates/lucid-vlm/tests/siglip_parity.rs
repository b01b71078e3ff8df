//! The forward pass against `transformers` on random weights: every block, the final states, pooled outputs, logits.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use lucid_vlm::{Siglip, SiglipConfig};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/siglip-tiny")
}

/// Largest difference over the largest value of the expectation.
fn relative(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let a = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let b = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let most = b.iter().fold(0f32, |m, x| m.max(x.abs()));
    a.iter().zip(&b).fold(0f32, |m, (x, y)| m.max((x - y).abs())) / most
}

#[test]
fn every_state_agrees_with_transformers() {
    let device = Device::Cpu;
    let config = SiglipConfig::load(&fixtures().join("config.json")).unwrap();
    let weights = candle_core::safetensors::load(fixtures().join("model.safetensors"), &device).unwrap();
    let states = candle_core::safetensors::load(fixtures().join("states.safetensors"), &device).unwrap();
    let model = Siglip::new(&config, &weights).unwrap();
    let vision = model.vision(&states["pixel_values"], true).unwrap();
    let ids = states["input_ids"].to_dtype(candle_core::DType::U32).unwrap();
    let text = model.text(&ids, true).unwrap();
    let pooled = vision.pooled.as_ref().unwrap();
    let mut pairs = vec![
        ("vision.post_ln".to_string(), vision.post_ln.clone()),
        ("vision.pooled".into(), pooled.clone()),
        ("text.final_ln".into(), text.final_ln.clone()),
        ("text.pooled".into(), text.pooled.clone()),
        ("logits_per_image".into(), model.logits(pooled, &text.pooled).unwrap()),
    ];
    assert_eq!((vision.blocks.len(), text.blocks.len()), (3, 2));
    pairs.extend(vision.blocks.iter().enumerate().map(|(i, x)| (format!("vision.block{i}"), x.clone())));
    pairs.extend(text.blocks.iter().enumerate().map(|(i, x)| (format!("text.block{i}"), x.clone())));
    for (name, found) in pairs {
        let error = relative(&found, &states[&name]);
        assert!(error < 1e-4, "{name}: relative error {error}");
    }
}

#[test]
fn a_subset_of_all_patches_in_another_order_permutes_the_states() {
    let device = Device::Cpu;
    let config = SiglipConfig::load(&fixtures().join("config.json")).unwrap();
    let weights = candle_core::safetensors::load(fixtures().join("model.safetensors"), &device).unwrap();
    let states = candle_core::safetensors::load(fixtures().join("states.safetensors"), &device).unwrap();
    let model = Siglip::new(&config, &weights).unwrap();
    let patches = lucid_vlm::siglip::patchify(&states["pixel_values"], 8).unwrap();
    let order: Vec<u32> = (0..16).map(|i| (i * 5 + 3) % 16).collect();
    let index = Tensor::new(order.as_slice(), &device).unwrap();
    let shuffled = patches.index_select(&index, 1).unwrap();
    let found = model.vision_patches(&shuffled, Some(&index), false).unwrap();
    let expected = states["vision.post_ln"].index_select(&index, 1).unwrap();
    assert!(relative(&found.post_ln, &expected) < 1e-4);
    assert!(relative(found.pooled.as_ref().unwrap(), &states["vision.pooled"]) < 1e-4);
    // The same positions given per image.
    let per_image = index.unsqueeze(0).unwrap().broadcast_as((3, 16)).unwrap().contiguous().unwrap();
    let again = model.vision_patches(&shuffled, Some(&per_image), false).unwrap();
    assert!(relative(&again.post_ln, &expected) < 1e-4);
    // Position matters: without the index the states differ.
    let wrong = model.vision_patches(&shuffled, None, false).unwrap();
    assert!(relative(&wrong.post_ln, &expected) > 1e-2);
}
