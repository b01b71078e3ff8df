//! Probing: what a perfect dictionary gives, what a blind one gives, and the controls.
#![allow(clippy::unwrap_used)]

mod common;

use common::{LinearCoder, Made, store, word_spans};
use lucid_data::ScenesSpec;
use lucid_data::progress::Silent;
use lucid_data::scenes::{SceneOptions, Split, concepts, edited};
use lucid_data::store::{ActivationSource, MemoryStore};
use lucid_interpret::{ProbeOptions, Probed, Probing, ScenesTruth, TruthSource, probe, stability};

/// Edited scenes whose states are their own truth: the share of each concept of a patch, the concept that a word names.
fn scenes(pairs: usize, seed: u64) -> (MemoryStore, ScenesSpec) {
    let width = concepts().len();
    let options = SceneOptions::default();
    let made: Vec<Made> = (0..pairs)
        .map(|pair| {
            let (before, after, _) = edited(seed, pair as u64 / 2, &options);
            let scene = if pair % 2 == 0 { before } else { after };
            let mut vision = vec![0.0; 196 * width];
            for patch in 0..196 {
                for (concept, share) in scene.truth.patch_concepts(patch) {
                    vision[patch * width + concept.id] = share;
                }
            }
            let words = &scene.truth.words;
            let mut text = vec![0.0; words.len() * width];
            for (token, word) in words.iter().enumerate() {
                if let Some(concept) = word.concept.filter(|concept| concept.id < width) {
                    text[token * width + concept.id] = 1.0;
                }
            }
            Made {
                key: format!("scene-{seed}-{pair}"),
                grid: [14, 14],
                vision,
                boxes: Vec::new(),
                kinds: vec![0; words.len()],
                spans: word_spans(&scene.caption),
                caption: scene.caption,
                text,
                size: Some([112, 112]),
                thumbnail: None,
            }
        })
        .collect();
    (store(width, &made), ScenesSpec { pairs, seed, split: Split::Train, edits: true })
}

fn probed(coder: &LinearCoder, fit: usize, test: usize) -> Probing {
    let (fitted, tested) = (scenes(fit, 1), scenes(test, 2));
    let truths = [ScenesTruth::new(&fitted.0, &fitted.1), ScenesTruth::new(&tested.0, &tested.1)];
    let fit = Probed { source: &fitted.0, truth: Some(&truths[0] as &dyn TruthSource) };
    let test = Probed { source: &tested.0, truth: Some(&truths[1] as &dyn TruthSource) };
    probe(coder, fit, test, &ProbeOptions { seed: 3, bootstrap: 60 }, &Silent).unwrap()
}

#[test]
fn a_perfect_dictionary_knows_every_concept() {
    let found = probed(&LinearCoder::axes(concepts().len()), 400, 240);
    assert_eq!((found.labels.as_str(), found.fitted, found.tested), ("truth", 400, 240));
    for (name, probes) in [("vision", &found.probes.vision), ("text", &found.probes.text)] {
        let probes = probes.as_ref().unwrap();
        assert_eq!(probes.concepts.len(), 33, "{name}");
        let mean = probes.mean;
        // The latent of a concept fires where it is, and nowhere else.
        assert!(mean.one > 0.9999 && mean.codes > 0.98 && mean.states > 0.98, "{name}: {mean:?}");
        assert!((mean.shuffled - 0.5).abs() < 0.1 && (mean.one_shuffled - 0.5).abs() < 0.1, "{name}: {mean:?}");
        assert_eq!((probes.split, probes.silent, probes.absorbed), (1.0, Some(0.0), Some(0.0)), "{name}");
        assert!(probes.silent_shuffled.unwrap() > 0.5, "{name}");
        let [low, high] = found.intervals[&format!("probes.{name}.mean.codes")];
        assert!(low <= mean.codes && mean.codes <= high, "{name}: {low} … {high}");
    }
    for (kind, score) in &found.classification {
        assert!(score.codes > 0.85 && score.bottleneck > 0.9, "{kind}: {score:?}");
        assert!(score.zero_shot.unwrap() > 0.95 && score.zero_shot_shuffled.unwrap() < 0.4, "{kind}: {score:?}");
        assert_eq!(score.chance, 1.0 / score.classes as f64);
    }
    assert_eq!(found.classification.len(), 5, "{:?}", found.skipped);
    let zero_shot = found.zero_shot.unwrap();
    assert!(zero_shot.auc > 0.95 && zero_shot.shuffled < 0.65, "{zero_shot:?}");
    let all = found.edits["all"];
    assert_eq!(all.edits, 120);
    assert!(all.rises > 0.9 && all.falls > 0.9 && all.on_target > 0.75, "{all:?}");
    assert!(all.shuffled.rises < 0.4 && all.shuffled.on_target < 0.45, "{all:?}");
    assert_eq!(found.edits.values().map(|score| score.edits).sum::<u64>(), 240);
}

