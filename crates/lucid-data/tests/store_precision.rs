//! Stores of 8 bits, and what a precision costs.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{append_range, caption, normal, options, pair, read_all};
use lucid_data::progress::Silent;
use lucid_data::store::*;
use proptest::prelude::*;

const ALL: [Precision; 4] = [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn int8_is_within_half_a_step_of_every_row(
        pairs in proptest::collection::vec(
            (proptest::collection::vec(-50f32..50.0, 4..20), proptest::collection::vec(-1e-3f32..1e-3, 3..15)), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acts");
        let mut writer = StoreWriter::create(&path, options(Precision::Int8)).unwrap();
        let whole = |v: &[f32], d: usize| v[..v.len() / d * d].to_vec();
        let pairs: Vec<_> = pairs.iter().map(|(v, t)| (whole(v, 4), whole(t, 3))).collect();
        for (vision, text) in &pairs {
            writer.append(&pair("x", vision, &[caption("", text), caption("", &[0.0; 3])])).unwrap();
        }
        writer.finish().unwrap();
        let reader = StoreReader::open(&path).unwrap();
        prop_assert!(reader.verify(&Silent).unwrap().is_ok());
        for (i, (vision, text)) in pairs.iter().enumerate() {
            let (got_vision, got_texts) = read_all(&reader, i);
            prop_assert_eq!(&got_texts[1], &vec![0.0; 3]);
            prop_assert!(reader.vision_f32(i).is_none() && reader.text_f32(i, 0).is_none());
            for (given, got, d) in [(vision, &got_vision, 4), (text, &got_texts[0], 3)] {
                prop_assert_eq!(given.len(), got.len());
                for (row, kept) in given.chunks(d).zip(got.chunks(d)) {
                    let step = row.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
                    for (a, b) in row.iter().zip(kept) {
                        prop_assert!((a - b).abs() <= step * 0.50002, "{a} {b} {step}");
                    }
                }
            }
        }
        // A store of what was read is the same store.
        let again = dir.path().join("again");
        let copied = write_store(&reader, &again, options(Precision::Int8), &Silent).unwrap();
        prop_assert_eq!(copied.fingerprint, reader.fingerprint());
        prop_assert_eq!(copied.precision_error.unwrap().vision.squared_error, 0.0);
    }
}

#[test]
fn only_int8_needs_the_newer_format_version() {
    let dir = tempfile::tempdir().unwrap();
    for precision in ALL {
        let path = dir.path().join(precision.name());
        let mut writer = StoreWriter::create(&path, options(precision)).unwrap();
        append_range(&mut writer, 0..3);
        let manifest = writer.finish().unwrap();
        assert_eq!(manifest.format_version, if precision == Precision::Int8 { 2 } else { 1 });
        let text = fs::read_to_string(path.join(MANIFEST)).unwrap();
        assert!(text.contains(&format!("\"precision\": \"{precision}\"")), "{text}");
        if precision == Precision::Int8 {
            // A manifest that calls itself version 1 all the same, with a right hash.
            let own = &manifest.manifest_blake3;
            let zeroed =
                text.replace(own.as_str(), &"0".repeat(64)).replace("\"formatVersion\": 2", "\"formatVersion\": 1");
            let hash = blake3::hash(zeroed.as_bytes()).to_hex().to_string();
            fs::write(path.join(MANIFEST), zeroed.replace(&"0".repeat(64), &hash)).unwrap();
            let error = StoreReader::open(&path).err().unwrap();
            assert!(
                error.code() == "E_STORE_DAMAGED" && error.to_string().contains("int8 in format version 1"),
                "{error}"
            );
        }
    }
}

#[test]
fn int8_refuses_what_is_not_finite_or_would_not_stay_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = StoreWriter::create(&dir.path().join("acts"), options(Precision::Int8)).unwrap();
    let ok = [caption("", &[1.0; 3])];
    for (value, code) in [(f32::NAN, "E_NON_FINITE"), (f32::NEG_INFINITY, "E_NON_FINITE"), (f32::MAX, "E_OVERFLOW")] {
        let error = writer.append(&pair("x", &[0.0, value, 0.0, 0.0], &ok)).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    writer.append(&pair("x", &[0.0, f32::MAX * 0.9999, 0.0, 0.0], &ok)).unwrap();
    assert_eq!(writer.finish().unwrap().pairs, 1);
}

/// A shard's scales must be as many as its rows, whatever the manifest vouches for.
#[test]
fn scales_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acts");
    let mut writer = StoreWriter::create(&path, options(Precision::Int8)).unwrap();
    append_range(&mut writer, 0..3);
    writer.finish().unwrap();
    let shard = path.join("shard-000000.safetensors");
    let good = fs::read(&shard).unwrap();
    let header = String::from_utf8(good[8..2048].to_vec()).unwrap();
    for (from, to, says) in [
        ("\"vision_scale\"", "\"vision_scalf\"", "vision_scale"),
        ("\"text_scale\":{\"dtype\":\"F32\"", "\"text_scale\":{\"dtype\":\"U32\"", "U32"),
        ("\"dtype\":\"I8\"", "\"dtype\":\"U8\"", "U8"),
    ] {
        assert!(header.contains(from), "{header}");
        let mut bytes = good.clone();
        let changed = format!("{:<2040}", header.replacen(from, to, 1).trim_end());
        bytes[8..2048].copy_from_slice(changed.as_bytes());
        fs::write(&shard, &bytes).unwrap();
        // Header and shapes are looked at before the hash, so the manifest need not be forged.
        let error = StoreReader::open(&path).err().unwrap();
        assert!(error.code() == "E_STORE_DAMAGED" && error.to_string().contains(says), "{error}");
    }
}

