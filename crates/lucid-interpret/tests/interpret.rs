//! Algorithm 1 from end to end against its formulas, and the atlas on disk.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{LinearCoder, Made, Numbers, random_pairs, store, word_spans};
use lucid_data::progress::Silent;
use lucid_data::store::{ActivationSource, MemoryStore};
use lucid_interpret::atlas::{FoundKind, Reason};
use lucid_interpret::{Atlas, Coder, ConceptStates, HeatmapOf, ImageRef, InterpretOptions, SparseCodes, interpret};
use lucid_kernels::Modality;

const D: usize = 8;
const CONCEPTS: usize = 12;

fn coder() -> LinearCoder {
    LinearCoder { k: [4, 4], ..LinearCoder::signed_axes(D) }
}

fn pictures() -> MemoryStore {
    store(D, &random_pairs(23, D, 31))
}

fn library() -> ConceptStates {
    let mut numbers = Numbers(77);
    let lengths: Vec<usize> = (0..CONCEPTS).map(|c| 1 + c % 3).collect();
    ConceptStates {
        names: (0..CONCEPTS).map(|c| format!("concept {c}")).collect(),
        categories: (0..CONCEPTS).map(|c| (c % 2 == 0).then(|| "even".into())).collect(),
        states: lengths.iter().flat_map(|&n| numbers.vector(n * D)).collect(),
        lengths,
        pooled: numbers.vector(CONCEPTS * 3),
    }
}

fn dense(codes: &SparseCodes, token: usize) -> Vec<f64> {
    let mut row = vec![0.0; D];
    codes.shared(token).iter().for_each(|(latent, value)| row[latent as usize] = f64::from(value));
    row
}

struct Brute {
    /// Per image and concept: score of every patch.
    scores: Vec<Vec<Vec<f64>>>,
    /// (image, concept, patch, latent, confidence).
    peaks: Vec<(usize, usize, usize, usize, f64)>,
    threshold: f64,
}

/// Spec 7, stages 1 to 3, written as it is printed: concepts × patches × latents.
fn brute(store: &MemoryStore, library: &ConceptStates, quantile: f64) -> Brute {
    let coder = coder();
    let mut start = 0;
    let mut concepts = Vec::new();
    for &length in &library.lengths {
        let codes = coder.encode(&library.states[start * D..(start + length) * D], Modality::Text).unwrap();
        start += length;
        let mean: Vec<f64> =
            (0..D).map(|m| (0..length).map(|t| dense(&codes, t)[m]).sum::<f64>() / length as f64).collect();
        concepts.push(mean);
    }
    let idf: Vec<f64> = (0..D)
        .map(|m| match concepts.iter().filter(|c| c[m] > 0.0).count() {
            0 => 0.0,
            df => (CONCEPTS as f64 / df as f64).ln(),
        })
        .collect();
    let mut found = Brute { scores: Vec::new(), peaks: Vec::new(), threshold: 0.0 };
    for image in 0..store.pairs() {
        let codes = coder.encode(store.vision(image), Modality::Vision).unwrap();
        let patches: Vec<Vec<f64>> = (0..codes.len()).map(|p| dense(&codes, p)).collect();
        let mut of_image = Vec::new();
        for (c, z) in concepts.iter().enumerate() {
            let term = |p: usize, m: usize| patches[p][m].min(z[m]) * idf[m];
            let score: Vec<f64> = (0..patches.len()).map(|p| (0..D).map(|m| term(p, m)).sum()).collect();
            let peak = (0..score.len()).fold(0, |best, p| if score[p] > score[best] { p } else { best });
            if score[peak] > 0.0 {
                let latent = (0..D).fold(0, |best, m| if term(peak, m) > term(peak, best) { m } else { best });
                found.peaks.push((image, c, peak, latent, score[peak]));
            }
            of_image.push(score);
        }
        found.scores.push(of_image);
    }
    let mut sorted: Vec<f64> = found.peaks.iter().map(|p| p.4).collect();
    sorted.sort_by(f64::total_cmp);
    found.threshold = sorted[(quantile * sorted.len() as f64).ceil() as usize - 1];
    found
}

