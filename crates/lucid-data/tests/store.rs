//! The activation store: what goes in comes out, damage is found, a failing disk leaves nothing half published.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::{bf16, f16};
use lucid_data::progress::{Observer, Silent};
use lucid_data::publish::{Disk, FileSystem, OutputFile};
use lucid_data::store::*;
use lucid_data::synth::{SynthOptions, synth};
use lucid_data::{BoxAnnotation, DataError};
use proptest::prelude::*;
use serde_json::{Value, json};

fn options(precision: Precision) -> StoreOptions {
    StoreOptions { precision, pairs_per_shard: 3, provenance: json!({ "backbone": "none" }), ..StoreOptions::new(4, 3) }
}

fn sample(pairs: usize) -> MemoryStore {
    let o = SynthOptions {
        pairs,
        d_vision: 4,
        d_text: 3,
        concepts: 6,
        private_vision: 2,
        private_text: 2,
        grid: 4,
        ..SynthOptions::default()
    };
    synth(&o).unwrap().0
}

fn caption<'a>(text: &'a str, states: &'a [f32]) -> CaptionActivations<'a> {
    CaptionActivations { text, states, ids: &[], kinds: &[], spans: &[] }
}

fn pair<'a>(key: &'a str, vision: &'a [f32], captions: &'a [CaptionActivations<'a>]) -> PairActivations<'a> {
    let vision_grid = [1, (vision.len() / 4) as u32];
    PairActivations { key, vision, vision_grid, captions, size: None, boxes: &[], thumbnail: None }
}

fn read_all(source: &dyn AnnotatedSource, i: usize) -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut vision = vec![0.0; source.vision_len(i) * source.d_vision()];
    source.read_vision(i, &mut vision).unwrap();
    let texts = (0..source.captions(i)).map(|c| {
        let mut text = vec![0.0; source.text_len(i, c) * source.d_text()];
        source.read_text(i, c, &mut text).unwrap();
        text
    });
    (vision, texts.collect())
}

fn store_in(dir: &Path) -> PathBuf {
    let path = dir.join("acts");
    sample(7).write_to(&path, options(Precision::F16)).unwrap();
    path
}

