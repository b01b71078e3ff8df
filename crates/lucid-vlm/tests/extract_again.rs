//! Extraction that is interrupted and gone on with, done in parts, and at several hooks: the same bits as in one go.
#![allow(clippy::unwrap_used)]

mod common;

use common::Given;
use image::RgbImage;
use lucid_data::progress::{Observer, Silent};
use lucid_data::store::{ActivationSource, AnnotatedSource, Manifest, Precision, StoreReader};
use lucid_data::{BoxAnnotation, ImageSource, OnBad, PairRecord, PixelMask};
use lucid_vlm::{Backbone, CaptionPolicy, ExtractOptions, PartOf, compare_with_source, extract};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

fn records(n: u32) -> Given {
    let record = |i: u32| {
        let image = RgbImage::from_fn(40 + i, 30, |x, y| {
            image::Rgb([(x * 5 + i * 17) as u8, (y * 8) as u8, (x * y + i) as u8])
        });
        let (width, height) = image.dimensions();
        // The eighth has no caption with words, the eleventh a bad one beside a good one.
        let captions: &[&str] = match i {
            7 => &["?!"],
            10 => &["...", "a red bus"],
            _ => &["A kitchen with a white oven.", "two buses, parked"],
        };
        PairRecord {
            key: format!("{i:03}.png"),
            image: ImageSource::Rgb { width, height, data: image.into_raw() },
            captions: captions.iter().map(|c| c.to_string()).collect(),
            boxes: vec![BoxAnnotation { x: 1.0, y: 2.0, width: 30.0, height: 4.0, ..BoxAnnotation::default() }],
            size: Some((width, height)),
        }
    };
    Given((0..n).map(record).collect())
}

fn options(out: &Path) -> ExtractOptions {
    ExtractOptions { precision: Precision::F16, on_bad: OnBad::Skip, pairs_per_shard: 5, ..ExtractOptions::new(out) }
}

/// Stops the extraction once `after` records have been dealt with.
struct Stopper {
    after: u64,
    seen: AtomicU64,
    warnings: Mutex<Vec<String>>,
}

impl Stopper {
    fn new(after: u64) -> Self {
        Self { after, seen: AtomicU64::new(0), warnings: Mutex::default() }
    }
}

impl Observer for Stopper {
    fn progress(&self, _stage: &str, done: u64, _total: u64) {
        self.seen.fetch_max(done, Ordering::SeqCst);
    }
    fn warning(&self, code: &str, _text: &str) {
        self.warnings.lock().unwrap().push(code.into());
    }
    fn cancelled(&self) -> bool {
        self.seen.load(Ordering::SeqCst) >= self.after
    }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap() != "manifest.json")
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&p).unwrap()))
        .collect();
    all.sort();
    all
}

/// Names in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    all
}

