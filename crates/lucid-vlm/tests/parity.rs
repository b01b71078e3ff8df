//! The forward pass against `transformers` on random weights, for each family: every block, the final states, pooled outputs,
//! logits; the same weights in halves, in several files, and under open_clip's names.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{fixture, open_clip_names, serialise};
use lucid_vlm::{Backbone, DualEncoder, ModelConfig, TensorMap};

const FAMILIES: [&str; 3] = ["siglip-tiny", "siglip2-naflex-tiny", "clip-tiny"];

struct Golden {
    config: ModelConfig,
    weights: TensorMap,
    states: TensorMap,
}

fn golden(family: &str) -> Golden {
    let load = |name: &str| candle_core::safetensors::load(fixture(family).join(name), &Device::Cpu).unwrap();
    Golden {
        config: ModelConfig::load(&fixture(family).join("config.json")).unwrap(),
        weights: load("model.safetensors"),
        states: load("states.safetensors"),
    }
}

/// Largest difference over the largest value of the expectation.
fn relative(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let a = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let b = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let most = b.iter().fold(0f32, |m, x| m.max(x.abs()));
    a.iter().zip(&b).fold(0f32, |m, (x, y)| m.max((x - y).abs())) / most
}

/// Found and expected tensors by name, for one input at a time where the inputs differ in size.
fn compare(model: &DualEncoder, states: &TensorMap) -> Vec<(String, f32)> {
    let mut errors: Vec<(String, f32)> = Vec::new();
    let mut note = |name: &str, found: &Tensor, expected: &Tensor| {
        errors.push((name.into(), relative(found, expected)));
    };
    let ids = states["input_ids"].to_dtype(DType::U32).unwrap();
    let text = model.text(&ids, true).unwrap();
    // Positions after a masked end are not kept by anybody, and transformers computes them otherwise.
    let kept: Vec<usize> = match states.get("attention_mask") {
        Some(mask) => mask.to_dtype(DType::U32).unwrap().sum(1).unwrap().to_vec1::<u32>().unwrap(),
        None => vec![ids.dim(1).unwrap() as u32; ids.dim(0).unwrap()],
    }
    .into_iter()
    .map(|n| n as usize)
    .collect();
    let rows = |x: &Tensor, i: usize| x.get(i).unwrap().narrow(0, 0, kept[i]).unwrap();
    for i in 0..kept.len() {
        for (n, block) in text.blocks.iter().enumerate() {
            note(&format!("text.block{n}[{i}]"), &rows(block, i), &rows(&states[&format!("text.block{n}")], i));
        }
        note(&format!("text.final_ln[{i}]"), &rows(&text.final_ln, i), &rows(&states["text.final_ln"], i));
    }

    let pixels = &states["pixel_values"];
    let images = pixels.dim(0).unwrap();
    let mut pooled = Vec::new();
    for i in 0..images {
        let one = pixels.narrow(0, i, 1).unwrap();
        let (out, patches) = match states.get("spatial_shapes") {
            Some(shapes) => {
                let grid = shapes.to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap()[i].clone();
                let (rows, columns) = (grid[0] as usize, grid[1] as usize);
                // The reference's patches are ordered (y, x, channel), ours (channel, y, x).
                let patches = one.narrow(1, 0, rows * columns).unwrap();
                let p = model.config().vision_config.patch_size;
                let patches = patches
                    .reshape((rows * columns, p, p, 3))
                    .and_then(|x| x.permute((0, 3, 1, 2)))
                    .and_then(|x| x.contiguous())
                    .and_then(|x| x.reshape((1, rows * columns, 3 * p * p)))
                    .unwrap();
                (model.vision_grid(&patches, [rows, columns], true).unwrap(), rows * columns)
            }
            None => (model.vision(&one, true).unwrap(), model.config().vision_config.patches()),
        };
        let blocks =
            out.blocks.iter().enumerate().map(|(n, x)| (format!("vision.block{n}"), x, out.class_blocks.get(n)));
        for (name, block, class) in blocks {
            let expected = states[&name].narrow(0, i, 1).unwrap();
            let first = usize::from(class.is_some());
            note(&format!("{name}[{i}]"), block, &expected.narrow(1, first, patches).unwrap());
            if let Some(class) = class {
                note(&format!("{name}[{i}], class"), class, &expected.narrow(1, 0, 1).unwrap().squeeze(1).unwrap());
            }
        }
        if let Some(expected) = states.get("vision.post_ln") {
            note(
                &format!("vision.post_ln[{i}]"),
                &out.post_ln,
                &expected.narrow(0, i, 1).unwrap().narrow(1, 0, patches).unwrap(),
            );
        }
        pooled.push(out.pooled.unwrap());
    }
    let image = Tensor::cat(&pooled, 0).unwrap();
    let logits = model.logits(&image, &text.pooled).unwrap();
    note("logits_per_image", &logits, &states["logits_per_image"]);
    let unit = |x: &Tensor| x.broadcast_div(&x.sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap()).unwrap();
    for (name, found) in [("vision.pooled", &image), ("text.pooled", &text.pooled)] {
        if let Some(expected) = states.get(name) {
            note(name, found, expected);
        }
    }
    // CLIP's embeddings are normalised in the fixture.
    for (name, found) in [("image_embeds", &image), ("text_embeds", &text.pooled)] {
        if let Some(expected) = states.get(name) {
            note(name, &unit(found), &unit(expected));
        }
    }
    errors
}