#[test]
fn equals_the_algorithm_as_printed() {
    let (store, library) = (pictures(), library());
    for quantile in [0.5, 0.95] {
        let options = InterpretOptions { quantile, top_images: 5, ..InterpretOptions::default() };
        let atlas = interpret(&coder(), &store, &library, &options, &Silent).unwrap();
        let expected = brute(&store, &library, quantile);
        assert_eq!(atlas.index.peaks, expected.peaks.len() as u64);
        assert_eq!(atlas.index.threshold, Some(expected.threshold));
        let hits: Vec<_> = expected.peaks.iter().filter(|p| p.4 > expected.threshold).collect();
        assert!(hits.len() > 5);
        for latent in &atlas.index.latents {
            let own: Vec<_> = hits.iter().filter(|p| p.3 == latent.latent as usize).collect();
            assert_eq!(latent.hits, own.len() as u64);
            for term in &latent.top_terms {
                let of_term: Vec<_> = own.iter().filter(|p| p.1 == term.concept as usize).collect();
                assert_eq!(term.hits, of_term.len() as u64);
                assert_eq!(term.confidence, of_term.iter().map(|p| p.4).fold(0.0, f64::max));
            }
            assert_eq!(latent.label.is_some(), latent.reason.is_none());
            assert_eq!(latent.purity.is_some(), latent.hits > 0);
        }
        for (c, concept) in atlas.index.concepts.iter().enumerate() {
            assert_eq!(concept.hits, hits.iter().filter(|p| p.1 == c).count() as u64);
            let mut own: Vec<_> = expected.peaks.iter().filter(|p| p.1 == c).collect();
            own.sort_by(|a, b| b.4.total_cmp(&a.4).then(a.0.cmp(&b.0)));
            assert_eq!(concept.confidence, own.first().map_or(0.0, |p| p.4));
            assert_eq!(concept.images.len(), own.len().min(5));
            for (hit, peak) in concept.images.iter().zip(own) {
                let image = &atlas.index.images[hit.image];
                assert_eq!((image.pair, hit.latent as usize, hit.value), (peak.0, peak.3, peak.4));
                assert_eq!(hit.peak, [peak.2 as u32 / image.grid[1], peak.2 as u32 % image.grid[1]]);
                let heat = &atlas.heat[hit.map..hit.map + (image.grid[0] * image.grid[1]) as usize];
                let expected: Vec<f32> = expected.scores[peak.0][c].iter().map(|&s| s as f32).collect();
                assert_eq!(heat, expected);
            }
        }
    }
}

#[test]
fn latents_show_their_strongest_pictures_and_words() {
    let store = pictures();
    let atlas = interpret(&coder(), &store, &library(), &InterpretOptions::default(), &Silent).unwrap();
    for latent in &atlas.index.latents {
        let m = latent.latent as usize;
        let mut best = Vec::new();
        let (mut fired, mut patches) = (0usize, 0usize);
        let mut words: BTreeMap<String, (f64, f64, u64, u64)> = BTreeMap::new();
        for pair in 0..store.pairs() {
            let codes = coder().encode(store.vision(pair), Modality::Vision).unwrap();
            let values: Vec<f64> = (0..codes.len()).map(|p| dense(&codes, p)[m]).collect();
            fired += values.iter().filter(|&&v| v > 0.0).count();
            patches += values.len();
            let peak = values.iter().copied().fold(0.0, f64::max);
            if peak > 0.0 {
                best.push((peak, pair));
            }
            let text = coder().encode(store.text(pair, 0), Modality::Text).unwrap();
            let caption = ["a dog runs", "two cats", "the red dog and a ball"][pair % 3];
            for (token, word) in caption.split(' ').enumerate() {
                let value = dense(&text, token)[m];
                let entry = words.entry(word.into()).or_default();
                entry.3 += 1;
                if value > 0.0 {
                    *entry = (entry.0 + value, entry.1.max(value), entry.2 + 1, entry.3);
                }
            }
        }
        best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        best.truncate(8);
        let shown: Vec<(f64, usize)> =
            latent.images.iter().map(|hit| (hit.value, atlas.index.images[hit.image].pair)).collect();
        assert_eq!(shown, best);
        assert_eq!(latent.density.vision, fired as f64 / patches as f64);
        for word in &latent.words {
            let (sum, max, count, all) = words[&word.word];
            assert!((word.activation - sum / count as f64).abs() < 1e-12);
            assert_eq!((word.max, word.count, word.share), (max, count, count as f64 / all as f64));
        }
        let rank: Vec<f64> = latent.words.iter().map(|w| w.activation * w.count as f64 * w.share).collect();
        assert!(rank.is_sorted_by(|a, b| a >= b));
    }
}