#[test]
fn the_error_of_a_precision_is_that_of_its_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (d, pairs, patches, tokens) = (64usize, 20usize, 9usize, 4usize);
    let mut rms = Vec::new();
    for precision in ALL {
        let path = dir.path().join(precision.name());
        let mut writer = StoreWriter::create(&path, StoreOptions { precision, ..StoreOptions::new(d, d) }).unwrap();
        let set = |i: usize| (normal(i as u64, patches * d), [normal(500 + i as u64, tokens * d), vec![0.0; d]]);
        for i in 0..pairs {
            let (vision, texts) = set(i);
            let captions: Vec<_> = texts.iter().map(|t| caption("", t)).collect();
            writer
                .append(&PairActivations { vision_grid: [3, 3], ..pair(&format!("{i}"), &vision, &captions) })
                .unwrap();
        }
        let manifest = writer.finish().unwrap();
        let reader = StoreReader::open(&path).unwrap();
        assert_eq!(reader.manifest(), &manifest);
        let found = manifest.precision_error.unwrap();
        // The definitions, over all rows at once.
        let (mut given, mut kept) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for i in 0..pairs {
            let (vision, texts) = set(i);
            let (got_vision, got_texts) = read_all(&reader, i);
            given[0].extend(vision);
            kept[0].extend(got_vision);
            given[1].extend(texts.concat());
            kept[1].extend(got_texts.concat());
        }
        for (m, found) in [found.vision, found.text].iter().enumerate() {
            let (x, y): (Vec<f64>, Vec<f64>) =
                given[m].iter().zip(&kept[m]).map(|(&x, &y)| (f64::from(x), f64::from(y))).unzip();
            let square = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>();
            let delta: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y - x).collect();
            let cosines: Vec<f64> = x
                .chunks(d)
                .zip(y.chunks(d))
                .map(|(x, y)| match square(x) {
                    0.0 => 1.0,
                    n => x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>() / (n * square(y)).sqrt(),
                })
                .collect();
            let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-12 * b.abs().max(1e-6), "{precision}: {a} {b}");
            near(found.relative_rms, (square(&delta) / square(&x)).sqrt());
            near(found.squared_error, square(&delta));
            near(found.squared_norm, square(&x));
            near(found.max_abs, delta.iter().fold(0.0, |m, v| m.max(v.abs())));
            near(found.mean_cosine, cosines.iter().sum::<f64>() / cosines.len() as f64);
            near(found.min_cosine, cosines.iter().copied().fold(1.0, f64::min));
            assert_eq!(found.tokens as usize, x.len() / d);
            if precision == Precision::F32 {
                let zeros = [found.relative_rms, found.squared_error, found.max_abs];
                assert_eq!((zeros, found.mean_cosine, found.min_cosine), ([0.0; 3], 1.0, 1.0));
            } else {
                assert!(found.min_cosine < found.mean_cosine && found.mean_cosine < 1.0, "{precision}: {found:?}");
            }
        }
        rms.push(found.vision.relative_rms);
    }
    assert!(rms.windows(2).all(|w| w[0] < w[1]), "f32 < f16 < bf16 < int8: {rms:?}");
    assert!(rms[3] < 0.01, "{rms:?}");
}

#[test]
fn stores_without_the_newer_fields_still_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = common::store_in(dir.path());
    let text = fs::read_to_string(path.join(MANIFEST)).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let fields = manifest.as_object_mut().unwrap();
    assert!(fields.remove("precisionError").is_some() && fields.remove("pairsPerShard").is_some());
    fields["manifestBlake3"] = "0".repeat(64).into();
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
    fs::write(path.join(MANIFEST), text.replace(&"0".repeat(64), &hash)).unwrap();
    let reader = StoreReader::open(&path).unwrap();
    assert_eq!((reader.manifest().precision_error, reader.manifest().pairs_per_shard), (None, None));
    assert_eq!(reader.pairs(), 7);
}
