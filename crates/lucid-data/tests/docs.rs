//! docs/formats.md: its Python reads every store, and its sizes are those of real shards.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{append_range, caption, options, pair, read_all};
use lucid_data::store::*;

fn formats() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats.md")).unwrap()
}

#[test]
fn the_python_of_the_docs_reads_every_precision() {
    let python = std::env::var("LUCID_PYTHON").unwrap_or_else(|_| "python3".into());
    let ready = Command::new(&python).args(["-c", "import numpy, safetensors"]).output();
    if !ready.is_ok_and(|o| o.status.success()) {
        println!(
            "SKIPPED the_python_of_the_docs_reads_every_precision: {python} has no numpy and safetensors (LUCID_PYTHON names another Python)"
        );
        return;
    }
    let docs = formats();
    let section = docs.split("### Reading it with numpy").nth(1).unwrap();
    let snippet = section.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let chosen = "store, i = \"acts/\", 0";
    assert!(snippet.contains(chosen), "{snippet}");
    let dir = tempfile::tempdir().unwrap();
    for precision in [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8] {
        let path = dir.path().join(precision.name());
        let mut writer = StoreWriter::create(&path, options(precision)).unwrap();
        append_range(&mut writer, 0..8);
        writer.finish().unwrap();
        let reader = StoreReader::open(&path).unwrap();
        // 0 begins a shard, 5 ends one, 7 is in a last one that is not full.
        for i in [0, 4, 5, 7] {
            let place = format!("store, i = {:?}, {i}", format!("{}/", path.display()));
            let tail = "for a in (vision, text):\n    assert a.dtype == np.float32\n    print(a.shape[0], a.shape[1], a.tobytes().hex())\n";
            let script = format!("{}\n{tail}", snippet.replace(chosen, &place));
            let output = Command::new(&python).args(["-c", &script]).output().unwrap();
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{precision}: {err}");
            let (vision, texts) = read_all(&reader, i);
            let line = |states: &[f32], d: usize| {
                let hex: String = states.iter().flat_map(|v| v.to_le_bytes()).map(|b| format!("{b:02x}")).collect();
                format!("{} {d} {hex}\n", states.len() / d)
            };
            assert_eq!(out, line(&vision, 4) + &line(&texts[0], 3), "{precision}, pair {i}");
        }
    }
}

/// The formula of the section "Size".
fn shard_bytes(pairs: u64, captions: u64, patches: u64, tokens: u64, precision: Precision, width: u64) -> u64 {
    let (b, s) = (precision.bytes() as u64, if precision == Precision::Int8 { 4 } else { 0 });
    2048 + patches * (b * width + s) + tokens * (b * width + s + 13) + 8 * (3 * (pairs + 1) + captions + 1)
}

fn commas(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|c| std::str::from_utf8(c).unwrap()).collect();
    groups.join(",")
}

#[test]
fn the_sizes_of_the_docs_are_those_of_shards() {
    let dir = tempfile::tempdir().unwrap();
    let docs = formats();
    let (states, token) = (vec![0.5f32; 196 * 768], vec![0.25f32; 13 * 768]);
    for (precision, names) in [(Precision::Bf16, "| bf16, f16 |"), (Precision::Int8, "| int8 |")] {
        let row = docs.lines().find(|l| l.starts_with(names) && l.contains("bytes")).unwrap();
        for (captions, cell) in [(5u64, 2), (1, 3)] {
            let path = dir.path().join(format!("{precision}-{captions}"));
            let o = StoreOptions { precision, pairs_per_shard: 3, ..StoreOptions::new(768, 768) };
            let mut writer = StoreWriter::create(&path, o).unwrap();
            let all = vec![caption("", &token); captions as usize];
            for i in 0..4 {
                let key = format!("{i}");
                writer.append(&PairActivations { vision_grid: [14, 14], ..pair(&key, &states, &all) }).unwrap();
            }
            let of =
                |pairs: u64| shard_bytes(pairs, pairs * captions, pairs * 196, pairs * captions * 13, precision, 768);
            let real: Vec<u64> = writer.finish().unwrap().shards.iter().map(|s| s.bytes).collect();
            assert_eq!(real, [of(3), of(1)], "{precision}, {captions} captions");
            // COCO train2017: 115 shards of 1024 pairs and a last one.
            let total = 115 * of(1024) + of(118_287 - 115 * 1024);
            assert_eq!(row.split('|').nth(cell).unwrap().trim(), format!("{} bytes", commas(total)));
            let below = total <= 40_000_000_000;
            assert_eq!(below, !(precision == Precision::Bf16 && captions == 5));
            if precision == Precision::Bf16 {
                let gigabytes = format!("{:.2} GB", total as f64 / 1e9);
                assert!(docs.contains(&gigabytes), "{gigabytes}");
            }
        }
    }
}