#[test]
fn the_cache_changes_nothing() {
    let run = |cache_bytes| {
        let options = InterpretOptions { cache_bytes, ..InterpretOptions::default() };
        let mut atlas = interpret(&coder(), &pictures(), &library(), &options, &Silent).unwrap();
        atlas.index.options.cache_bytes = 0;
        atlas
    };
    assert_eq!(run(0), run(1 << 20));
    assert_eq!(run(3000), run(1 << 20));
}

#[test]
fn options_are_checked_and_kept() {
    let run = |options: &InterpretOptions| interpret(&coder(), &pictures(), &library(), options, &Silent);
    let bad = [
        InterpretOptions { quantile: 1.5, ..InterpretOptions::default() },
        InterpretOptions { threshold: Some(f64::NAN), ..InterpretOptions::default() },
        InterpretOptions { min_purity: -0.1, ..InterpretOptions::default() },
        InterpretOptions { label_terms: 0, ..InterpretOptions::default() },
    ];
    for options in bad {
        assert_eq!(run(&options).unwrap_err().code(), "E_OPTION");
    }
    let given = InterpretOptions { threshold: Some(0.3), max_images: Some(4), ..InterpretOptions::default() };
    let atlas = run(&given).unwrap();
    assert_eq!((atlas.index.threshold, atlas.index.store.pairs, &atlas.index.options), (Some(0.3), 4, &given));
    assert!(atlas.index.images.iter().all(|image| image.pair < 4));
    // A threshold that nothing exceeds names nothing, and says why.
    let strict = InterpretOptions { threshold: Some(1e9), ..InterpretOptions::default() };
    let atlas = run(&strict).unwrap();
    assert!(
        atlas.index.latents.iter().all(|l| l.label.is_none() && l.reason == Some(Reason::NoHits) && l.purity.is_none())
    );
    let none = InterpretOptions { top_images: 0, ..InterpretOptions::default() };
    let atlas = run(&none).unwrap();
    assert!(atlas.index.images.is_empty() && atlas.heat.is_empty());
    assert!(atlas.index.concepts.iter().any(|concept| concept.confidence > 0.0));
}

#[test]
fn a_library_that_does_not_hold_together_is_refused() {
    let refused = |change: fn(&mut ConceptStates), code: &str| {
        let mut concepts = library();
        change(&mut concepts);
        let error = interpret(&coder(), &pictures(), &concepts, &InterpretOptions::default(), &Silent).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    };
    refused(|c| *c = ConceptStates::default(), "E_OPTION");
    refused(|c| c.names[3] = c.names[2].clone(), "E_OPTION");
    refused(|c| c.lengths[0] = 0, "E_SHAPE");
    refused(|c| c.states.truncate(7), "E_SHAPE");
    refused(|c| c.pooled.truncate(7), "E_SHAPE");
    refused(|c| c.pooled.clear(), "E_SHAPE");
    refused(|c| c.states[0] = f32::INFINITY, "E_NON_FINITE");
}

/// Two colours, a place and a latent that answers to everything; one caption is an attack.
fn example() -> (LinearCoder, MemoryStore, ConceptStates) {
    let axis = |m: usize, value: f32| (0..4).map(|i| if i == m { value } else { 0.0 }).collect::<Vec<f32>>();
    let scenes: [(&str, usize); 6] = [
        ("a red ball", 0),
        ("a crimson star", 0),
        ("blue water", 1),
        ("the blue sea", 1),
        ("<script>alert(1)</script> red", 0),
        ("a red boat at sea", 0),
    ];
    let made: Vec<Made> = scenes
        .iter()
        .enumerate()
        .map(|(i, &(caption, color))| {
            let spans = word_spans(caption);
            let meaning = |word: &str| match word {
                "red" | "crimson" => axis(0, 1.0),
                "blue" => axis(1, 1.0),
                "sea" | "water" => axis(2, 1.0),
                _ => axis(3, 0.25),
            };
            // Below 1, the concepts' own values, so that no two pictures tie.
            let strength = 0.6875 + 0.0625 * i as f32;
            let vision = (0..6).flat_map(|p| match p {
                1 => axis(color, strength),
                4 if caption.contains("sea") || caption.contains("water") => axis(2, strength),
                _ => axis(3, 0.5),
            });
            Made {
                key: format!("example-{i}.png"),
                grid: [2, 3],
                vision: vision.collect(),
                caption: caption.into(),
                text: caption.split(' ').flat_map(meaning).collect(),
                kinds: vec![0; spans.len()],
                spans,
                boxes: Vec::new(),
                size: Some([60, 40]),
                thumbnail: (i != 3).then(|| JPEG.to_vec()),
            }
        })
        .collect();
    let concepts = ConceptStates {
        names: ["red", "crimson", "blue", "sea", "<b>sea</b>"].map(String::from).to_vec(),
        categories: [Some("color"), Some("color"), Some("color"), None, None].map(|c| c.map(String::from)).to_vec(),
        lengths: vec![1; 5],
        states: [0, 0, 1, 2, 2].iter().flat_map(|&m| axis(m, 1.0)).collect(),
        pooled: vec![1.0, 0.0, 0.9, 0.1, 0.5, 0.8, -1.0, 0.2, -0.9, 0.3],
    };
    (LinearCoder::axes(4), store(4, &made), concepts)
}

