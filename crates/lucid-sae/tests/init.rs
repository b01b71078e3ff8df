//! Where training starts, seen through a run that makes no step worth speaking of.
#![allow(clippy::unwrap_used)]

mod support;

use lucid_data::store::{ActivationSource, CaptionActivations, MemoryStore, PairActivations};
use lucid_kernels::Modality;
use lucid_sae::config::Initialise;
use lucid_sae::init::initialise;
use lucid_sae::params::{HostParams, transpose};
use lucid_sae::{Config, Normalisation, Preset};
use support::{Recorder, synthetic, tiny};

fn start(config: &Config, store: &MemoryStore, observer: &Recorder) -> HostParams<f32> {
    let statistics = store.statistics();
    let normalisation = Normalisation::from_statistics(config, &statistics).unwrap();
    initialise(config, store, &statistics, &normalisation, observer).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn rows_have_norm_one_and_a_tied_encoder_is_a_copy() {
    let store = synthetic(1, 60, 9, 12, 10).store;
    // More latents than principal components: the rest are zero rows.
    for preset in Preset::ALL.into_iter().filter(|preset| *preset != Preset::Pca) {
        let config = Config { d_shared: 14, d_private: 10, ..preset.config() };
        let params = start(&config, &store, &Recorder::default());
        for modality in Modality::ALL {
            let p = params.of(modality);
            for row in p.w_dec.chunks_exact(p.d) {
                let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
                // d roundings to f32.
                assert!((norm - 1.0).abs() < 1e-6, "{norm}");
            }
            assert_eq!(p.w_enc == transpose(&p.w_dec, p.latents, p.d), config.tied_init, "{}", preset.name());
            assert!(p.b_enc.iter().all(|b| *b == 0.0));
        }
    }
}

#[test]
fn a_paired_start_ties_its_shared_latents_even_where_tying_is_off() {
    let store = synthetic(1, 60, 9, 12, 10).store;
    let config = Config { tied_init: false, d_shared: 8, d_private: 6, ..tiny() };
    let params = start(&config, &store, &Recorder::default());
    let p = &params.vision;
    let encoder = transpose(&p.w_enc, p.d, p.latents);
    assert_eq!(encoder[..8 * p.d], p.w_dec[..8 * p.d]);
    for latent in 8..14 {
        let rows = latent * p.d..(latent + 1) * p.d;
        assert!(cosine(&encoder[rows.clone()], &p.w_dec[rows]) < 0.999);
    }
}

#[test]
fn paired_atoms_are_the_concepts_under_one_index() {
    let data = synthetic(1, 400, 9, 24, 20);
    for initialise in [Initialise::Paired, Initialise::Coactivation] {
        let config = Config { d_shared: 9, d_private: 4, k_private: 2, initialise, ..tiny() };
        let params = start(&config, &data.store, &Recorder::default());
        let nearest = |atoms: &[f32], d: usize, concept: &[f32]| {
            let cosines: Vec<f32> = atoms.chunks_exact(d).take(9).map(|atom| cosine(atom, concept)).collect();
            (0..9).max_by(|a, b| cosines[*a].total_cmp(&cosines[*b])).unwrap()
        };
        let same = (0..9).filter(|c| {
            nearest(&params.vision.w_dec, 24, &data.vision[*c]) == nearest(&params.text.w_dec, 20, &data.text[*c])
        });
        assert_eq!(same.count(), 9, "each of nine concepts has its own latent, the same in both modalities");
    }
}

/// Pairs of two tokens: the background's, and one for a concept that shows on one patch in thirty. The background's
/// patches move far more than the concept's, so the mean patch says little about it.
fn rare_on_patches() -> (MemoryStore, Vec<Vec<f32>>) {
    const D: usize = 16;
    let mut store = MemoryStore::new(D, D).unwrap();
    let mut random = lucid_data::scenes::Stream::new(5, 0, 0);
    let axis = |k: usize| (0..D).map(|i| f32::from(u8::from(i == k))).collect::<Vec<f32>>();
    for pair in 0..240 {
        let (background, concept) = (pair % 3, 3 + (pair / 3) % 5);
        let mut vision = Vec::new();
        for patch in 0..30 {
            let mut state: Vec<f32> = (0..D).map(|_| 0.05 * (random.unit() - 0.5)).collect();
            let strength = random.between(1.0, 3.0);
            state.iter_mut().zip(axis(background)).for_each(|(x, a)| *x += strength * a);
            if patch == pair % 30 {
                state.iter_mut().zip(axis(concept)).for_each(|(x, a)| *x += a);
            }
            vision.extend(state);
        }
        let text = [axis(background), axis(concept)].concat();
        let captions = [CaptionActivations { text: "", states: &text, ids: &[], kinds: &[], spans: &[] }];
        let key = format!("{pair}");
        store
            .push(&PairActivations {
                key: &key,
                vision: &vision,
                vision_grid: [5, 6],
                captions: &captions,
                size: None,
                boxes: &[],
                thumbnail: None,
            })
            .unwrap();
    }
    (store, (3..8).map(axis).collect())
}

#[test]
fn coactive_atoms_are_what_the_few_patches_have_in_common() {
    let (store, concepts) = rare_on_patches();
    let mean_cosine = |initialise| {
        let config = Config { d_shared: 8, d_private: 4, k_private: 2, initialise, ..tiny() };
        let params = start(&config, &store, &Recorder::default());
        let carried: Vec<f32> = concepts
            .iter()
            .map(|concept| {
                let texts = params.text.w_dec.chunks_exact(16).take(8);
                let best = texts.enumerate().max_by(|a, b| cosine(a.1, concept).total_cmp(&cosine(b.1, concept)));
                let latent = best.unwrap().0;
                cosine(&params.vision.w_dec[latent * 16..(latent + 1) * 16], concept)
            })
            .collect();
        carried.iter().sum::<f32>() / carried.len() as f32
    };
    let (paired, coactive) = (mean_cosine(Initialise::Paired), mean_cosine(Initialise::Coactivation));
    println!("cosine of a word's vision atom with its concept: paired {paired:.2}, coactivation {coactive:.2}");
    assert!(coactive > 0.8 && coactive > paired, "{paired} {coactive}");
}

#[test]
fn the_start_depends_on_the_seed_and_not_on_threads() {
    let store = synthetic(1, 60, 9, 12, 10).store;
    for initialise in [Initialise::Paired, Initialise::Coactivation] {
        let config = Config { initialise, ..tiny() };
        let expected = start(&config, &store, &Recorder::default());
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| start(&config, &store, &Recorder::default())) == expected);
        }
    }
    let random = |seed| start(&Config { initialise: Initialise::Random, seed, ..tiny() }, &store, &Recorder::default());
    assert!(random(1) != random(2));
    let largest = random(1)
        .vision
        .w_dec
        .chunks_exact(12)
        .zip(random(2).vision.w_dec.chunks_exact(12))
        .map(|(a, b)| cosine(a, b).abs())
        .fold(0.0, f32::max);
    assert!(largest < 0.99, "two seeds share a row");
}