#[test]
fn a_dictionary_without_a_concept_is_silent_about_it() {
    // Latent 0's concept is left out; the first shape's axis takes its place in nothing.
    let width = concepts().len();
    let mut coder = LinearCoder::axes(width);
    for atoms in &mut coder.atoms {
        atoms[..width].fill(0.0);
    }
    let found = probed(&coder, 400, 240);
    let probes = found.probes.vision.unwrap();
    let first = probes.concepts.iter().find(|concept| concept.name == concepts()[0].name).unwrap();
    assert!(first.auc.states > 0.97 && first.auc.one < 0.8, "{:?}", first.auc);
    assert!(!first.latents.contains(&0));
    let others: Vec<_> = probes.concepts.iter().filter(|concept| concept.name != first.name).collect();
    assert!(others.iter().all(|concept| concept.auc.one > 0.999));
}

#[test]
fn what_two_latents_carry_together_is_split() {
    // The first concept's axis by two latents: one where the second concept is stronger, one where it is not.
    let width = concepts().len();
    let mut coder = LinearCoder::axes(width);
    let second = concepts().iter().position(|c| c.kind != concepts()[0].kind).unwrap();
    for atoms in &mut coder.atoms {
        let mut extra = vec![0.0; width];
        extra[0] = 1.0;
        extra[second] = -3.0;
        atoms[second] = -2.0;
        atoms.extend(extra);
    }
    coder.d_shared = width + 1;
    coder.k = [width + 1, 0];
    let found = probed(&coder, 400, 240).probes.vision.unwrap();
    let first = found.concepts.iter().find(|concept| concept.name == concepts()[0].name).unwrap();
    assert!(first.auc.five >= first.auc.one - 1e-3, "{:?}", first.auc);
    assert!(first.latents.contains(&0) || first.latents.contains(&(width as u32)), "{:?}", first.latents);
}

#[test]
fn sets_that_know_nothing_are_refused() {
    let (bare, _) = scenes(6, 1);
    let coder = LinearCoder::axes(concepts().len());
    let set = Probed { source: &bare, truth: None };
    let error = probe(&coder, set, set, &ProbeOptions::default(), &Silent).unwrap_err();
    assert_eq!(error.code(), "E_SHAPE");
    assert!(error.to_string().contains("boxes with categories"), "{error}");
    let (one, spec) = scenes(1, 1);
    let truth = ScenesTruth::new(&one, &spec);
    let single = Probed { source: &one, truth: Some(&truth) };
    assert_eq!(probe(&coder, single, single, &ProbeOptions::default(), &Silent).unwrap_err().code(), "E_SHAPE");
    let wide = LinearCoder::axes(3);
    let (some, spec) = scenes(4, 1);
    let truth = ScenesTruth::new(&some, &spec);
    let set = Probed { source: &some, truth: Some(&truth) };
    assert_eq!(probe(&wide, set, set, &ProbeOptions::default(), &Silent).unwrap_err().code(), "E_SHAPE");
    assert_eq!(some.pairs(), 4);
}

#[test]
fn the_same_latents_in_another_order_are_found_again() {
    let width = 24;
    let axes = LinearCoder::axes(width);
    let order: Vec<usize> = (0..width).map(|i| (7 * i + 3) % width).collect();
    let mut permuted = axes.clone();
    for atoms in &mut permuted.atoms {
        let rows: Vec<Vec<f32>> = order.iter().map(|&from| atoms[from * width..][..width].to_vec()).collect();
        *atoms = rows.concat();
    }
    let found = stability(&axes, &permuted, None, &Silent).unwrap();
    assert_eq!((found.latents, found.matched.mean, found.matched.same), ([24, 24], 1.0, 1.0));
    assert!(found.random.mean < 0.5 && found.random.same < 0.1, "{:?}", found.random);
    for pair in &found.pairs {
        assert_eq!(order[pair.other as usize], pair.latent as usize);
        assert_eq!((pair.vision, pair.text), (1.0, 1.0));
    }
    // A smaller model is matched whole, whichever comes first.
    let mut few = axes.clone();
    few.atoms.iter_mut().for_each(|atoms| atoms.truncate(10 * width));
    few.d_shared = 10;
    for (first, second, expected) in [(&few, &permuted, [10, 24]), (&permuted, &few, [24, 10])] {
        let found = stability(first, second, None, &Silent).unwrap();
        assert_eq!((found.latents, found.pairs.len(), found.matched.mean), (expected, 10, 1.0));
    }
    // A latent that agrees in one modality only is half the same.
    let mut swapped = axes.clone();
    swapped.atoms[1].rotate_left(width);
    let half = stability(&axes, &swapped, None, &Silent).unwrap();
    assert!((half.matched.mean - 0.5).abs() < 1e-9 && half.matched.same == 0.0, "{:?}", half.matched);
    assert_eq!(stability(&axes, &LinearCoder::axes(5), None, &Silent).unwrap_err().code(), "E_SHAPE");
}