#[derive(Debug, Clone)]
struct Drawn {
    vision: Vec<f32>,
    captions: Vec<(String, Vec<f32>, Vec<u32>, Vec<u8>, Vec<[u32; 2]>)>,
    size: Option<[u32; 2]>,
    boxes: Vec<BoxAnnotation>,
    thumbnail: Option<Vec<u8>>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let value = || prop_oneof![-3.0f32..3.0, Just(0.0), Just(-0.0), Just(65504.0), Just(1e-7)];
    let boxes = proptest::collection::vec((0.0..9.0f64, 0.1..5.0f64, any::<bool>()), 0..3);
    let caption = ("[a-zä☃ ]{0,9}", 1usize..4).prop_flat_map(move |(text, n)| {
        let ends: Vec<u32> = (0..=text.len()).filter(|&i| text.is_char_boundary(i)).map(|i| i as u32).collect();
        let span = (proptest::sample::select(ends.clone()), proptest::sample::select(ends))
            .prop_map(|(a, b)| [a.min(b), a.max(b)]);
        let states = proptest::collection::vec(value(), n * 3);
        (
            Just(text),
            states,
            proptest::collection::vec(any::<u32>(), n),
            proptest::collection::vec(0u8..2, n),
            proptest::collection::vec(span, n),
        )
    });
    let patches = (1usize..5).prop_flat_map(move |n| proptest::collection::vec(value(), n * 4));
    let thumbnail = proptest::option::of(proptest::collection::vec(any::<u8>(), 1..20));
    (patches, proptest::collection::vec(caption, 1..4), proptest::option::of(any::<[u32; 2]>()), boxes, thumbnail)
        .prop_map(|(vision, captions, size, boxes, thumbnail)| Drawn {
            vision,
            captions,
            size,
            boxes: boxes
                .into_iter()
                .map(|(x, w, crowd)| BoxAnnotation {
                    x,
                    y: x,
                    width: w,
                    height: w,
                    category: crowd.then(|| "cat \"é\"".into()),
                    phrase: None,
                    crowd,
                })
                .collect(),
            thumbnail,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_goes_in_comes_out(pairs in proptest::collection::vec(drawn(), 1..8), precision in proptest::sample::select(vec![Precision::F32, Precision::F16, Precision::Bf16])) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acts");
        let mut writer = StoreWriter::create(&path, options(precision)).unwrap();
        let mut memory = MemoryStore::new(4, 3).unwrap();
        for (i, p) in pairs.iter().enumerate() {
            let captions: Vec<_> = p.captions.iter()
                .map(|(text, states, ids, kinds, spans)| CaptionActivations { text, states, ids, kinds, spans }).collect();
            let key = format!("photo {i}.jpg");
            let activations = PairActivations { boxes: &p.boxes, size: p.size, thumbnail: p.thumbnail.as_deref(), ..pair(&key, &p.vision, &captions) };
            writer.append(&activations).unwrap();
            memory.push(&activations).unwrap();
        }
        let manifest = writer.finish().unwrap();
        let reader = StoreReader::open(&path).unwrap();
        prop_assert_eq!(reader.manifest(), &manifest);
        prop_assert!(reader.verify(&Silent).unwrap().is_ok());
        let round = |v: f32| match precision {
            Precision::F32 => v,
            Precision::F16 => f16::from_f32(v).to_f32(),
            Precision::Bf16 => bf16::from_f32(v).to_f32(),
        };
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        for (i, p) in pairs.iter().enumerate() {
            let (vision, texts) = read_all(&reader, i);
            prop_assert_eq!(bits(&vision), p.vision.iter().map(|&v| round(v).to_bits()).collect::<Vec<_>>());
            prop_assert_eq!(reader.vision_f32(i).is_some(), precision == Precision::F32);
            for (c, (text, states, ids, kinds, spans)) in p.captions.iter().enumerate() {
                prop_assert_eq!(bits(&texts[c]), states.iter().map(|&v| round(v).to_bits()).collect::<Vec<_>>());
                prop_assert_eq!(reader.text_tokens(i, c), TokenInfo { ids, kinds, spans });
                prop_assert_eq!(memory.text_tokens(i, c), TokenInfo { ids, kinds, spans });
                prop_assert_eq!(&reader.info(i).captions[c], text);
            }
            prop_assert_eq!(reader.info(i), memory.info(i));
            prop_assert_eq!(reader.key(i), memory.key(i));
            prop_assert_eq!(reader.thumbnail(i), p.thumbnail.as_deref());
            prop_assert_eq!(memory.thumbnail(i), p.thumbnail.as_deref());
            prop_assert_eq!(&reader.info(i).boxes, &p.boxes);
        }
    }
}

#[test]
fn statistics_are_those_of_the_stored_values() {
    let dir = tempfile::tempdir().unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let path = dir.path().join(precision.name());
        sample(50).write_to(&path, options(precision)).unwrap();
        let reader = StoreReader::open(&path).unwrap();
        let s = reader.statistics();
        // The definitions, word for word, in two passes.
        let check = |d: usize, pairs: Vec<Vec<f32>>, mean: &[f64], v: f64, square: f64, pooled: f64, tokens: u64| {
            let rows: Vec<Vec<f64>> =
                pairs.iter().flat_map(|p| p.chunks(d).map(|r| r.iter().map(|&x| f64::from(x)).collect())).collect();
            let average = |rows: &[Vec<f64>]| {
                (0..d).map(|i| rows.iter().map(|r| r[i]).sum::<f64>() / rows.len() as f64).collect::<Vec<_>>()
            };
            let spread = |rows: &[Vec<f64>], about: &[f64]| {
                rows.iter().map(|r| r.iter().zip(about).map(|(x, m)| (x - m) * (x - m)).sum::<f64>()).sum::<f64>()
                    / rows.len() as f64
            };
            let m = average(&rows);
            let pools: Vec<Vec<f64>> = pairs
                .iter()
                .map(|p| average(&p.chunks(d).map(|r| r.iter().map(|&x| f64::from(x)).collect()).collect::<Vec<_>>()))
                .collect();
            assert_eq!(tokens, rows.len() as u64);
            for (a, b) in mean.iter().zip(&m) {
                assert!((a - b).abs() < 1e-12, "{a} {b}");
            }
            for (found, expected) in [
                (v, spread(&rows, &m)),
                (square, spread(&rows, &vec![0.0; d])),
                (pooled, spread(&pools, &average(&pools))),
            ] {
                assert!((found - expected).abs() < 1e-12 * expected.max(1.0), "{found} {expected}");
            }
        };
        let all: Vec<_> = (0..reader.pairs()).map(|i| read_all(&reader, i)).collect();
        check(
            4,
            all.iter().map(|a| a.0.clone()).collect(),
            &s.mean_vision,
            s.variance.vision,
            s.mean_square.vision,
            s.pooled_variance.vision,
            s.tokens.vision,
        );
        check(
            3,
            all.iter().map(|a| a.1[0].clone()).collect(),
            &s.mean_text,
            s.variance.text,
            s.mean_square.text,
            s.pooled_variance.text,
            s.tokens.text,
        );
        if precision == Precision::F32 {
            assert_eq!(s, sample(50).statistics());
        }
    }
}

