//! docs/formats.md, read word for word: a store is parsed with byte arithmetic and JSON alone, neither with this crate's
//! reader nor with the safetensors crate.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use lucid_data::store::{
    ActivationSource, AnnotatedSource, CaptionActivations, PairActivations, Precision, StoreOptions, StoreReader,
    StoreWriter,
};
use serde_json::Value;

/// A tensor's type, shape and bytes.
struct Tensor(String, Vec<usize>, Vec<u8>);

impl Tensor {
    fn integers<const N: usize>(&self) -> Vec<u64> {
        self.2.chunks_exact(N).map(|c| c.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))).collect()
    }

    fn floats(&self) -> Vec<f64> {
        let half = |bits: u16| {
            let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 31), f64::from(bits & 1023));
            let size = if exponent == 0 {
                fraction / 1024.0 * 2f64.powi(-14)
            } else {
                (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15)
            };
            if sign == 1 { -size } else { size }
        };
        match self.0.as_str() {
            "F32" => self.2.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap()).into()).collect(),
            "BF16" => self.2.chunks_exact(2).map(|c| f32::from_le_bytes([0, 0, c[0], c[1]]).into()).collect(),
            "F16" => self.2.chunks_exact(2).map(|c| half(u16::from_le_bytes(c.try_into().unwrap()))).collect(),
            "F64" => self.2.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect(),
            other => panic!("{other}"),
        }
    }
}