/// A grey JPEG of 8 × 8 pixels.
const JPEG: &[u8] = include_bytes!("fixtures/grey.jpg");

fn example_atlas() -> Atlas {
    let (coder, store, concepts) = example();
    let options = InterpretOptions { threshold: Some(0.5), min_hits: 2, top_images: 3, ..InterpretOptions::default() };
    interpret(&coder, &store, &concepts, &options, &Silent).unwrap()
}

#[test]
fn names_are_given_where_concepts_agree_and_only_there() {
    let atlas = example_atlas();
    assert_eq!(atlas.label(0).unwrap(), Some("crimson, red"));
    assert_eq!(atlas.label(1).unwrap(), Some("blue"));
    assert_eq!(atlas.label(2).unwrap(), Some("<b>sea</b>, sea"));
    assert_eq!((atlas.label(3).unwrap(), atlas.index.latents[3].reason), (None, Some(Reason::NoHits)));
    assert_eq!(atlas.label(4).unwrap_err().code(), "E_OPTION");
    assert_eq!(atlas.latents_for("red").unwrap()[0].latent, 0);
    let error = atlas.latents_for("rad").unwrap_err();
    assert!(error.to_string().contains("did you mean 'red'"), "{error}");
    assert_eq!(atlas.index.latents[0].words.iter().map(|w| w.word.as_str()).collect::<Vec<_>>(), ["red", "crimson"]);
    // Strings stay as they are: the page escapes them.
    assert!(atlas.index.images.iter().any(|image| image.caption == "<script>alert(1)</script> red"));
    assert!(atlas.index.images.iter().any(|image| image.file.is_none()));
}

#[test]
fn stored_heat_maps_equal_computed_ones() {
    let (coder, store, _) = example();
    let atlas = example_atlas();
    let of = HeatmapOf::Concept("red".into());
    let stored = atlas.heatmap(&of, &ImageRef::Key("example-5.png".into())).unwrap();
    assert_eq!((stored.pair, stored.peak, stored.grid), (5, [0, 1], [2, 3]));
    assert_eq!(atlas.compute_heatmap(&coder, &store, &of, 5, [2, 3]).unwrap(), stored);
    let latent = HeatmapOf::Latent(2);
    let stored = atlas.heatmap(&latent, &ImageRef::Pair(3)).unwrap();
    assert_eq!((stored.peak, stored.value), ([1, 1], 0.875));
    assert_eq!(atlas.compute_heatmap(&coder, &store, &latent, 3, [2, 3]).unwrap(), stored);
    let error = atlas.heatmap(&latent, &ImageRef::Pair(0)).unwrap_err();
    assert_eq!(error.code(), "E_NOT_IN_ATLAS");
    assert!(error.to_string().contains("it keeps images 5, 3, 2"), "{error}");
    assert_eq!(atlas.compute_heatmap(&coder, &store, &latent, 0, [2, 3]).unwrap().value, 0.0);
    assert_eq!(atlas.compute_heatmap(&coder, &store, &latent, 9, [2, 3]).unwrap_err().code(), "E_OPTION");
    assert_eq!(atlas.compute_heatmap(&coder, &store, &latent, 0, [3, 3]).unwrap_err().code(), "E_SHAPE");
}