#[test]
fn a_large_offset_does_not_spoil_the_variance() {
    let mut store = MemoryStore::new(1, 1).unwrap();
    // Values 10⁶ ± 1: naive sums of squares would lose all digits in f32 and most in f64.
    for i in 0..1000 {
        let v = 1e6 + (i % 2) as f32 * 2.0;
        let one = caption("", &[0.5]);
        store.push(&PairActivations { vision_grid: [1, 1], ..pair("x", &[v], &[one]) }).unwrap();
    }
    let s = store.statistics();
    assert!((s.variance.vision - 1.0).abs() < 1e-9 && (s.pooled_variance.vision - 1.0).abs() < 1e-9, "{s:?}");
    assert_eq!((s.variance.text, s.mean_square.text), (0.0, 0.25));
}

#[test]
fn the_same_pairs_give_the_same_bytes_and_other_pairs_another_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let write =
        |name: &str, store: &MemoryStore| store.write_to(&dir.path().join(name), options(Precision::F16)).unwrap();
    let (a, b, c) = (write("a", &sample(7)), write("b", &sample(7)), write("c", &sample(8)));
    assert_eq!(a, b);
    assert_ne!(a.fingerprint, c.fingerprint);
    for file in a.all_files() {
        assert_eq!(
            fs::read(dir.path().join("a").join(&file.name)).unwrap(),
            fs::read(dir.path().join("b").join(&file.name)).unwrap()
        );
    }
    assert_eq!(a.shards.iter().map(|s| s.pairs).collect::<Vec<_>>(), [3, 3, 1]);
    let reader = StoreReader::open(&dir.path().join("a")).unwrap();
    assert_eq!(reader.fingerprint(), a.fingerprint);
    assert_ne!(sample(7).fingerprint(), sample(8).fingerprint());
    assert_eq!(sample(7).fingerprint(), sample(7).fingerprint());
}

#[test]
fn pairs_that_make_no_sense_are_refused_and_leave_the_writer_usable() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = StoreWriter::create(&dir.path().join("acts"), options(Precision::F16)).unwrap();
    let good = [0.5f32; 8];
    let text = [1.0f32; 6];
    let ok = [caption("ab", &text)];
    let with = |change: fn(&mut Vec<f32>)| {
        let mut v = good.to_vec();
        change(&mut v);
        v
    };
    let mut refuse = |p: &PairActivations, code: &str, part: &str| {
        let error = writer.append(p).unwrap_err();
        assert!(error.code() == code && error.to_string().contains(part), "{error}");
    };
    refuse(
        &pair("nan.png", &with(|v| v[5] = f32::NAN), &ok),
        "E_NON_FINITE",
        "\"nan.png\": the vision activation of token 1, dimension 1 is NaN",
    );
    refuse(&pair("inf.png", &with(|v| v[0] = f32::NEG_INFINITY), &ok), "E_NON_FINITE", "is -inf");
    refuse(
        &pair("t.png", &good, &[ok[0], caption("b", &[0.0, 1.0, f32::INFINITY])]),
        "E_NON_FINITE",
        "text (caption 1) activation of token 0, dimension 2",
    );
    refuse(&pair("big.png", &with(|v| v[7] = -65520.0), &ok), "E_OVERFLOW", "too large for f16");
    refuse(&pair("empty.png", &[], &ok), "E_EMPTY", "the vision set of pair \"empty.png\"");
    refuse(&pair("empty.png", &good, &[caption("", &[])]), "E_EMPTY", "the text set");
    refuse(&pair("mute.png", &good, &[]), "E_NO_CAPTION", "mute.png");
    refuse(&pair("odd.png", &good[..7], &ok), "E_SHAPE", "multiple of the width 4");
    refuse(&PairActivations { vision_grid: [2, 2], ..pair("grid.png", &good, &ok) }, "E_SHAPE", "vision grid");
    refuse(&pair("ids.png", &good, &[CaptionActivations { ids: &[1], ..ok[0] }]), "E_SHAPE", "token ids");
    refuse(&pair("kind.png", &good, &[CaptionActivations { kinds: &[0, 2], ..ok[0] }]), "E_SHAPE", "token kind");
    refuse(
        &pair("span.png", &good, &[CaptionActivations { spans: &[[0, 1], [1, 3]], ..ok[0] }]),
        "E_SHAPE",
        "token span",
    );
    let flat = [BoxAnnotation { width: 0.0, height: 1.0, ..Default::default() }];
    refuse(&PairActivations { boxes: &flat, ..pair("box.png", &good, &ok) }, "E_SHAPE", "box");
    writer.append(&pair("fine.png", &good, &ok)).unwrap();
    assert_eq!(writer.finish().unwrap().pairs, 1);
}