#[test]
fn stopped_anywhere_and_gone_on_with_the_store_has_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = common::small_backbone();
    let given = records(37);
    let whole = folder.path().join("whole");
    let done = extract(&backbone, &given, &options(&whole), &Silent).unwrap();
    assert_eq!((done.manifest.pairs, done.skipped.len()), (36, 2));
    let skipped = std::fs::read_to_string(whole.join("skipped.jsonl")).unwrap();
    assert_eq!(skipped.lines().count(), 2);
    assert!(skipped.contains("E_EMPTY_TEXT") && skipped.contains("007.png") && skipped.contains("010.png#0"));
    for after in [0, 3, 16, 17, 20, 32, 36] {
        let out = folder.path().join(format!("stopped-{after}"));
        let resumed = ExtractOptions { resume: true, ..options(&out) };
        let stopper = Stopper::new(after);
        let error = extract(&backbone, &given, &resumed, &stopper).unwrap_err();
        assert_eq!(error.code(), "E_CANCELLED", "after {after}");
        assert!(!out.exists(), "nothing is published");
        let left = folder.path().join(format!(".stopped-{after}.partial")).exists();
        assert_eq!(left, stopper.warnings.lock().unwrap().iter().any(|w| w == "W_UNFINISHED"), "after {after}");
        if left {
            // Without resume the earlier work is not silently thrown away.
            let error = extract(&backbone, &given, &options(&out), &Silent).unwrap_err();
            assert_eq!(error.code(), "E_UNFINISHED");
            assert!(error.hint().unwrap().contains("resume"));
            // Another data set, hook or precision may not go on from it.
            let other = ExtractOptions { keep_eos: false, ..resumed.clone() };
            let error = extract(&backbone, &given, &other, &Silent).unwrap_err();
            assert!(error.code() == "E_UNFINISHED" && error.to_string().contains("provenance.keepEos"), "{error}");
        }
        let again = extract(&backbone, &given, &resumed, &Silent).unwrap();
        assert_eq!(again.resumed > 0, left, "after {after}");
        assert_eq!(files(&out), files(&whole), "after {after}");
        assert_eq!(again.manifest.fingerprint, done.manifest.fingerprint);
        assert_eq!(again.manifest.statistics, done.manifest.statistics);
        assert_eq!(again.manifest.precision_error, done.manifest.precision_error);
        assert!(done.manifest.precision_error.is_some());
        assert_eq!(again.skipped, done.skipped);
        // Asked once more, there is nothing left to do.
        let third = extract(&backbone, &given, &resumed, &Silent).unwrap();
        assert_eq!((third.resumed, third.manifest.fingerprint), (36, done.manifest.fingerprint.clone()));
        assert!(!names(folder.path()).iter().any(|n| n.starts_with('.')), "{:?}", names(folder.path()));
    }
    // Starting over throws the unfinished one away.
    let out = folder.path().join("over");
    extract(&backbone, &given, &options(&out), &Stopper::new(30)).unwrap_err();
    let over = ExtractOptions { overwrite: true, ..options(&out) };
    assert_eq!(extract(&backbone, &given, &over, &Silent).unwrap().resumed, 0);
    assert_eq!(files(&out), files(&whole));
}

#[test]
fn what_follows_the_last_journalled_shard_is_dropped_and_damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = common::small_backbone();
    let given = records(30);
    let (whole, out) = (folder.path().join("whole"), folder.path().join("acts"));
    let done = extract(&backbone, &given, &options(&whole), &Silent).unwrap();
    let resumed = ExtractOptions { resume: true, ..options(&out) };
    let begin = || {
        let _ = std::fs::remove_dir_all(folder.path().join(".acts.partial"));
        extract(&backbone, &given, &options(&out), &Stopper::new(29)).unwrap_err();
    };
    let partial = folder.path().join(".acts.partial");
    let append = |name: &str, bytes: &[u8]| {
        use std::io::Write;
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(partial.join(name))
            .unwrap()
            .write_all(bytes)
            .unwrap();
    };
    begin();
    // What a kill leaves: half a line of the journal, pairs of a shard that is not complete, half a shard.
    append("journal.jsonl", br#"{"file":{"name":"shard-0000"#);
    append("store/pairs.jsonl", b"{\"key\":\"half");
    append("store/shard-000099.safetensors", b"half");
    let again = extract(&backbone, &given, &resumed, &Silent).unwrap();
    assert_eq!((again.resumed > 0, files(&out) == files(&whole)), (true, true));
    assert_eq!(again.manifest.fingerprint, done.manifest.fingerprint);
    std::fs::remove_dir_all(&out).unwrap();

    begin();
    let shard = partial.join("store/shard-000001.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[3000] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    let error = extract(&backbone, &given, &resumed, &Silent).unwrap_err();
    assert!(error.code() == "E_UNFINISHED" && error.to_string().contains("shard-000001"), "{error}");
    begin();
    std::fs::write(partial.join("store/pairs.jsonl"), "").unwrap();
    assert_eq!(extract(&backbone, &given, &resumed, &Silent).unwrap_err().code(), "E_UNFINISHED");
}

#[test]
fn parts_cover_the_data_set_once() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = common::small_backbone();
    let given = records(23);
    let whole = folder.path().join("whole");
    extract(&backbone, &given, &options(&whole), &Silent).unwrap();
    let key = |path: &Path| {
        let store = StoreReader::open(path).unwrap();
        (0..store.pairs()).map(|i| store.key(i).to_string()).collect::<Vec<_>>()
    };
    for of in [1, 2, 5] {
        let mut all = Vec::new();
        for index in 0..of {
            let out = folder.path().join(format!("{index}-of-{of}"));
            let part = ExtractOptions { shard: Some(PartOf { index, of }), ..options(&out) };
            let done = extract(&backbone, &given, &part, &Silent).unwrap();
            assert_eq!(done.manifest.provenance["part"]["index"], index);
            all.extend(key(&out));
        }
        assert_eq!(all, key(&whole), "{of} parts");
        let parts: Vec<_> = (0..of).rev().map(|index| folder.path().join(format!("{index}-of-{of}"))).collect();
        let merged = folder.path().join(format!("merged-{of}"));
        let done = lucid_data::store::merge_stores(&parts, &merged, false, &Silent).unwrap();
        assert_eq!(files(&merged), files(&whole), "{of} parts merged");
        assert_eq!(done.fingerprint, Manifest::read(&whole).unwrap().fingerprint);
    }
    for (index, of) in [(2, 2), (0, 0)] {
        let part = ExtractOptions { shard: Some(PartOf { index, of }), ..options(&folder.path().join("x")) };
        assert_eq!(extract(&backbone, &given, &part, &Silent).unwrap_err().code(), "E_OPTION");
    }
}