#[test]
fn search_ranks_names_before_captions() {
    let atlas = example_atlas();
    let found = atlas.search("Red");
    assert_eq!((found[0].kind, found[0].text.as_str()), (FoundKind::Concept, "red"));
    assert_eq!((found[1].kind, found[1].index), (FoundKind::Latent, 0));
    assert!(found.iter().any(|r| r.kind == FoundKind::Image && r.text.contains("boat")));
    assert!(found.iter().all(|r| !r.text.contains("blue")));
    let both = atlas.search("red boat");
    assert!(both.iter().any(|r| r.kind == FoundKind::Image && r.text == "a red boat at sea"));
    // The beginning of a word counts half.
    assert_eq!(atlas.search("crim")[0].text, "crimson");
    assert!(atlas.search("zebra").is_empty() && atlas.search("").is_empty() && atlas.search("<>").is_empty());
}

fn saved(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("atlas");
    example_atlas().save(&path).unwrap();
    path
}

#[test]
fn an_atlas_survives_the_disk_and_replaces_its_like_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path());
    assert_eq!(Atlas::load(&path).unwrap(), example_atlas());
    example_atlas().save(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the atlas");
    let other = folder.path().join("photos");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("mine.txt"), "keep").unwrap();
    assert_eq!(example_atlas().save(&other).unwrap_err().code(), "E_EXISTS");
    assert_eq!(fs::read_to_string(other.join("mine.txt")).unwrap(), "keep");
    assert_eq!(Atlas::load(&other).unwrap_err().code(), "E_NOT_AN_ATLAS");
    assert_eq!(Atlas::load(folder.path().join("nowhere")).unwrap_err().code(), "E_NOT_AN_ATLAS");
}

#[test]
fn damaged_and_newer_atlases_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, at) in [("atlas.json", 100), ("maps.safetensors", 120), ("images/00005.jpg", 20)] {
        let path = saved(folder.path());
        let file = path.join(name);
        let mut bytes = fs::read(&file).unwrap();
        bytes[at] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let error = Atlas::load(&path).unwrap_err();
        assert_eq!(error.code(), "E_DAMAGED");
        assert!(error.to_string().contains(name), "{error}");
        bytes.pop();
        fs::write(&file, &bytes).unwrap();
        assert_eq!(Atlas::load(&path).unwrap_err().code(), "E_DAMAGED");
        fs::remove_file(&file).unwrap();
        assert_eq!(Atlas::load(&path).unwrap_err().code(), "E_DAMAGED");
        fs::remove_dir_all(&path).unwrap();
    }
    let path = saved(folder.path());
    let hashes = path.join("hashes.json");
    let text = fs::read_to_string(&hashes).unwrap();
    fs::write(&hashes, text.replace("\"formatVersion\": 1", "\"formatVersion\": 2")).unwrap();
    assert_eq!(Atlas::load(&path).unwrap_err().code(), "E_VERSION");
    fs::write(&hashes, text.replace("images/00005.jpg", "../00005.jpg")).unwrap();
    assert_eq!(Atlas::load(&path).unwrap_err().code(), "E_DAMAGED");
    fs::write(&hashes, "{").unwrap();
    assert_eq!(Atlas::load(&path).unwrap_err().code(), "E_DAMAGED");
    fs::write(&hashes, text).unwrap();
    Atlas::load(&path).unwrap();
}

/// The committed example is what this version writes; `LUCID_WRITE_FIXTURES=1` writes it anew.
#[test]
fn the_example_of_the_format_page_is_current() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/atlas-example");
    if std::env::var_os("LUCID_WRITE_FIXTURES").is_some() {
        example_atlas().save(&fixture).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path());
    for name in ["atlas.json", "maps.safetensors", "hashes.json", "images/00005.jpg"] {
        assert_eq!(fs::read(fixture.join(name)).unwrap(), fs::read(path.join(name)).unwrap(), "{name}");
    }
}