#[test]
fn options_and_occupied_paths_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let code = |path: &Path, o: StoreOptions| StoreWriter::create(path, o).err().map(|e| e.code());
    let new = dir.path().join("new");
    assert_eq!(code(&new, StoreOptions::new(0, 3)), Some("E_OPTION"));
    assert_eq!(code(&new, StoreOptions { pairs_per_shard: 0, ..StoreOptions::new(4, 3) }), Some("E_OPTION"));
    let store = store_in(dir.path());
    assert_eq!(code(&store, options(Precision::F16)), Some("E_EXISTS"));
    fs::create_dir(dir.path().join("mine")).unwrap();
    fs::write(dir.path().join("mine/thesis.txt"), "years of work").unwrap();
    assert_eq!(
        code(&dir.path().join("mine"), StoreOptions { overwrite: true, ..options(Precision::F16) }),
        Some("E_EXISTS")
    );
    // An open reader keeps its data while the store under it is replaced.
    let old = StoreReader::open(&store).unwrap();
    let before = read_all(&old, 6);
    sample(2).write_to(&store, StoreOptions { overwrite: true, ..options(Precision::F16) }).unwrap();
    assert_eq!(read_all(&old, 6), before);
    assert_eq!(StoreReader::open(&store).unwrap().pairs(), 2);
    // An empty folder may become a store, and parents are made.
    fs::create_dir(dir.path().join("empty")).unwrap();
    sample(2).write_to(&dir.path().join("empty"), options(Precision::F16)).unwrap();
    sample(2).write_to(&dir.path().join("a/b/c"), options(Precision::F16)).unwrap();
    let names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|n| !n.starts_with('.')), "{names:?}");
}

#[test]
fn a_writer_without_pairs_or_without_finish_publishes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acts");
    assert_eq!(StoreWriter::create(&path, options(Precision::F32)).unwrap().finish().unwrap_err().code(), "E_EMPTY");
    let mut writer = StoreWriter::create(&path, options(Precision::F32)).unwrap();
    writer.append(&pair("a", &[1.0; 4], &[caption("a", &[1.0; 3])])).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn one_flipped_byte_anywhere_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(dir.path());
    let names: Vec<String> =
        fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in names {
        let file = path.join(&name);
        let good = fs::read(&file).unwrap();
        for at in (0..good.len()).step_by(good.len() / 40 + 1).chain([good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&file, &bad).unwrap();
            // A manifest whose version became a higher one says so; everything else is damage under the file's name.
            match verify_store(&path, &Silent) {
                Err(e) => assert!(
                    name == MANIFEST && ["E_STORE_VERSION", "E_NOT_A_STORE"].contains(&e.code()),
                    "{name} at {at}: {e}"
                ),
                Ok(report) => {
                    let damaged: Vec<_> = report.damaged().into_iter().map(|d| d.file).collect();
                    assert_eq!(damaged, std::slice::from_ref(&name), "byte {at}");
                    assert_eq!(report.into_result().unwrap_err().code(), "E_STORE_DAMAGED");
                }
            }
            if !name.starts_with("shard") {
                assert!(StoreReader::open(&path).is_err(), "{name} at {at}");
            }
        }
        fs::write(&file, &good).unwrap();
    }
    assert!(verify_store(&path, &Silent).unwrap().is_ok());
}

