//! How the cost of Algorithm 1 grows: generated codes of up to ten million patches and a library of 2,000 concepts.
//!
//! `interpret_time [--patches 10000000] [--concepts 2000] [--threads N]`: prints a Markdown line for each tenth, half and whole of a power of ten up to
//! `--patches`. A patch fires 16 of 1,536 shared latents, of which few are common and many rare, a picture has 196; codes are drawn from the patch's
//! number when they are asked for, and drawing them alone is timed beside.

use std::collections::BTreeMap;
use std::time::Instant;

use lucid_data::DataError;
use lucid_data::progress::Silent;
use lucid_data::store::{
    ActivationSource, AnnotatedSource, KIND_CONTENT, PairInfo, PerModality, Statistics, TokenInfo,
};
use lucid_interpret::{Coder, ConceptStates, InterpretError, InterpretOptions, PairPlan, SparseCodes, interpret};
use lucid_kernels::{Block, Modality};
use rayon::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PATCHES: usize = 196;
const TOKENS: usize = 8;
const SHARED: usize = 1536;
const K: usize = 16;

fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Codes that follow from a token's number, which is its whole state.
struct Drawn;

impl Coder for Drawn {
    fn width(&self, _: Modality) -> usize {
        1
    }
    fn d_shared(&self) -> usize {
        SHARED
    }
    fn latents(&self) -> usize {
        SHARED
    }
    fn encode(&self, activations: &[f32], modality: Modality) -> std::result::Result<SparseCodes, InterpretError> {
        let mut codes = SparseCodes::new(SHARED);
        for &number in activations {
            let seed = mix(number as u64 ^ (modality as u64) << 40);
            let mut row = BTreeMap::new();
            let mut draw = 0;
            while row.len() < K {
                let word = mix(seed.wrapping_add(draw));
                draw += 1;
                let uniform = (word >> 40) as f64 / (1_u64 << 24) as f64;
                // Density falls from the first latent to the last: the square of a uniform number.
                let latent = (uniform * uniform * SHARED as f64) as u32;
                row.entry(latent).or_insert(0.2 + (word & 0xffff) as f32 / 65536.0);
            }
            codes.push(row);
        }
        Ok(codes)
    }
    fn decode(&self, codes: &SparseCodes, _: Modality, _: Block) -> std::result::Result<Vec<f32>, InterpretError> {
        Ok(vec![0.0; codes.len()])
    }
    fn plan(&self, vision: &SparseCodes, text: &SparseCodes) -> std::result::Result<PairPlan, InterpretError> {
        Ok(PairPlan::uniform(vision.len(), text.len()))
    }
}

/// Pictures whose patches are their numbers.
struct Numbered {
    pairs: Vec<PairInfo>,
    ids: Vec<u32>,
    kinds: Vec<u8>,
    spans: Vec<[u32; 2]>,
}

impl Numbered {
    fn new(pairs: usize) -> Self {
        let caption = ["one"; TOKENS].join(" ");
        let info = |pair: usize| PairInfo {
            key: format!("picture-{pair}"),
            captions: vec![caption.clone()],
            vision_grid: [14, 14],
            size: None,
            boxes: Vec::new(),
        };
        Self {
            pairs: (0..pairs).map(info).collect(),
            ids: vec![0; TOKENS],
            kinds: vec![KIND_CONTENT; TOKENS],
            spans: (0..TOKENS as u32).map(|token| [4 * token, 4 * token + 3]).collect(),
        }
    }
}

impl ActivationSource for Numbered {
    fn pairs(&self) -> usize {
        self.pairs.len()
    }
    fn d_vision(&self) -> usize {
        1
    }
    fn d_text(&self) -> usize {
        1
    }
    fn vision_len(&self, _: usize) -> usize {
        PATCHES
    }
    fn captions(&self, _: usize) -> usize {
        1
    }
    fn text_len(&self, _: usize, _: usize) -> usize {
        TOKENS
    }
    fn read_vision(&self, pair: usize, out: &mut [f32]) -> std::result::Result<(), DataError> {
        (0..).zip(out).for_each(|(patch, state)| *state = (PATCHES * pair + patch) as f32);
        Ok(())
    }
    fn read_text(&self, pair: usize, _: usize, out: &mut [f32]) -> std::result::Result<(), DataError> {
        (0..).zip(out).for_each(|(token, state)| *state = (TOKENS * pair + token) as f32);
        Ok(())
    }
    fn statistics(&self) -> Statistics {
        let one = PerModality { vision: 1.0, text: 1.0 };
        Statistics {
            mean_vision: vec![0.0],
            mean_text: vec![0.0],
            variance: one,
            pooled_variance: one,
            mean_square: one,
            tokens: PerModality { vision: 1, text: 1 },
        }
    }
    fn fingerprint(&self) -> String {
        "0".repeat(64)
    }
    fn key(&self, pair: usize) -> &str {
        &self.pairs[pair].key
    }
}

impl AnnotatedSource for Numbered {
    fn info(&self, pair: usize) -> &PairInfo {
        &self.pairs[pair]
    }
    fn text_tokens(&self, _: usize, _: usize) -> TokenInfo<'_> {
        TokenInfo { ids: &self.ids, kinds: &self.kinds, spans: &self.spans }
    }
    fn thumbnail(&self, _: usize) -> Option<&[u8]> {
        None
    }
}

/// A library of single tokens with embeddings that agree in groups of five.
fn library(concepts: usize) -> ConceptStates {
    let group = |concept: usize| (0..16).map(move |i| if i == (concept / 5) % 16 { 1.0 } else { 0.01 });
    ConceptStates {
        names: (0..concepts).map(|concept| format!("concept {concept}")).collect(),
        categories: Vec::new(),
        lengths: vec![1; concepts],
        states: (0..concepts).map(|concept| (1_000_000 + concept) as f32).collect(),
        pooled: (0..concepts).flat_map(group).collect(),
    }
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

fn main() -> Result<()> {
    let (mut most, mut concepts, mut threads) = (10_000_000_usize, 2000, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--patches" => most = value.parse()?,
            "--concepts" => concepts = value.parse()?,
            "--threads" => threads = value.parse()?,
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let library = library(concepts);
    println!("{concepts} concepts, {K} of {SHARED} latents a patch, {} threads", rayon::current_num_threads());
    println!(
        "| patches | pictures | seconds | of them drawing codes | ns a non-zero | peak MiB |\n|--:|--:|--:|--:|--:|--:|"
    );
    for patches in [100_000, 500_000, 1_000_000, 5_000_000, 10_000_000].into_iter().filter(|&patches| patches <= most) {
        let source = Numbered::new(patches / PATCHES);
        let started = Instant::now();
        let drawn: usize = (0..source.pairs())
            .into_par_iter()
            .map(|pair| {
                let mut states = vec![0.0; PATCHES];
                source
                    .read_vision(pair, &mut states)
                    .map_or(0, |()| Drawn.encode(&states, Modality::Vision).map_or(0, |c| c.entries()))
            })
            .sum();
        let drawing = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let atlas = interpret(&Drawn, &source, &library, &InterpretOptions::default(), &Silent)?;
        let seconds = started.elapsed().as_secs_f64();
        assert_eq!(atlas.index.store.pairs, source.pairs());
        println!(
            "| {patches} | {} | {seconds:.1} | {drawing:.1} | {:.0} | {:.0} |",
            source.pairs(),
            1e9 * (seconds - drawing) / drawn as f64,
            resident_mib()
        );
    }
    Ok(())
}
