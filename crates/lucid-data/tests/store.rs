//! The activation store: what goes in comes out, what makes no sense is refused.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{caption, options, pair, read_all, sample, store_in};
use half::{bf16, f16};
use lucid_data::progress::{Observer, Silent};
use lucid_data::store::*;
use lucid_data::{BoxAnnotation, PixelMask};
use proptest::prelude::*;
use serde_json::json;

/// Text, states, ids, kinds and spans of one caption.
type DrawnCaption = (String, Vec<f32>, Vec<u32>, Vec<u8>, Vec<[u32; 2]>);

#[derive(Debug, Clone)]
struct Drawn {
    vision: Vec<f32>,
    captions: Vec<DrawnCaption>,
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
    (patches, proptest::collection::vec(caption, 1..4), proptest::option::of([1u32..40, 1..40]), boxes, thumbnail)
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
                    crowd,
                    mask: size
                        .filter(|_| crowd)
                        .and_then(|size| PixelMask::from_pixels(size, |x, y| f64::from(x + y) < w).ok()),
                    ..Default::default()
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
            Precision::F32 | Precision::Int8 => v,
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

#[test]
fn errors_carry_code_hint_and_details() {
    let dir = tempfile::tempdir().unwrap();
    let error = StoreReader::open(dir.path()).err().unwrap();
    assert!(error.hint().unwrap().contains("manifest.json"));
    assert_eq!(error.details()["expected"], json!("a folder with manifest.json"));
}