#[test]
fn every_damaged_file_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(dir.path());
    fs::remove_file(path.join("shard-000000.safetensors")).unwrap();
    let shard = path.join("shard-000001.safetensors");
    let length = fs::metadata(&shard).unwrap().len();
    fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(length - 1).unwrap();
    fs::OpenOptions::new().append(true).open(path.join(PAIRS)).unwrap().write_all(b"\n").unwrap();
    let error = verify_store(&path, &Silent).unwrap().into_result().unwrap_err();
    assert_eq!(error.details()["damaged"].as_array().unwrap().len(), 3);
    for name in ["shard-000000", "shard-000001", PAIRS] {
        assert!(error.to_string().contains(name), "{error}");
    }
    // Opening lists both shards as well.
    let good = fs::read(path.join(PAIRS)).unwrap();
    fs::write(path.join(PAIRS), &good[..good.len() - 1]).unwrap();
    let Err(DataError::StoreDamaged { damage, .. }) = StoreReader::open(&path) else { panic!() };
    assert_eq!(damage.len(), 2);
}

#[test]
fn every_truncation_is_refused_when_the_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(dir.path());
    for entry in fs::read_dir(&path).unwrap() {
        let file = entry.unwrap().path();
        let good = fs::read(&file).unwrap();
        for keep in (0..good.len()).step_by(good.len() / 30 + 1).chain([good.len() - 1]) {
            fs::write(&file, &good[..keep]).unwrap();
            let error = StoreReader::open(&path).err().unwrap_or_else(|| panic!("{} cut to {keep}", file.display()));
            assert!(["E_STORE_DAMAGED", "E_NOT_A_STORE"].contains(&error.code()), "{error}");
        }
        fs::write(&file, &good).unwrap();
    }
    assert!(StoreReader::open(&path).is_ok());
}

/// Changes a shard and makes the manifest agree with it, as a careless or malicious program would.
fn forge(path: &Path, shard: &[u8]) {
    fs::write(path.join("shard-000000.safetensors"), shard).unwrap();
    let mut manifest: Value = serde_json::from_slice(&fs::read(path.join(MANIFEST)).unwrap()).unwrap();
    manifest["shards"][0]["bytes"] = json!(shard.len());
    manifest["shards"][0]["blake3"] = json!(blake3::hash(shard).to_hex().to_string());
    let mut lines: Vec<String> = ["shards", "files"]
        .iter()
        .flat_map(|k| manifest[*k].as_array().unwrap())
        .map(|f| format!("{} {}\n", f["name"].as_str().unwrap(), f["blake3"].as_str().unwrap()))
        .collect();
    lines.sort();
    manifest["fingerprint"] = json!(blake3::hash(lines.concat().as_bytes()).to_hex().to_string());
    manifest["manifestBlake3"] = json!("0".repeat(64));
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
    fs::write(path.join(MANIFEST), text.replace(&"0".repeat(64), &hash)).unwrap();
}