#[test]
fn several_hooks_in_one_pass_are_the_stores_of_each_alone() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = common::small_backbone();
    let given = records(12);
    let layers = ["vision.block:0", "vision.post_ln", "text.block:1"];
    let out = folder.path().join("acts");
    let all = ExtractOptions { layers: layers.map(String::from).to_vec(), ..options(&out) };
    // Interrupted once, to see that the stores go on together.
    extract(&backbone, &given, &all, &Stopper::new(11)).unwrap_err();
    let done = extract(&backbone, &given, &ExtractOptions { resume: true, ..all }, &Silent).unwrap();
    assert_eq!(names(&out), ["stores.json", "vision.block-0+text.block-1", "vision.post_ln+text.block-1"]);
    assert_eq!(done.stores.len(), 2);
    let list: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("stores.json")).unwrap()).unwrap();
    assert_eq!(list["stores"][1], "vision.post_ln+text.block-1");
    let pairs = |path: &Path| std::fs::read(path.join("pairs.jsonl")).unwrap();
    assert_eq!(pairs(&done.stores[0]), pairs(&done.stores[1]));
    for (path, vision) in done.stores.iter().zip(["vision.block:0", "vision.post_ln"]) {
        let alone = folder.path().join(vision.replace(':', "-"));
        let one = ExtractOptions { layers: vec![vision.into(), "text.block:1".into()], ..options(&alone) };
        let one = extract(&backbone, &given, &one, &Silent).unwrap();
        assert_eq!(Manifest::read(path).unwrap().fingerprint, one.manifest.fingerprint, "{vision}");
        assert_eq!(Manifest::read(path).unwrap().provenance, one.manifest.provenance, "{vision}");
    }
    let twice = ExtractOptions { layers: vec!["vision.post_ln".into(); 2], ..options(&folder.path().join("x")) };
    assert_eq!(extract(&backbone, &given, &twice, &Silent).unwrap_err().code(), "E_OPTION");
}

#[test]
fn the_first_caption_alone_and_the_limit_of_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = common::small_backbone();
    let given = records(6);
    let first = ExtractOptions { caption_policy: CaptionPolicy::First, ..options(&folder.path().join("first")) };
    let done = extract(&backbone, &given, &first, &Silent).unwrap();
    assert_eq!((done.manifest.captions, done.manifest.pairs), (6, 6));
    assert_eq!(done.manifest.provenance["captionPolicy"], "first");
    // 40 × 30 to 45 × 30 pixels: the last three are too many.
    let small = ExtractOptions { max_pixels: 42 * 30, ..options(&folder.path().join("small")) };
    let done = extract(&backbone, &given, &small, &Silent).unwrap();
    assert_eq!((done.manifest.pairs, done.skipped.len()), (3, 3));
    assert!(done.skipped.iter().all(|s| s.code == "E_IMAGE"), "{:?}", done.skipped);
}

