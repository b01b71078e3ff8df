//! Extraction into a store: contents, order, bad pairs, cancellation, and the embedded backbone on scenes and photos.
#![allow(clippy::unwrap_used)]

mod common;

use common::Given;
use image::RgbImage;
use lucid_data::progress::{Observer, Silent};
use lucid_data::store::{ActivationSource, AnnotatedSource, Precision, StoreReader};
use lucid_data::{BoxAnnotation, CocoSpec, DatasetSpec, ImageSource, OnBad, PairRecord, ScenesSpec, open_dataset};
use lucid_vlm::{Backbone, ExtractOptions, VlmError, extract};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn picture(i: u32) -> RgbImage {
    RgbImage::from_fn(50 + i, 30, |x, y| image::Rgb([(x * 5 + i * 17) as u8, (y * 8) as u8, (x * y + i) as u8]))
}

fn record(i: u32, captions: &[&str]) -> PairRecord {
    let image = picture(i);
    let (width, height) = image.dimensions();
    PairRecord {
        key: format!("photos/{i:03}.png"),
        image: ImageSource::Rgb { width, height, data: image.into_raw() },
        captions: captions.iter().map(|c| c.to_string()).collect(),
        boxes: vec![BoxAnnotation { x: 1.0, y: 2.0, width: 3.0, height: 4.0, ..BoxAnnotation::default() }],
        size: Some((width, height)),
    }
}

fn records(n: u32) -> Vec<PairRecord> {
    (0..n).map(|i| record(i, &["A kitchen with a white oven.", "two buses, parked"])).collect()
}

fn options(out: &Path) -> ExtractOptions {
    ExtractOptions { precision: Precision::F32, ..ExtractOptions::new(out) }
}

#[test]
fn the_store_holds_what_the_backbone_gives_pair_by_pair() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("acts");
    let backbone = common::small_backbone();
    let given = Given(records(35));
    let done = extract(&backbone, &given, &options(&out), &Silent).unwrap();
    assert_eq!((done.manifest.pairs, done.skipped.len()), (35, 0));
    assert!(done.images_per_second > 0.0);
    let store = StoreReader::open(&out).unwrap();
    assert!(store.verify(&Silent).unwrap().is_ok());
    assert_eq!((store.pairs(), store.d_vision(), store.d_text()), (35, 48, 32));
    for i in [0usize, 15, 16, 34] {
        let images = backbone.encode_images(&[picture(i as u32)], "vision.post_ln").unwrap();
        let mut vision = vec![0f32; 16 * 48];
        store.read_vision(i, &mut vision).unwrap();
        assert!(vision == images.states, "pair {i}");
        assert_eq!(store.captions(i), 2);
        for (caption, text) in given.0[i].captions.iter().enumerate() {
            let states = backbone.encode_texts(&[text], "text.final_ln").unwrap();
            let mut found = vec![0f32; store.text_len(i, caption) * 32];
            store.read_text(i, caption, &mut found).unwrap();
            assert!(found == states.states, "pair {i}, caption {caption}");
            let tokens = store.text_tokens(i, caption);
            assert_eq!(
                (tokens.ids, tokens.kinds, tokens.spans),
                (&states.ids[..], &states.kinds[..], &states.spans[..])
            );
        }
        let info = store.info(i);
        assert_eq!((info.key.as_str(), info.size), (given.0[i].key.as_str(), Some([50 + i as u32, 30])));
        assert_eq!((info.vision_grid, &info.boxes), ([4, 4], &given.0[i].boxes));
        let small = image::load_from_memory(store.thumbnail(i).unwrap()).unwrap();
        assert_eq!((small.width(), small.height()), (50 + i as u32, 30));
    }
    let provenance = store.manifest().provenance.to_string();
    assert!(!provenance.contains("private"), "no path of this machine: {provenance}");
    let provenance = &store.manifest().provenance;
    assert_eq!(provenance["hooks"]["vision"], "vision.post_ln");
    assert_eq!(provenance["hooks"]["text"], "text.final_ln");
    assert_eq!(provenance["backbone"]["weightsBlake3"].as_str().unwrap().len(), 64);
    assert_eq!(provenance["backbone"]["preprocessing"]["filter"], "bicubic");
}