#[test]
fn sizes_in_a_shard_are_checked_before_they_are_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acts");
    sample(2).write_to(&path, options(Precision::F16)).unwrap();
    let good = fs::read(path.join("shard-000000.safetensors")).unwrap();
    forge(&path, &good);
    let reader = StoreReader::open(&path).expect("an honest copy opens");
    let (patches, captions) = (reader.vision_len(0) + reader.vision_len(1), 2);
    drop(reader);
    let header = String::from_utf8(good[8..2048].to_vec()).unwrap();
    let range = |name: &str| -> (usize, usize) {
        let parsed: Value = serde_json::from_str(header.trim_end()).unwrap();
        let offsets = &parsed[name]["data_offsets"];
        (2048 + offsets[0].as_u64().unwrap() as usize, 2048 + offsets[1].as_u64().unwrap() as usize)
    };
    let with_header = |from: &str, to: &str| {
        let changed = header.replacen(from, to, 1);
        assert_ne!(changed, header);
        let mut bytes = good.clone();
        bytes[8..2048].copy_from_slice(format!("{:<2040}", changed.trim_end()).as_bytes());
        bytes
    };
    let with_word = |name: &str, index: usize, value: i64| {
        let mut bytes = good.clone();
        bytes[range(name).0 + 8 * index..][..8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let with_byte = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut long = good.clone();
    long[..8].copy_from_slice(&(good.len() as u64).to_le_bytes());
    let cases = [
        ("header length 2⁶⁴ − 1", huge),
        ("header longer than the file", long),
        ("wrong width", with_header("[32, 4]", "[4, 32]")),
        ("overflowing shape", with_header("[32, 4]", "[4611686018427387904, 4]")),
        ("missing tensor", with_header("\"token_kinds\"", "\"token_kindz\"")),
        ("wrong type", with_header("\"F16\"", "\"BF16\"")),
        ("first offset not 0", with_word("vision_offsets", 0, 1)),
        ("offsets that fall", with_word("vision_offsets", 1, patches as i64 + 1)),
        ("negative offset", with_word("text_offsets", 1, -1)),
        ("last offset beyond the end", with_word("text_offsets", captions, 1 << 40)),
        ("pair without caption", with_word("caption_offsets", 1, 0)),
        ("thumbnails beyond the end", with_word("thumbnail_offsets", 2, 5)),
        ("unknown token kind", with_byte(range("token_kinds").0, 9)),
        ("span outside the caption", with_byte(range("token_spans").0 + 7, 0x70)),
    ];
    for (what, bytes) in cases {
        forge(&path, &bytes);
        let error = StoreReader::open(&path).err().unwrap_or_else(|| panic!("{what} was believed"));
        assert_eq!(error.code(), "E_STORE_DAMAGED", "{what}: {error}");
        assert!(error.to_string().contains("shard-000000"), "{what}: {error}");
    }
}

#[test]
fn newer_versions_and_other_folders_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(dir.path());
    let text = fs::read_to_string(path.join(MANIFEST)).unwrap();
    fs::write(path.join(MANIFEST), text.replace("\"formatVersion\": 1", "\"formatVersion\": 2")).unwrap();
    let error = StoreReader::open(&path).err().unwrap();
    assert_eq!((error.code(), error.details()["found"].as_u64()), ("E_STORE_VERSION", Some(2)));
    fs::write(path.join(MANIFEST), text.replace("shard-000000", "../../etc/x0")).unwrap();
    assert_eq!(StoreReader::open(&path).err().unwrap().code(), "E_STORE_DAMAGED");
    fs::write(path.join(MANIFEST), "{\"name\": \"something else\"}").unwrap();
    assert_eq!(StoreReader::open(&path).err().unwrap().code(), "E_NOT_A_STORE");
    assert_eq!(StoreReader::open(dir.path()).err().unwrap().code(), "E_NOT_A_STORE");
    assert_eq!(verify_store(&dir.path().join("nowhere"), &Silent).unwrap_err().code(), "E_NOT_A_STORE");
}

#[test]
fn buffers_of_the_wrong_length_are_refused_by_name() {
    let store = sample(2);
    let error = store.read_vision(1, &mut [0.0; 3]).unwrap_err();
    assert!(error.code() == "E_SHAPE" && error.to_string().contains("pair 1"), "{error}");
}

#[test]
fn verifying_and_writing_stop_when_asked() {
    struct Stop;
    impl Observer for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(dir.path());
    assert_eq!(verify_store(&path, &Stop).unwrap_err().code(), "E_CANCELLED");
    let error = write_store(&sample(2), &dir.path().join("b"), options(Precision::F32), &Stop).unwrap_err();
    assert_eq!(error.code(), "E_CANCELLED");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A file system whose `limit`-th operation fails, as a full or broken disk does.
#[derive(Clone)]
struct Failing {
    calls: Arc<AtomicU64>,
    limit: u64,
}

impl Failing {
    fn new(limit: u64) -> Self {
        Self { calls: Arc::default(), limit }
    }

    fn step(&self) -> io::Result<()> {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.limit {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        Ok(())
    }
}

struct FailingFile {
    inner: Box<dyn OutputFile>,
    system: Failing,
}

impl Write for FailingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.system.step()?;
        self.inner.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Seek for FailingFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.system.step()?;
        self.inner.seek(to)
    }
}