fn tensors(path: &Path) -> impl Fn(&str) -> Tensor + use<> {
    let raw = fs::read(path).unwrap();
    let n = u64::from_le_bytes(raw[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&raw[8..8 + n]).unwrap();
    move |name| {
        let t = &header[name];
        let number = |v: &Value| v.as_u64().unwrap() as usize;
        let (a, b) = (number(&t["data_offsets"][0]), number(&t["data_offsets"][1]));
        let shape: Vec<usize> = t["shape"].as_array().unwrap().iter().map(number).collect();
        Tensor(t["dtype"].as_str().unwrap().into(), shape, raw[8 + n + a..8 + n + b].to_vec())
    }
}

const TEXTS: [&str; 3] = ["a red cat", "un chat", "ein Hund"];

/// Three pairs of 2, 1 and 3 patches with 1, 2 and 1 captions, two pairs a shard.
fn write(path: &Path, precision: Precision) {
    let mut writer =
        StoreWriter::create(path, StoreOptions { precision, pairs_per_shard: 2, ..StoreOptions::new(2, 1) }).unwrap();
    let states = [0.5f32, -1.25, 3.0];
    for (i, (patches, captions)) in [(2usize, 1usize), (1, 2), (3, 1)].into_iter().enumerate() {
        let vision: Vec<f32> = (0..2 * patches).map(|k| (10 * i + k) as f32 / 4.0).collect();
        let captions: Vec<_> = (0..captions)
            .map(|c| CaptionActivations {
                text: TEXTS[c],
                states: &states[..=c],
                ids: &[7, 1][..=c],
                kinds: &[0, 1][..=c],
                spans: &[[0, 2], [0, 0]][..=c],
            })
            .collect();
        let thumbnail = [i as u8; 3];
        writer
            .append(&PairActivations {
                key: &format!("{i}.jpg"),
                vision: &vision,
                vision_grid: [1, patches as u32],
                captions: &captions,
                size: Some([30, 40]),
                boxes: &[],
                thumbnail: (i != 1).then_some(&thumbnail[..]),
            })
            .unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn a_store_reads_as_its_specification_says() {
    let dir = tempfile::tempdir().unwrap();
    for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
        let path = dir.path().join(precision.name());
        write(&path, precision);
        let manifest: Value = serde_json::from_slice(&fs::read(path.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(
            (&manifest["format"], &manifest["formatVersion"]),
            (&"lucid-sae activation store".into(), &1.into())
        );
        assert_eq!(
            (&manifest["pairs"], &manifest["captions"], &manifest["precision"]),
            (&3.into(), &4.into(), &precision.name().into())
        );
        assert_eq!(manifest["tokens"], serde_json::json!({ "vision": 6, "text": 5 }));
        let lines = fs::read_to_string(path.join("pairs.jsonl")).unwrap();
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let reader = StoreReader::open(&path).unwrap();
        for i in 0..3usize {
            let shards = manifest["shards"].as_array().unwrap();
            let shard = shards.iter().rfind(|s| s["firstPair"].as_u64().unwrap() as usize <= i).unwrap();
            let tensor = tensors(&path.join(shard["name"].as_str().unwrap()));
            let k = i - shard["firstPair"].as_u64().unwrap() as usize;
            let range = |name: &str, k: usize| {
                let offsets = tensor(name).integers::<8>();
                offsets[k] as usize..offsets[k + 1] as usize
            };
            let rows = range("vision_offsets", k);
            let vision: Vec<f64> = tensor("vision").floats()[2 * rows.start..2 * rows.end].to_vec();
            let expected: Vec<f64> = (0..vision.len()).map(|n| (10 * i + n) as f64 / 4.0).collect();
            assert_eq!((&vision, vision.len()), (&expected, 2 * [2, 1, 3][i]));
            for (c, global) in range("caption_offsets", k).enumerate() {
                let rows = range("text_offsets", global);
                assert_eq!(tensor("text").floats()[rows.clone()], [0.5, -1.25][..=c]);
                assert_eq!(tensor("token_ids").integers::<4>()[rows.clone()], [7, 1][..=c]);
                assert_eq!(tensor("token_kinds").integers::<1>()[rows.clone()], [0, 1][..=c]);
                assert_eq!(tensor("token_spans").1, [tensor("token_ids").1[0], 2]);
                assert_eq!(tensor("token_spans").integers::<4>()[2 * rows.start..2 * rows.start + 2], [0, 2]);
                assert_eq!(lines[i]["captions"][c], TEXTS[c]);
                assert_eq!(reader.text_len(i, c), rows.len());
            }
            let bytes = range("thumbnail_offsets", k);
            assert_eq!(tensor("thumbnails").2[bytes], vec![i as u8; if i == 1 { 0 } else { 3 }]);
            assert_eq!((&lines[i]["key"], &lines[i]["size"][1]), (&format!("{i}.jpg").into(), &40.into()));
            assert_eq!(lines[i]["visionGrid"], serde_json::json!([1, reader.vision_len(i)]));
            assert_eq!(reader.info(i).key, format!("{i}.jpg"));
        }
        let mean = tensors(&path.join("statistics.safetensors"));
        // Text: the first captions are 0.5 each. Vision, first dimension: (0 + 2 + 10 + 20 + 22 + 24) / 4 / 6.
        assert_eq!(mean("text.mean").floats(), [0.5]);
        assert!((mean("vision.mean").floats()[0] - 78.0 / 24.0).abs() < 1e-12);
        assert_eq!(manifest["statistics"]["variance"]["text"], 0.0);
        assert_eq!(manifest["statistics"]["meanSquare"]["text"], 0.25);
    }
}

#[test]
fn hashes_are_made_as_specified() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acts");
    write(&path, Precision::F16);
    let text = fs::read_to_string(path.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let mut lines = Vec::new();
    for entry in manifest["shards"].as_array().unwrap().iter().chain(manifest["files"].as_array().unwrap()) {
        let name = entry["name"].as_str().unwrap();
        let content = fs::read(path.join(name)).unwrap();
        assert_eq!(entry["bytes"], content.len());
        assert_eq!(entry["blake3"], blake3::hash(&content).to_hex().as_str());
        lines.push(format!("{name} {}\n", entry["blake3"].as_str().unwrap()));
    }
    assert_eq!(lines.len(), 4);
    lines.sort();
    assert_eq!(manifest["fingerprint"], blake3::hash(lines.concat().as_bytes()).to_hex().as_str());
    let own = manifest["manifestBlake3"].as_str().unwrap();
    assert_eq!(own, blake3::hash(text.replace(own, &"0".repeat(64)).as_bytes()).to_hex().as_str());
}
