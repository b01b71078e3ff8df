//! What the families do besides the forward pass: vocabularies, processors, and the layouts their files come in. The fixtures are
//! transformers' own output (`tests/fixtures/families/make.py`).
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::DType;
use common::{fixture, open_clip_names, serialise};
use lucid_vlm::family::Canonical;
use lucid_vlm::preprocess::patch_grid;
use lucid_vlm::tokenizer::{KIND_CONTENT, KIND_EOS, clip_tokenizer};
use lucid_vlm::{Backbone, Fit, ModelConfig, Preprocessing, RgbImage, TensorMap, TextShape, TextTokenizer, VlmError};
use safetensors::SafeTensors;
use std::path::Path;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(fixture("families").join(name)).unwrap()
}

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn cases(kind: &str) -> Vec<Case> {
    let mut all: std::collections::HashMap<String, Vec<Case>> = serde_json::from_slice(&read("expected.json")).unwrap();
    all.remove(kind).unwrap()
}

const CLIP: TextShape = TextShape { length: 77, vocabulary: 1131, pad: 0, canonical: Canonical::File };
const GEMMA: TextShape = TextShape { length: 64, vocabulary: 1000, pad: 1, canonical: Canonical::Siglip };

fn clip() -> TextTokenizer {
    TextTokenizer::parse(&read("clip-tokenizer.json"), None, CLIP).unwrap()
}

#[test]
fn clips_ids_are_those_of_transformers_from_either_form_of_its_files() {
    let merged = clip_tokenizer(&read("clip-vocab.json"), &read("clip-merges.txt")).unwrap();
    let merged = TextTokenizer::parse(&merged, None, CLIP).unwrap();
    let cases = cases("clip");
    assert!(cases.len() > 25, "{}", cases.len());
    for case in cases {
        assert_eq!(clip().ids(&case.text).unwrap(), case.ids, "{:?}", case.text);
        assert_eq!(merged.ids(&case.text).unwrap(), case.ids, "{:?} from merges.txt", case.text);
    }
    assert_eq!(clip_tokenizer(b"{}", b"").unwrap_err().code(), "E_TOKENIZER");
}

#[test]
fn siglip_2_lowers_the_case_and_pads_with_its_own_token() {
    let config = read("gemma-tokenizer_config.json");
    let tokenizer = TextTokenizer::parse(&read("gemma-tokenizer.json"), Some(&config), GEMMA).unwrap();
    for case in cases("gemma") {
        assert_eq!(tokenizer.ids(&case.text).unwrap(), case.ids, "{:?}", case.text);
    }
    assert_eq!(tokenizer.ids("A DOG").unwrap(), tokenizer.ids("a dog").unwrap());
    let tokens = tokenizer.encode("A dog", true).unwrap();
    // The model's config says 1, the tokenizer's 0: padding with the end of sentence gives other states.
    assert_eq!((tokenizer.pad(), tokens.padded[63], *tokens.ids().last().unwrap()), (0, 0, 1));
}

#[test]
fn clip_keeps_no_start_of_text_and_cuts_before_the_end() {
    let tokenizer = clip();
    let [start, end] = [1129, 1130];
    let tokens = tokenizer.encode("A dog", true).unwrap();
    assert_eq!((tokens.padded.len(), tokens.padded[0], tokens.start), (77, start, 1));
    assert_eq!(tokens.ids().last(), Some(&end));
    assert_eq!(tokens.kinds.iter().filter(|&&k| k == KIND_EOS).count(), 1);
    assert!(tokens.kinds[..tokens.valid - 1].iter().all(|&k| k == KIND_CONTENT));
    assert_eq!(tokens.spans.len(), tokens.valid);
    let words: String = tokens.spans.iter().map(|s| &"A dog"[s[0] as usize..s[1] as usize]).collect();
    assert_eq!(words, "Adog");
    let long = tokenizer.encode(&"dog ".repeat(500), true).unwrap();
    assert_eq!((long.truncated, long.padded[0], long.padded[76], long.valid), (true, start, end, 76));
}