fn check(label: &str, model: &DualEncoder, states: &TensorMap, most: f32) -> f32 {
    let errors = compare(model, states);
    assert!(errors.len() > 20, "{label}: only {} comparisons", errors.len());
    for (name, error) in &errors {
        assert!(*error < most, "{label}, {name}: relative error {error}");
    }
    errors.iter().fold(0f32, |m, (_, e)| m.max(*e))
}

#[test]
fn every_state_agrees_with_transformers() {
    for family in FAMILIES {
        let Golden { config, weights, states } = golden(family);
        let model = DualEncoder::new(&config, &weights).unwrap();
        let worst = check(family, &model, &states, 1e-4);
        println!("{family}: largest relative error {worst:.1e}");
    }
}

#[test]
fn halves_stay_within_their_rounding() {
    for family in FAMILIES {
        let Golden { config, weights, states } = golden(family);
        for (dtype, most) in [(DType::BF16, 2e-2), (DType::F16, 4e-3)] {
            let bytes = serialise(&weights, dtype);
            let weights = lucid_vlm::weights::read_weights(&bytes, "model.safetensors").unwrap();
            let worst = check(family, &DualEncoder::new(&config, &weights).unwrap(), &states, most);
            println!("{family}, {dtype:?}: largest relative error {worst:.1e}");
        }
    }
}

#[test]
fn the_same_weights_under_open_clips_names_give_the_same_states() {
    for family in ["clip-tiny", "siglip-tiny"] {
        let Golden { config, weights, states } = golden(family);
        let (tensors, settings) = open_clip_names(&config, &weights);
        let bytes = serialise(&tensors, DType::F32);
        let tokenizer = std::fs::read(fixture("tokenizer-unigram.json")).unwrap();
        // The tokenizer only has to exist; its vocabulary is larger than the tiny models', which no test text reaches.
        let backbone = Backbone::from_files(lucid_vlm::BackboneFiles {
            id: family,
            config: settings.to_string().as_bytes(),
            weights: &[("open_clip_model.safetensors", &bytes)],
            tokenizer: &tokenizer,
            tokenizer_config: None,
            preprocessor: None,
        })
        .unwrap();
        assert_eq!(backbone.config().vision_config.image_size, 32);
        let worst = check(family, backbone.model(), &states, 1e-4);
        println!("{family} under open_clip's names: largest relative error {worst:.1e}");
    }
}

#[test]
fn a_subset_of_all_patches_in_another_order_permutes_the_states() {
    let Golden { config, weights, states } = golden("siglip-tiny");
    let device = Device::Cpu;
    let model = DualEncoder::new(&config, &weights).unwrap();
    let patches = lucid_vlm::model::patchify(&states["pixel_values"], 8).unwrap();
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

#[test]
fn a_token_of_clip_sees_only_what_stands_before_it() {
    let Golden { config, weights, states } = golden("clip-tiny");
    let model = DualEncoder::new(&config, &weights).unwrap();
    let ids = states["input_ids"].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap()[0].clone();
    let mut other = ids.clone();
    other[5] = (other[5] + 1) % 100;
    let run = |ids: Vec<u32>| {
        let ids = Tensor::from_vec(ids, (1, 16), &Device::Cpu).unwrap();
        model.text(&ids, false).unwrap().final_ln.get(0).unwrap().to_vec2::<f32>().unwrap()
    };
    let (a, b) = (run(ids), run(other));
    assert_eq!(a[..5], b[..5]);
    assert!((5..16).all(|i| a[i] != b[i]));
}