/// What docs/formats-atlas.md says about the maps, without our reader.
#[test]
fn maps_are_read_as_the_format_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path());
    let index: serde_json::Value = serde_json::from_slice(&fs::read(path.join("atlas.json")).unwrap()).unwrap();
    let bytes = fs::read(path.join("maps.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let meta: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = 8 + header + meta["heat"]["data_offsets"][0].as_u64().unwrap() as usize;
    let hit = &index["latents"][0]["images"][0];
    let image = &index["images"][hit["image"].as_u64().unwrap() as usize];
    let [rows, columns] = [0, 1].map(|i| image["grid"][i].as_u64().unwrap() as usize);
    let map = start + 4 * hit["map"].as_u64().unwrap() as usize;
    let heat: Vec<f32> = bytes[map..map + 4 * rows * columns]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let [row, column] = [0, 1].map(|i| hit["peak"][i].as_u64().unwrap() as usize);
    assert_eq!(f64::from(heat[row * columns + column]), hit["value"].as_f64().unwrap());
    assert_eq!(heat.iter().filter(|&&h| h > 0.0).count(), 1);
    for key in ["label", "reason", "purity"] {
        assert!(index["latents"][3].get(key).is_some(), "{key} is always there");
    }
}

/// A world of 30 latents, ten concepts of three latents each, 60 pictures of 16 patches. `together`: the three latents of two concepts fire
/// on one patch each; otherwise as many fire, each where it will.
fn planted(together: bool) -> (LinearCoder, MemoryStore, ConceptStates, Vec<[usize; 2]>) {
    const WIDTH: usize = 30;
    let coder = LinearCoder::axes(WIDTH);
    let mut numbers = Numbers(5);
    let mut made = random_pairs(60, WIDTH, 9);
    let mut shown = Vec::new();
    for pair in &mut made {
        let patches = pair.vision.len() / WIDTH;
        pair.vision.fill(0.0);
        let concepts = [numbers.below(10), numbers.below(10)];
        for concept in concepts {
            let place = numbers.below(patches);
            for part in 0..3 {
                let patch = if together { place } else { numbers.below(patches) };
                pair.vision[patch * WIDTH + 3 * concept + part] = 1.0;
            }
        }
        // Everything else fires now and then as well.
        for _ in 0..4 {
            pair.vision[numbers.below(patches) * WIDTH + numbers.below(WIDTH)] = 1.0;
        }
        shown.push(concepts);
    }
    let mut states = vec![0.0; 10 * WIDTH];
    (0..30).for_each(|at| states[(at / 3) * WIDTH + at] = 1.0);
    let library = ConceptStates {
        names: (0..10).map(|c| format!("concept {c}")).collect(),
        categories: Vec::new(),
        lengths: vec![1; 10],
        states,
        pooled: (0..100).map(|i| f32::from(u8::from(i / 10 == i % 10))).collect(),
    };
    (coder, store(WIDTH, &made), library, shown)
}

#[test]
fn a_false_discovery_rate_finds_what_is_there_and_nothing_in_noise() {
    let options = InterpretOptions { fdr: Some(0.05), min_hits: 3, ..InterpretOptions::default() };
    let (coder, pictures, library, shown) = planted(true);
    let atlas = interpret(&coder, &pictures, &library, &options, &Silent).unwrap();
    let found = atlas.index.false_discovery.unwrap();
    assert!(found.above_by_chance as f64 <= 0.05 * found.above as f64, "{found:?}");
    // Two concepts a picture, sometimes the same one twice.
    let present: usize = shown.iter().map(|[a, b]| 1 + usize::from(a != b)).sum();
    assert!(
        found.above as f64 > 0.95 * present as f64 && found.above as f64 <= 1.1 * present as f64,
        "{found:?} {present}"
    );
    assert!(atlas.index.latents.iter().filter(|latent| latent.label.is_some()).count() >= 10);

    let (coder, pictures, library, _) = planted(false);
    let atlas = interpret(&coder, &pictures, &library, &options, &Silent).unwrap();
    assert!(atlas.index.latents.iter().all(|latent| latent.label.is_none()), "{:?}", atlas.index.false_discovery);
    // The quantile, which knows nothing of chance, names latents in noise as well.
    let quantile = InterpretOptions { fdr: None, quantile: 0.5, ..options };
    let atlas = interpret(&coder, &pictures, &library, &quantile, &Silent).unwrap();
    assert!(atlas.index.latents.iter().any(|latent| latent.label.is_some()));
}

#[test]
fn a_rate_that_is_none_is_refused() {
    for (fdr, threshold) in [(Some(0.0), None), (Some(1.0), None), (Some(f64::NAN), None), (Some(0.1), Some(0.5))] {
        let options = InterpretOptions { fdr, threshold, ..InterpretOptions::default() };
        let error = interpret(&coder(), &pictures(), &library(), &options, &Silent).unwrap_err();
        assert_eq!(error.code(), "E_OPTION");
    }
}