fn picture(file: &SafeTensors<'_>, name: &str) -> RgbImage {
    let view = file.tensor(name).unwrap();
    let [h, w, _] = view.shape() else { panic!("{name}") };
    RgbImage::from_raw(*w as u32, *h as u32, view.data().to_vec()).unwrap()
}

/// Mean and largest difference.
fn difference(a: &RgbImage, b: &RgbImage) -> (f64, u8) {
    assert_eq!(a.dimensions(), b.dimensions());
    let all: Vec<u8> = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).collect();
    (all.iter().map(|&d| f64::from(d)).sum::<f64>() / all.len() as f64, *all.iter().max().unwrap())
}

#[test]
fn pictures_are_cropped_and_gridded_as_the_processors_do() {
    let bytes = read("pictures.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let clip = ModelConfig::load(&fixture("clip-tiny/config.json")).unwrap();
    let naflex = ModelConfig::load(&fixture("siglip2-naflex-tiny/config.json")).unwrap();
    let parse = |json: &str, config| Preprocessing::parse(json.as_bytes(), "preprocessor_config.json", config).unwrap();
    let processors = [
        ("clip32", Preprocessing::of(&clip)),
        ("clip40", parse(r#"{ "size": { "shortest_edge": 40 }, "crop_size": { "height": 32, "width": 32 } }"#, &clip)),
        ("clip40", parse(r#"{ "size": 40, "crop_size": 32, "do_center_crop": true, "resample": 3 }"#, &clip)),
        ("naflex", parse(r#"{ "patch_size": 8, "max_num_patches": 16 }"#, &naflex)),
        ("naflex", Preprocessing::of(&naflex)),
    ];
    for (name, processor) in processors {
        for number in 0..6 {
            let source = picture(&file, &format!("{number}.source"));
            let found = processor.fitted(&source).unwrap();
            let (mean, most) = difference(&found, &picture(&file, &format!("{number}.{name}")));
            assert_eq!((mean, most), (0.0, 0), "{name}, picture {number}");
        }
    }
    let grids: Vec<[usize; 6]> = serde_json::from_slice(&read("grids.json")).unwrap();
    for [h, w, patch, most, rows, columns] in grids {
        assert_eq!(patch_grid(h, w, patch, most), [rows, columns], "{h} × {w}, patches of {patch}, at most {most}");
    }
}

#[test]
fn the_view_is_the_part_of_the_picture_that_the_crop_shows() {
    let clip = ModelConfig::load(&fixture("clip-tiny/config.json")).unwrap();
    let processor = Preprocessing::of(&clip);
    assert_eq!(processor.fit, Fit::Crop { shortest: 32 });
    assert_eq!(processor.view(64, 64), [0.0, 0.0, 64.0, 64.0]);
    assert_eq!(processor.view(128, 64), [32.0, 0.0, 64.0, 64.0]);
    // A white square painted exactly over the view fills the crop, and a black frame around it stays outside.
    let [x, y, w, h] = processor.view(50, 141);
    let inside =
        |v: u32, start: f64, size: f64| f64::from(v) >= start - 0.01 && f64::from(v + 1) <= start + size + 0.01;
    let picture = RgbImage::from_fn(50, 141, |px, py| {
        image::Rgb([if inside(px, x, w) && inside(py, y, h) { 255 } else { 0 }; 3])
    });
    let fitted = processor.fitted(&picture).unwrap();
    assert!(fitted.enumerate_pixels().filter(|(_, y, _)| (2..30).contains(y)).all(|(_, _, p)| p[0] == 255));
    let siglip = Preprocessing::siglip(224);
    assert_eq!(siglip.view(640, 480), [0.0, 0.0, 640.0, 480.0]);
}

/// A folder of a golden checkpoint with a tokenizer that fits its 120 ids or not: it is only loaded.
fn folder(family: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(family).join(name), folder.path().join(name)).unwrap();
    }
    let tokenizer = if family == "clip-tiny" { "families/clip-tokenizer.json" } else { "tokenizer-unigram.json" };
    std::fs::copy(fixture(tokenizer), folder.path().join("tokenizer.json")).unwrap();
    folder
}

fn weights(folder: &Path) -> TensorMap {
    candle_core::safetensors::load(folder.join("model.safetensors"), &candle_core::Device::Cpu).unwrap()
}

fn error(folder: &Path) -> VlmError {
    Backbone::load(folder).map(|_| ()).unwrap_err()
}

#[test]
fn every_family_encodes_pictures_of_any_shape_and_has_an_untrained_twin() {
    for (family, grids) in
        [("siglip-tiny", [[4, 4], [4, 4]]), ("clip-tiny", [[4, 4], [4, 4]]), ("siglip2-naflex-tiny", [[4, 4], [3, 5]])]
    {
        let folder = folder(family);
        let backbone = Backbone::load(folder.path()).unwrap();
        let wide = RgbImage::from_fn(75, 40, |x, y| image::Rgb([x as u8 * 3, y as u8 * 5, 90]));
        let images = [RgbImage::from_pixel(30, 30, image::Rgb([200, 10, 30])), wide];
        for model in [&backbone, &backbone.untrained(3).unwrap()] {
            for hook in ["vision.post_ln", "vision.block:0", "vision.block:2"] {
                let found = model.encode_images(&images, hook).unwrap();
                assert_eq!(found.grids, grids, "{family}");
                let patches: u32 = grids.iter().map(|[r, c]| r * c).sum();
                assert_eq!(found.states.len(), patches as usize * 48);
                assert_eq!(found.pooled.len(), 2 * backbone.config().vision_projection());
                assert!(found.states.iter().chain(&found.pooled).all(|v| v.is_finite()));
            }
        }
        assert_eq!(backbone.provenance()["architecture"], backbone.config().model_type.name());
    }
}

#[test]
fn weights_in_several_files_are_the_same_weights() {
    let folder = folder("siglip-tiny");
    let whole = Backbone::load(folder.path()).unwrap();
    let all = weights(folder.path());
    let mut names: Vec<&String> = all.keys().collect();
    names.sort();
    let mut map = serde_json::Map::new();
    for (i, part) in names.chunks(names.len().div_ceil(3)).enumerate() {
        let file = format!("model-{:05}-of-00003.safetensors", i + 1);
        let tensors: TensorMap = part.iter().map(|&n| (n.clone(), all[n].clone())).collect();
        std::fs::write(folder.path().join(&file), serialise(&tensors, DType::F32)).unwrap();
        map.extend(part.iter().map(|&n| (n.clone(), file.clone().into())));
    }
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    let write = |map: &serde_json::Map<String, serde_json::Value>| {
        std::fs::write(&index, serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    };
    write(&map);
    let parts = Backbone::load(folder.path()).unwrap();
    let images = [RgbImage::from_pixel(9, 9, image::Rgb([1, 200, 30]))];
    let states = |b: &Backbone| b.encode_images(&images, "vision.post_ln").unwrap();
    assert_eq!(states(&parts), states(&whole));
    assert_ne!(parts.provenance()["weightsBlake3"], whole.provenance()["weightsBlake3"]);

    let mut wrong = map.clone();
    wrong.insert(names[0].clone(), "model-00003-of-00003.safetensors".into());
    write(&wrong);
    assert_eq!(
        (error(folder.path()).code(), error(folder.path()).details()["tensor"].as_str()),
        ("E_BACKBONE_WEIGHTS", Some(names[0].as_str()))
    );
    for name in ["../model.safetensors", "/etc/passwd", ""] {
        wrong.insert(names[0].clone(), name.into());
        write(&wrong);
        assert!(error(folder.path()).to_string().contains("leads out of the folder"), "{name}");
    }
    std::fs::write(&index, "{}").unwrap();
    assert_eq!(error(folder.path()).code(), "E_BACKBONE");
    write(&map);
    std::fs::remove_file(folder.path().join("model-00002-of-00003.safetensors")).unwrap();
    assert!(error(folder.path()).to_string().contains("model-00002"));
}

#[test]
fn pickles_are_refused_with_the_reason_and_a_way_out() {
    let folder = folder("siglip-tiny");
    std::fs::rename(folder.path().join("model.safetensors"), folder.path().join("pytorch_model.bin")).unwrap();
    let error = error(folder.path());
    assert_eq!(error.code(), "E_BACKBONE");
    let text = error.to_string();
    assert!(
        text.contains("pytorch_model.bin") && text.contains("pickle") && text.contains("save_pretrained"),
        "{text}"
    );
}

#[test]
fn an_open_clip_folder_loads_with_its_own_preprocessing() {
    let folder = folder("clip-tiny");
    let config = ModelConfig::load(&folder.path().join("config.json")).unwrap();
    let (tensors, mut settings) = open_clip_names(&config, &weights(folder.path()));
    settings["preprocess_cfg"]["mean"] = serde_json::json!([0.1, 0.2, 0.3]);
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    // timm's own config.json describes another thing and has no model_type.
    std::fs::write(folder.path().join("config.json"), r#"{ "architecture": "vit_tiny" }"#).unwrap();
    std::fs::write(folder.path().join("open_clip_config.json"), settings.to_string()).unwrap();
    let path = folder.path().join("open_clip_model.safetensors");
    std::fs::write(&path, serialise(&tensors, DType::F32)).unwrap();
    let backbone = Backbone::load(folder.path()).unwrap();
    assert_eq!(backbone.preprocessing().mean, [0.1, 0.2, 0.3]);
    assert_eq!(backbone.preprocessing().fit, Fit::Crop { shortest: 32 });
    let mut less = tensors.clone();
    less.remove("visual.transformer.resblocks.1.mlp.c_fc.bias");
    std::fs::write(&path, serialise(&less, DType::F32)).unwrap();
    let found = error(folder.path());
    assert_eq!(
        (found.code(), found.details()["tensor"].as_str()),
        ("E_BACKBONE_WEIGHTS", Some("visual.transformer.resblocks.1.mlp.c_fc.bias"))
    );
    settings["preprocess_cfg"]["resize_mode"] = "longest".into();
    std::fs::write(&path, serialise(&tensors, DType::F32)).unwrap();
    std::fs::write(folder.path().join("open_clip_config.json"), settings.to_string()).unwrap();
    assert_eq!(error(folder.path()).code(), "E_BACKBONE_CONFIG");
}

#[test]
fn configs_of_every_family_leave_defaults_out() {
    let parse = |json: &str| ModelConfig::parse(json.as_bytes(), "config.json");
    let clip = parse(r#"{ "model_type": "clip" }"#).unwrap();
    assert_eq!(
        (clip.text_config.hidden_size, clip.text_config.vocab_size, clip.vision_config.patches()),
        (512, 49_408, 49)
    );
    assert_eq!((clip.vision_projection(), clip.text_projection()), (512, 512));
    // OpenAI's first files keep the values that count in a second place.
    let old = parse(
        r#"{ "model_type": "clip", "projection_dim": 768, "text_config": { "hidden_size": 512 },
        "text_config_dict": { "hidden_size": 768, "num_attention_heads": 12, "bos_token_id": null },
        "vision_config_dict": null }"#,
    )
    .unwrap();
    assert_eq!((old.text_config.hidden_size, old.text_projection()), (768, 768));
    let naflex = parse(r#"{ "model_type": "siglip2", "text_config": { "vocab_size": 256000 } }"#).unwrap();
    assert_eq!((naflex.vision_config.patches(), naflex.vision_config.side()), (256, 16));
    // A value of another family's means nothing.
    let siglip = parse(r#"{ "vision_config": { "num_patches": 5 }, "projection_dim": 3 }"#).unwrap();
    assert_eq!((siglip.vision_config.num_patches, siglip.projection_dim), (None, None));
    for (json, field) in [
        (r#"{ "model_type": "blip" }"#, "model_type"),
        (r#"{ "model_type": "siglip2", "vision_config": { "num_patches": 250 } }"#, "vision_config.num_patches"),
        (r#"{ "model_type": "clip", "projection_dim": 0 }"#, "projection_dim"),
    ] {
        let error = parse(json).unwrap_err();
        assert_eq!((error.code(), error.details()["field"].as_str()), ("E_BACKBONE_CONFIG", Some(field)));
    }
    assert_eq!(parse(r#"{ "text_config": 3 }"#).unwrap_err().code(), "E_BACKBONE");
}

#[test]
fn preprocessors_that_would_not_give_the_models_input_are_refused() {
    let clip = ModelConfig::load(&fixture("clip-tiny/config.json")).unwrap();
    let naflex = ModelConfig::load(&fixture("siglip2-naflex-tiny/config.json")).unwrap();
    for (json, config, field) in [
        (r#"{ "crop_size": 224 }"#, &clip, "crop_size"),
        (r#"{ "size": { "shortest_edge": 16 } }"#, &clip, "size"),
        (r#"{ "size": { "shortest_edge": 32 }, "do_center_crop": false }"#, &clip, "size"),
        (r#"{ "patch_size": 16 }"#, &naflex, "patch_size"),
        (r#"{ "max_num_patches": 0 }"#, &naflex, "max_num_patches"),
    ] {
        let error = Preprocessing::parse(json.as_bytes(), "preprocessor_config.json", config).unwrap_err();
        assert_eq!((error.code(), error.details()["field"].as_str()), ("E_BACKBONE_CONFIG", Some(field)), "{json}");
    }
}

#[test]
fn a_checkup_passes_for_every_family_and_sees_a_wrong_computation() {
    for family in ["siglip-tiny", "clip-tiny", "siglip2-naflex-tiny"] {
        let folder = folder(family);
        // The tiny models know 120 ids; the checkup's words need a vocabulary of their own.
        let backbone = match family {
            "siglip-tiny" => Backbone::mini().unwrap(),
            "clip-tiny" => wider_vocabulary(folder.path(), "families/clip-tokenizer.json", 1131),
            _ => wider_vocabulary(folder.path(), "tokenizer-unigram.json", 400),
        };
        let found = backbone.checkup(None).unwrap();
        assert!(found.passed(), "{family}: {:#?}", found.checks);
        assert!(found.checks.len() >= 5 && found.parameters > 50_000);
        assert_eq!(found.logits.len(), 2);
        let photo = RgbImage::new(640, 480);
        let known = backbone.checkup(Some(&photo)).unwrap();
        assert!(!known.passed() && known.checks.last().unwrap().expected.contains("siglip-base-patch16-224"));
    }
    // The mini backbone tells the red circle from the blue square.
    let logits = Backbone::mini().unwrap().checkup(None).unwrap().logits;
    assert!(logits[0].1 > logits[1].1, "{logits:?}");
}

/// The checkpoint in `folder` with more rows in its token embedding and another tokenizer.
fn wider_vocabulary(folder: &Path, tokenizer: &str, rows: usize) -> Backbone {
    let name = "text_model.embeddings.token_embedding.weight";
    let mut all = weights(folder);
    let table = all[name].repeat((rows.div_ceil(120), 1)).unwrap().narrow(0, 0, rows).unwrap().contiguous().unwrap();
    all.insert(name.into(), table);
    std::fs::write(folder.join("model.safetensors"), serialise(&all, DType::F32)).unwrap();
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    config["text_config"]["vocab_size"] = rows.into();
    config["text_config"]["eos_token_id"] = 2.into();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::copy(fixture(tokenizer), folder.join("tokenizer.json")).unwrap();
    Backbone::load(folder).unwrap()
}