#[test]
fn layers_precision_and_the_number_of_pairs_are_as_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = common::small_backbone();
    let given = Given(records(9));
    let out = folder.path().join("acts");
    let wanted = ExtractOptions {
        layers: vec!["text.block:0".into(), "vision.block:1".into()],
        max_pairs: Some(4),
        keep_eos: false,
        thumbnails: false,
        ..ExtractOptions::new(&out)
    };
    extract(&backbone, &given, &wanted, &Silent).unwrap();
    let store = StoreReader::open(&out).unwrap();
    assert_eq!((store.pairs(), store.manifest().precision), (4, Precision::F16));
    assert!(store.thumbnail(0).is_none());
    assert!(store.text_tokens(0, 0).kinds.iter().all(|&k| k == 0));
    let expected = backbone.encode_images(&[picture(3)], "vision.block:1").unwrap();
    let mut vision = vec![0f32; 16 * 48];
    store.read_vision(3, &mut vision).unwrap();
    for (a, b) in vision.iter().zip(&expected.states) {
        assert!((a - b).abs() <= b.abs() / 1024.0 + 1e-6);
    }
    for (layers, code) in [(vec!["vision.blok:1"], "E_HOOK"), (vec!["vision.block:0", "vision.block:0"], "E_OPTION")] {
        let layers = layers.into_iter().map(String::from).collect();
        let bad = ExtractOptions { layers, ..options(&folder.path().join("bad")) };
        assert_eq!(extract(&backbone, &given, &bad, &Silent).unwrap_err().code(), code);
    }
    assert!(!folder.path().join("bad").exists());
}

#[test]
fn a_store_has_the_same_content_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let given = Given(records(20));
    let run = |threads: usize| {
        let backbone = common::small_backbone().with_threads(threads);
        let out = folder.path().join(threads.to_string());
        extract(&backbone, &given, &options(&out), &Silent).unwrap().manifest.fingerprint
    };
    assert_eq!(run(1), run(3));
}

/// Twelve pairs of which four cannot be used and one has a bad second caption.
fn spoiled(folder: &Path) -> Vec<PairRecord> {
    let mut all = records(12);
    let mut png = Vec::new();
    picture(1).write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
    png.truncate(png.len() / 2);
    all[2].image = ImageSource::Encoded(png);
    all[5].image = ImageSource::File(folder.join("absent.jpg"));
    all[7].captions = vec!["?!".into()];
    all[8].captions.clear();
    all[10].captions[1] = "...".into();
    all
}

#[test]
fn a_bad_pair_stops_the_extraction_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = common::small_backbone();
    let all = spoiled(folder.path());
    for (i, code, named) in [
        (2usize, "E_IMAGE", "photos/002.png"),
        (5, "E_IMAGE", "absent.jpg"),
        (7, "E_EMPTY_TEXT", "?!"),
        (8, "E_NO_CAPTION", "photos/008.png"),
        (10, "E_EMPTY_TEXT", "..."),
    ] {
        let out = folder.path().join("acts");
        let error =
            extract(&backbone, &Given(vec![all[0].clone(), all[i].clone()]), &options(&out), &Silent).unwrap_err();
        assert_eq!(error.code(), code, "pair {i}: {error}");
        assert!(error.to_string().contains(named), "pair {i}: {error}");
        assert!(!out.exists());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

/// Keeps every warning and the last progress.
#[derive(Default)]
struct Listening {
    warnings: Mutex<Vec<String>>,
    done: AtomicU64,
}

impl Observer for Listening {
    fn progress(&self, stage: &str, done: u64, total: u64) {
        assert_eq!((stage, total), ("extract", 12));
        assert!(self.done.swap(done, Ordering::SeqCst) <= done);
    }
    fn warning(&self, code: &str, message: &str) {
        self.warnings.lock().unwrap().push(format!("{code} {message}"));
    }
}

#[test]
fn bad_pairs_are_skipped_counted_and_listed_where_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("acts");
    let listening = Listening::default();
    let wanted = ExtractOptions { on_bad: OnBad::Skip, ..options(&out) };
    let done = extract(&common::small_backbone(), &Given(spoiled(folder.path())), &wanted, &listening).unwrap();
    assert_eq!(done.manifest.pairs, 8);
    let listed: Vec<(&str, &str)> = done.skipped.iter().map(|s| (s.key.as_str(), s.code.as_str())).collect();
    assert_eq!(
        listed,
        [
            ("photos/002.png", "E_IMAGE"),
            ("photos/005.png", "E_IMAGE"),
            ("photos/007.png", "E_EMPTY_TEXT"),
            ("photos/008.png", "E_NO_CAPTION"),
            ("photos/010.png#1", "E_EMPTY_TEXT"),
        ]
    );
    let warnings = listening.warnings.lock().unwrap();
    assert_eq!(warnings.iter().filter(|w| w.starts_with("W_SKIPPED")).count(), 5);
    assert_eq!(listening.done.load(Ordering::SeqCst), 12);
    let store = StoreReader::open(&out).unwrap();
    let keys: Vec<&str> = (0..8).map(|i| store.key(i)).collect();
    assert_eq!(keys[1..4], ["photos/001.png", "photos/003.png", "photos/004.png"]);
    assert_eq!(store.captions(6), 1, "the pair with one bad caption keeps the other");

    let none = Given(vec![record(0, &["?"])]);
    let wanted = ExtractOptions { on_bad: OnBad::Skip, ..options(&folder.path().join("none")) };
    assert_eq!(extract(&common::small_backbone(), &none, &wanted, &Silent).unwrap_err().code(), "E_EMPTY");
}