#[test]
fn a_cropping_backbone_keeps_what_it_sees() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("clip");
    std::fs::create_dir(&files).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(common::fixture("clip-tiny").join(name), files.join(name)).unwrap();
    }
    // Ids of its 120: a tokenizer of single letters.
    let letters: serde_json::Map<String, serde_json::Value> =
        (b'a'..=b'z').enumerate().map(|(i, c)| ((c as char).to_string(), i.into())).collect();
    let tokenizer = serde_json::json!({ "version": "1.0", "added_tokens": [
        { "id": 118, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true },
        { "id": 119, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true } ],
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "[a-z]" }, "behavior": "Isolated", "invert": false },
        "post_processor": { "type": "RobertaProcessing", "sep": ["</s>", 119], "cls": ["<s>", 118], "trim_offsets": false, "add_prefix_space": false },
        "model": { "type": "WordLevel", "vocab": letters, "unk_token": "z" } });
    std::fs::write(files.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let backbone = Backbone::load(&files).unwrap();
    let image = RgbImage::from_fn(200, 100, |x, _| image::Rgb([x as u8, 0, 0]));
    let b = |x: f64, width: f64| {
        let inside = |px: u32, py: u32| f64::from(px) >= x && f64::from(px) < x + width && (10..60).contains(&py);
        let mask = PixelMask::from_pixels([200, 100], inside).ok();
        BoxAnnotation { x, y: 10.0, width, height: 50.0, mask, ..BoxAnnotation::default() }
    };
    let given = Given(vec![PairRecord {
        key: "wide.png".into(),
        image: ImageSource::Rgb { width: 200, height: 100, data: image.into_raw() },
        captions: vec!["cat".into()],
        boxes: vec![b(60.0, 30.0), b(0.0, 40.0), b(40.0, 20.0)],
        size: None,
    }]);
    let out = folder.path().join("acts");
    extract(&backbone, &given, &options(&out), &Silent).unwrap();
    let store = StoreReader::open(&out).unwrap();
    let info = store.info(0);
    // The middle 100 × 100: the first box shifted, the second gone, the third cut.
    assert_eq!(info.size, Some([100, 100]));
    let found: Vec<[f64; 4]> = info.boxes.iter().map(|b| [b.x, b.y, b.width, b.height]).collect();
    assert_eq!(found, [[10.0, 10.0, 30.0, 50.0], [0.0, 10.0, 10.0, 50.0]]);
    for b in &info.boxes {
        let inside = |px: u32, py: u32| {
            let (px, py) = (f64::from(px), f64::from(py));
            px >= b.x && px < b.x + b.width && py >= b.y && py < b.y + b.height
        };
        assert_eq!(b.mask, PixelMask::from_pixels([100, 100], inside).ok());
    }
    let small = image::load_from_memory(store.thumbnail(0).unwrap()).unwrap().into_rgb8();
    assert_eq!(small.dimensions(), (100, 100));
    assert!(small.get_pixel(0, 50)[0].abs_diff(50) < 8 && small.get_pixel(99, 50)[0].abs_diff(149) < 8);
    // No start of text among the kept tokens.
    assert_eq!(store.text_tokens(0, 0).ids, [2, 0, 19, 119]);
}

#[test]
fn a_store_is_compared_with_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = common::small_backbone();
    for precision in [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8] {
        let out = folder.path().join(precision.name());
        extract(&backbone, &records(14), &ExtractOptions { precision, ..options(&out) }, &Silent).unwrap();
        let store = StoreReader::open(&out).unwrap();
        let found = compare_with_source(&store, &backbone, &records(14), (10, 5), &Silent).unwrap();
        assert_eq!((found.sampled, found.mismatches.len()), (10, 0), "{precision}: {found:?}");
        assert_eq!(found.largest_difference == 0.0, precision == Precision::F32, "{precision}: {found:?}");
        // A picture that has changed, a caption, and a pair that is gone.
        let mut other = records(14);
        let ImageSource::Rgb { data, .. } = &mut other.0[2].image else { panic!() };
        data.iter_mut().for_each(|v| *v = 255 - *v);
        other.0[3].captions[1] = "two trains, parked".into();
        other.0.remove(5);
        let found = compare_with_source(&store, &backbone, &other, (13, 5), &Silent).unwrap();
        let keys: Vec<&str> = found.mismatches.iter().map(|m| m.key.as_str()).collect();
        assert_eq!(keys, ["002.png", "003.png", "005.png"], "{precision}: {found:?}");
        let stranger = Backbone::mini().unwrap();
        assert_eq!(compare_with_source(&store, &stranger, &other, (1, 0), &Silent).unwrap_err().code(), "E_OPTION");
    }
}