impl OutputFile for FailingFile {
    fn sync(&mut self) -> io::Result<()> {
        self.system.step()?;
        self.inner.sync()
    }
}

impl FileSystem for Failing {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.create_dir(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
        self.step()?;
        Ok(Box::new(FailingFile { inner: Disk.create(path)?, system: self.clone() }))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.sync_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        Disk.rename(from, to)
    }
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        self.step()?;
        Disk.exchange(a, b)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        Disk.remove_dir_all(path)
    }
}

fn write_on(system: Failing, path: &Path, overwrite: bool) -> Result<Manifest, DataError> {
    let mut writer =
        StoreWriter::create_on(Arc::new(system), path, StoreOptions { overwrite, ..options(Precision::F32) })?;
    let text = [1.0f32; 3];
    for i in 0..5 {
        let result = writer.append(&pair(&format!("{i}.png"), &[i as f32; 8], &[caption("a", &text)]));
        if let Err(error) = result {
            assert_eq!(writer.append(&pair("next.png", &[0.0; 4], &[caption("a", &text)])).unwrap_err().code(), "E_IO");
            assert_eq!(writer.finish().unwrap_err().code(), "E_IO");
            return Err(error);
        }
    }
    writer.finish()
}

#[test]
fn whichever_operation_fails_the_old_state_or_the_new_one_is_there() {
    let counting = Failing::new(0);
    let dir = tempfile::tempdir().unwrap();
    write_on(counting.clone(), &dir.path().join("acts"), false).unwrap();
    let operations = counting.calls.load(Ordering::Relaxed);
    assert!(operations > 40, "{operations} operations");
    for replace in [false, true] {
        for limit in 1..=operations {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("acts");
            if replace {
                sample(1).write_to(&path, options(Precision::F16)).unwrap();
            }
            let error = write_on(Failing::new(limit), &path, replace).expect_err("the operation fails");
            assert_eq!(error.code(), "E_IO", "operation {limit}: {error}");
            assert!(
                error.to_string().contains("acts") || error.to_string().contains(dir.path().to_str().unwrap()),
                "{error}"
            );
            assert!(error.hint().unwrap().contains("space"), "{error}");
            let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            // Only the very last operation, the sync of the parent, comes after the store has its name.
            let expected = usize::from(replace || limit == operations);
            assert_eq!(names.len(), expected, "operation {limit}: {names:?}");
            if expected == 1 {
                let reader = StoreReader::open(&path).unwrap();
                assert!(reader.verify(&Silent).unwrap().is_ok());
                assert_eq!(reader.pairs(), if limit == operations { 5 } else { 1 });
            }
        }
    }
}

/// Every write goes to `/dev/full`, which answers as a full disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_a_typed_error() {
    struct Full;
    impl FileSystem for Full {
        fn create_dir(&self, path: &Path) -> io::Result<()> {
            Disk.create_dir(path)
        }
        fn create(&self, _: &Path) -> io::Result<Box<dyn OutputFile>> {
            Ok(Box::new(fs::OpenOptions::new().write(true).open("/dev/full")?))
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            Disk.sync_dir(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            Disk.rename(from, to)
        }
        fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
            Disk.exchange(a, b)
        }
        fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
            Disk.remove_dir_all(path)
        }
    }
    if !Path::new("/dev/full").exists() {
        println!("SKIPPED a_full_device_is_a_typed_error: there is no /dev/full here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut writer = StoreWriter::create_on(Arc::new(Full), &dir.path().join("acts"), options(Precision::F32)).unwrap();
    let error = writer.append(&pair("a.png", &[1.0; 4], &[caption("a", &[1.0; 3])])).unwrap_err();
    let DataError::Io { file, source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(file.ends_with("shard-000000.safetensors"), "{error}");
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn errors_carry_code_hint_and_details() {
    let dir = tempfile::tempdir().unwrap();
    let error = StoreReader::open(dir.path()).err().unwrap();
    assert!(error.hint().unwrap().contains("manifest.json"));
    assert_eq!(error.details()["expected"], json!("a folder with manifest.json"));
}