/// Stops after the first progress that is not zero.
#[derive(Default)]
struct Impatient(AtomicBool);

impl Observer for Impatient {
    fn progress(&self, _: &str, done: u64, _: u64) {
        self.0.fetch_or(done > 0, Ordering::SeqCst);
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn a_cancelled_extraction_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("acts");
    let error =
        extract(&common::small_backbone(), &Given(records(60)), &options(&out), &Impatient::default()).unwrap_err();
    assert_eq!(error.code(), "E_CANCELLED");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_existing_folder_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = common::small_backbone();
    extract(&backbone, &Given(records(2)), &options(&folder.path().join("acts")), &Silent).unwrap();
    let again = extract(&backbone, &Given(records(3)), &options(&folder.path().join("acts")), &Silent);
    assert_eq!(again.unwrap_err().code(), "E_EXISTS");
    let replace = ExtractOptions { overwrite: true, ..options(&folder.path().join("acts")) };
    assert_eq!(extract(&backbone, &Given(records(3)), &replace, &Silent).unwrap().manifest.pairs, 3);
}

#[test]
fn options_are_read_with_defaults_and_unknown_ones_refused() {
    let read = |json: &str| serde_json::from_str::<ExtractOptions>(json);
    assert_eq!(read(r#"{ "out": "acts" }"#).unwrap(), ExtractOptions::new("acts"));
    let full =
        read(r#"{ "out": "a", "layers": ["vision.block:1"], "precision": "f32", "maxPairs": 3, "onBad": "skip" }"#)
            .unwrap();
    assert_eq!((full.precision, full.max_pairs, full.on_bad), (Precision::F32, Some(3), OnBad::Skip));
    assert!(read(r#"{ "out": "a", "presicion": "f32" }"#).unwrap_err().to_string().contains("presicion"));
}

#[test]
fn the_embedded_backbone_extracts_scenes() {
    let backbone = Backbone::mini().unwrap();
    assert_eq!((backbone.image_size(), backbone.grid()), (112, [14, 14]));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("acts");
    let spec =
        DatasetSpec::Scenes(ScenesSpec { pairs: 6, seed: 4, split: lucid_data::scenes::Split::Train, edits: false });
    let dataset = open_dataset(&spec).unwrap();
    let done = extract(&backbone, &*dataset, &ExtractOptions::new(&out), &Silent).unwrap();
    assert_eq!((done.manifest.pairs, done.manifest.tokens.vision), (6, 6 * 196));
    let store = StoreReader::open(&out).unwrap();
    assert!(store.verify(&Silent).unwrap().is_ok());
    let provenance = &store.manifest().provenance;
    assert_eq!((&provenance["backbone"]["id"], &provenance["dataset"]["scenes"]["seed"]), (&"mini".into(), &4.into()));
    // No word of the scenes is unknown to the embedded vocabulary.
    for i in 0..6 {
        assert!(store.text_tokens(i, 0).ids.iter().all(|&id| id != 2), "{:?}", store.info(i).captions);
    }
}

#[test]
fn the_embedded_backbone_extracts_photos() {
    let test = "the_embedded_backbone_extracts_photos";
    let Some(real) = common::shared(test, "real/coco-train80") else { return };
    let spec = DatasetSpec::Coco(CocoSpec {
        images: real.join("train2017"),
        captions: real.join("annotations/captions_train2017.json"),
        instances: Some(real.join("annotations/instances_train2017.json")),
        panoptic: None,
        masks: false,
    });
    let folder = tempfile::tempdir().unwrap();
    let out: PathBuf = folder.path().join("acts");
    let wanted = ExtractOptions { max_pairs: Some(5), ..ExtractOptions::new(&out) };
    let run = || -> Result<usize, VlmError> {
        let dataset = open_dataset(&spec)?;
        Ok(extract(&Backbone::mini()?, &*dataset, &wanted, &Silent)?.manifest.pairs)
    };
    assert_eq!(run().unwrap(), 5);
    let store = StoreReader::open(&out).unwrap();
    assert!(store.verify(&Silent).unwrap().is_ok());
    let info = store.info(0);
    let [width, height] = info.size.unwrap();
    assert!(!info.boxes.is_empty());
    assert!(
        info.boxes.iter().all(|b| b.x + b.width <= f64::from(width) + 1.0 && b.y + b.height <= f64::from(height) + 1.0)
    );
    let small = image::load_from_memory(store.thumbnail(0).unwrap()).unwrap();
    assert_eq!(small.width().max(small.height()), 160);
    let aspect = |w: f64, h: f64| w / h;
    let (a, b) = (aspect(small.width().into(), small.height().into()), aspect(width.into(), height.into()));
    assert!((a / b - 1.0).abs() < 0.02, "the thumbnail keeps the aspect");
}