#[test]
fn the_bias_starts_at_the_mean_in_normalised_units() {
    let store = synthetic(1, 60, 9, 12, 10).store;
    let statistics = store.statistics();
    let with = |center, bias_from_mean| {
        let config = Config { center, bias_from_mean, initialise: Initialise::Random, ..tiny() };
        (start(&config, &store, &Recorder::default()).vision.b_dec, config)
    };
    assert!(with(true, true).0.iter().chain(&with(false, false).0).all(|b| *b == 0.0));
    let (bias, config) = with(false, true);
    let scale = f64::from(Normalisation::from_statistics(&config, &statistics).unwrap().vision.scale);
    for (bias, mean) in bias.iter().zip(&statistics.mean_vision) {
        assert!((f64::from(*bias) - mean * scale).abs() < 1e-6);
    }
    assert!((scale - statistics.mean_square.vision.sqrt().recip()).abs() < 1e-6 * scale);
}

#[test]
fn too_few_directions_leave_the_rest_random_and_say_so() {
    // Two distinct tokens in all, one a caption: two directions about their mean, and the same pictures again and again.
    let mut store = MemoryStore::new(3, 2).unwrap();
    for pair in 0..6 {
        let kind = pair % 2;
        let states = [[1.0, 0.2], [0.1, 1.0]][kind];
        let captions = [CaptionActivations { text: "", states: &states, ids: &[], kinds: &[], spans: &[] }];
        let key = format!("{pair}");
        store
            .push(&PairActivations {
                key: &key,
                vision: &[[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]][kind],
                vision_grid: [1, 1],
                captions: &captions,
                size: None,
                boxes: &[],
                thumbnail: None,
            })
            .unwrap();
    }
    let observer = Recorder::default();
    let config = Config { d_shared: 5, d_private: 0, k_shared: 2, k_private: 0, ..Config::default() };
    let params = start(&config, &store, &observer);
    assert_eq!(observer.warnings(), ["W_FEW_DIRECTIONS"]);
    // Two opposite directions about the mean, then random ones.
    assert!(cosine(&params.text.w_dec[..2], &params.text.w_dec[2..4]) < -0.999);
    assert!(cosine(&params.vision.w_dec[..3], &params.vision.w_dec[3..6]) < -0.999);
    let random = start(&Config { initialise: Initialise::Random, ..config }, &store, &Recorder::default());
    assert_eq!(params.text.w_dec[4..], random.text.w_dec[4..]);
}

#[test]
fn captions_that_pool_to_the_same_state_cannot_be_paired() {
    let mut store = MemoryStore::new(2, 2).unwrap();
    for pair in 0..4 {
        let captions =
            [CaptionActivations { text: "", states: &[1.0, 0.1, 0.2, 0.9], ids: &[], kinds: &[], spans: &[] }];
        let (key, vision) = (format!("{pair}"), [pair as f32, 1.0, 0.5, -1.0]);
        store
            .push(&PairActivations {
                key: &key,
                vision: &vision,
                vision_grid: [1, 2],
                captions: &captions,
                size: None,
                boxes: &[],
                thumbnail: None,
            })
            .unwrap();
    }
    let observer = Recorder::default();
    let config = Config { d_shared: 4, d_private: 0, k_shared: 2, k_private: 0, ..Config::default() };
    let params = start(&config, &store, &observer);
    assert_eq!(observer.warnings(), ["W_UNPAIRED"]);
    let random = start(&Config { initialise: Initialise::Random, ..config }, &store, &Recorder::default());
    assert!(params == random);
}
