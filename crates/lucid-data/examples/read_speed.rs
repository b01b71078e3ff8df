//! How fast a store is read, beside plain reads of its files:
//! `cargo run --release -p lucid-data --example read_speed -- acts 4096 bf16`.
//!
//! Where the folder does not exist yet, that many pairs in COCO's shape (196 patches, five captions of 13 tokens, width 768) are written
//! first. *Cold* figures are taken after the kernel was told to forget the files (Linux), *warm* ones right after them.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use lucid_data::store::{
    ActivationSource, CaptionActivations, PairActivations, Precision, StoreOptions, StoreReader, StoreWriter,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const WIDTH: usize = 768;
const ROUNDS: usize = 5;
const NAMES: [&str; 5] = [
    "plain reads of the shards",
    "pairs in order, as stored",
    "pairs in order, decoded to f32",
    "pairs at random, as stored",
    "pairs at random, decoded to f32",
];

/// A sequence of numbers that looks random enough.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn write(path: &Path, pairs: usize, precision: Precision) -> Result<()> {
    let mut state = 1;
    let pool: Vec<f32> = (0..400 * WIDTH).map(|_| (next(&mut state) % 2001) as f32 / 500.0 - 2.0).collect();
    let mut rows = |n: usize| {
        let start = next(&mut state) as usize % (pool.len() - n * WIDTH);
        &pool[start..start + n * WIDTH]
    };
    let mut writer = StoreWriter::create(path, StoreOptions { precision, ..StoreOptions::new(WIDTH, WIDTH) })?;
    for i in 0..pairs {
        let vision = rows(196);
        let captions: Vec<CaptionActivations> = (0..5)
            .map(|_| CaptionActivations { text: "a cat", states: rows(13), ids: &[], kinds: &[], spans: &[] })
            .collect();
        writer.append(&PairActivations {
            key: &format!("{i:012}.jpg"),
            vision,
            vision_grid: [14, 14],
            captions: &captions,
            size: None,
            boxes: &[],
            thumbnail: None,
        })?;
    }
    writer.finish()?;
    Ok(())
}

/// Lets the kernel forget a store's files, so that the next read comes from the disk.
fn forget(store: &Path) -> Result<()> {
    for entry in std::fs::read_dir(store)? {
        let file = File::open(entry?.path())?;
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        let _ = file;
    }
    Ok(())
}

/// Bytes of the shards, read one after the other.
fn plain(store: &Path, shards: &[String]) -> Result<u64> {
    let mut buffer = vec![0u8; 1 << 20];
    let mut bytes = 0;
    for name in shards {
        let mut file = File::open(store.join(name))?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => bytes += n as u64,
            }
        }
    }
    std::hint::black_box(&buffer);
    Ok(bytes)
}

/// Bytes of states of the pairs in `order`, as stored, copied out of the map.
fn stored(reader: &StoreReader, order: &[usize], buffer: &mut Vec<u8>) -> u64 {
    let mut bytes = 0;
    for &pair in order {
        for part in reader.stored(pair) {
            buffer.clear();
            buffer.extend_from_slice(part);
            bytes += part.len() as u64;
        }
        std::hint::black_box(&buffer);
    }
    bytes
}

/// The same bytes, decoded to f32.
fn decoded(reader: &StoreReader, order: &[usize], buffer: &mut Vec<f32>) -> Result<u64> {
    let bytes = reader.manifest().precision.bytes();
    let mut read = 0;
    for &pair in order {
        buffer.resize(reader.vision_len(pair) * reader.d_vision(), 0.0);
        reader.read_vision(pair, buffer)?;
        read += buffer.len() * bytes;
        for c in 0..reader.captions(pair) {
            buffer.resize(reader.text_len(pair, c) * reader.d_text(), 0.0);
            reader.read_text(pair, c, buffer)?;
            read += buffer.len() * bytes;
        }
        std::hint::black_box(&buffer);
    }
    Ok(read as u64)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = Path::new(arguments.first().ok_or("give the folder of a store, or of one to write")?);
    if !path.exists() {
        let pairs = arguments.get(1).map_or(Ok(4096), |n| n.parse())?;
        let precision = arguments.get(2).map_or("bf16", String::as_str);
        let precision: Precision = serde_json::from_value(precision.into())?;
        let started = Instant::now();
        write(path, pairs, precision)?;
        println!("wrote {pairs} pairs in {:.1} s", started.elapsed().as_secs_f64());
    }
    let (shards, mut order, precision): (Vec<String>, Vec<usize>, _) = {
        let reader = StoreReader::open(path)?;
        let manifest = reader.manifest();
        (manifest.shards.iter().map(|s| s.name.clone()).collect(), (0..reader.pairs()).collect(), manifest.precision)
    };
    let in_order = order.clone();
    let mut state = 7;
    for i in (1..order.len()).rev() {
        order.swap(i, next(&mut state) as usize % (i + 1));
    }
    println!("{} pairs in {precision}, {} shards", order.len(), shards.len());
    println!("GB/s of stored bytes, and the share of the plain read of the same round: medians of {ROUNDS} rounds");
    println!("{:<34}{:>8}{:>8}{:>8}{:>8}", "", "cold", "", "warm", "");
    let (mut bytes, mut floats) = (Vec::new(), Vec::new());
    // Opening counts: it maps the shards anew, so that a cold run begins without pages in the map.
    let mut work = |kind: usize| -> Result<u64> {
        match kind {
            0 => plain(path, &shards),
            1 => Ok(stored(&StoreReader::open(path)?, &in_order, &mut bytes)),
            2 => decoded(&StoreReader::open(path)?, &in_order, &mut floats),
            3 => Ok(stored(&StoreReader::open(path)?, &order, &mut bytes)),
            _ => decoded(&StoreReader::open(path)?, &order, &mut floats),
        }
    };
    // Kinds take turns, so that what else the machine does meets all of them; those in order first, because reading at
    // random leaves the kernel's cache in small pieces, which slows down what comes after.
    let mut rates = vec![[[0.0f64; ROUNDS]; 2]; NAMES.len()];
    for kinds in [0..3, 3..NAMES.len()] {
        for round in 0..ROUNDS {
            for kind in kinds.clone() {
                forget(path)?;
                for rate in &mut rates[kind] {
                    let started = Instant::now();
                    let read = work(kind)?;
                    rate[round] = read as f64 / started.elapsed().as_secs_f64() / 1e9;
                }
            }
        }
    }
    for (name, found) in NAMES.iter().zip(&rates) {
        let [cold, warm] = [0, 1].map(|state| {
            let share: Vec<f64> = (0..ROUNDS).map(|r| found[state][r] / rates[0][state][r]).collect();
            format!("{:>8.2}{:>6.0} %", median(&found[state]), 100.0 * median(&share))
        });
        println!("{name:<34}{cold}{warm}");
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
