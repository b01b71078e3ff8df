//! Recovery of known concepts: 1 for the right dictionary, chance for a random one.
#![allow(clippy::unwrap_used)]

mod common;

use common::{LinearCoder, Made, Numbers, store, without_interval, word_spans};
use lucid_data::progress::Silent;
use lucid_data::scenes::{ConceptKind, Kind, Split, concept_of, concepts, scene};
use lucid_data::store::MemoryStore;
use lucid_data::{BoxAnnotation, ScenesSpec};
use lucid_interpret::recovery::truth::{Link, MemoryTruth, PairTruth, TruthConcept};
use lucid_interpret::{EvaluateOptions, Evaluation, ScenesTruth, evaluate};

const CONCEPTS: usize = 20;

/// Pairs whose states are one axis a concept: four patches show a concept each, the text names them in turn.
fn world(pairs: usize) -> (MemoryStore, MemoryTruth) {
    let mut numbers = Numbers(5);
    let mut truth = MemoryTruth {
        concepts: (0..CONCEPTS)
            .map(|c| TruthConcept {
                name: format!("c{c}"),
                kind: if c < 5 { "few" } else { "many" }.into(),
                words: vec![format!("c{c}")],
            })
            .collect(),
        pairs: Vec::new(),
    };
    let mut made = Vec::new();
    for pair in 0..pairs {
        let shown: Vec<usize> = (0..4).map(|_| numbers.below(CONCEPTS)).collect();
        let states = |numbers: &mut Numbers| -> Vec<f32> {
            let mut states = vec![0.0; 4 * CONCEPTS];
            shown.iter().enumerate().for_each(|(i, c)| states[i * CONCEPTS + c] = 1.2 + 0.1 * numbers.next());
            states
        };
        let tokens: Vec<Vec<(u32, f32)>> = shown.iter().map(|&c| vec![(c as u32, 1.0)]).collect();
        let patches_of =
            |concept: usize| (0..4u32).filter(|&p| shown[p as usize] == concept).map(|p| (p, 1.0)).collect();
        truth.pairs.push(PairTruth {
            patches: tokens.clone(),
            links: (0..4).map(|t| Link { token: t, concept: shown[t] as u32, patches: patches_of(shown[t]) }).collect(),
            tokens,
        });
        let caption = "a b c d";
        made.push(Made {
            key: format!("{pair}"),
            grid: [2, 2],
            vision: states(&mut numbers),
            caption: caption.into(),
            text: states(&mut numbers),
            kinds: vec![0; 4],
            spans: word_spans(caption),
            boxes: Vec::new(),
            size: None,
            thumbnail: None,
        });
    }
    (store(CONCEPTS, &made), truth)
}

fn evaluated(coder: &LinearCoder) -> Evaluation {
    let (store, truth) = world(120);
    evaluate(coder, &store, &EvaluateOptions::default(), Some(&truth), &Silent).unwrap()
}

/// The axes in another order for the text.
fn permuted(seed: u64) -> LinearCoder {
    let mut order: Vec<usize> = (0..CONCEPTS).collect();
    let mut numbers = Numbers(seed);
    (1..CONCEPTS).rev().for_each(|i| order.swap(i, numbers.below(i + 1)));
    let mut coder = LinearCoder::axes(CONCEPTS);
    let axes = coder.atoms[1].clone();
    coder.atoms[1] = order.iter().flat_map(|&axis| axes[axis * CONCEPTS..(axis + 1) * CONCEPTS].to_vec()).collect();
    coder
}

#[test]
fn the_right_dictionary_has_identity_one() {
    let truth = evaluated(&LinearCoder::axes(CONCEPTS)).truth.unwrap();
    assert_eq!((truth.identity_rate, truth.identity_chance), (Some(1.0), Some(0.0)));
    assert!(truth.mcc.vision.unwrap() > 0.99 && truth.mcc.text.unwrap() > 0.99, "{:?}", truth.mcc);
    assert!(truth.plan_mass.unwrap() > 0.95 && truth.transport_accuracy == Some(1.0));
    let uniform = truth.plan_mass_uniform.unwrap();
    assert!(uniform > 0.25 && uniform < 0.35, "{uniform}");
    for (latent, concept) in truth.concepts.iter().enumerate() {
        assert_eq!(concept.vision.unwrap().latent as usize, latent);
    }
    assert_eq!((truth.kinds["few"].concepts, truth.kinds["many"].concepts), (5, 15));
    assert_eq!(truth.kinds["few"].words + truth.kinds["many"].words, 480);
}

#[test]
fn random_dictionaries_have_identity_at_chance() {
    let seeds = 40u64;
    let (mut rate, mut chance) = (0.0, 0.0);
    for seed in 0..seeds {
        let truth = evaluated(&permuted(seed)).truth.unwrap();
        // MCC looks at one modality at a time and does not mind the order.
        assert!(truth.mcc.text.unwrap() > 0.99);
        rate += truth.identity_rate.unwrap() / seeds as f64;
        chance += truth.identity_chance.unwrap() / seeds as f64;
    }
    // Fixed points of a random permutation: 1 of 20 expected, with a deviation of 1/20 a draw.
    assert!((rate - 0.05).abs() < 4.0 * 0.05 / (seeds as f64).sqrt(), "{rate}");
    assert!((chance - 0.05).abs() < 0.02, "{chance}");
}

#[test]
fn one_latent_for_everything_makes_chance_one() {
    let mut coder = LinearCoder::axes(CONCEPTS);
    // Latent 0 is the sum of everything with falling weights; no other latent exists.
    let blunt: Vec<f32> = (0..CONCEPTS).map(|c| 1.0 + c as f32).collect();
    coder.atoms = [0, 1].map(|_| blunt.clone());
    coder.d_shared = 1;
    coder.k = [1, 0];
    let truth = evaluated(&coder).truth.unwrap();
    let known = truth.concepts.iter().filter(|c| c.vision.is_some() && c.text.is_some()).count();
    assert!(known >= 5, "{known}");
    let (rate, chance) = (truth.identity_rate.unwrap(), truth.identity_chance.unwrap());
    assert!(rate > 0.2 && (rate - known as f64 / CONCEPTS as f64).abs() < 1e-12, "{rate}");
    assert!((chance - rate * (known as f64 - 1.0) / (CONCEPTS as f64 - 1.0)).abs() < 1e-12, "{chance} beside {rate}");
}

#[test]
fn truth_that_does_not_fit_is_refused() {
    let (store, mut truth) = world(3);
    truth.pairs[1].tokens.pop();
    let evaluate = |truth: &MemoryTruth| {
        evaluate(&LinearCoder::axes(CONCEPTS), &store, &EvaluateOptions::default(), Some(truth), &Silent)
    };
    let error = evaluate(&truth).unwrap_err();
    assert_eq!(error.code(), "E_SHAPE");
    assert!(error.to_string().contains("pair '1'"), "{error}");
    truth.pairs.truncate(1);
    assert_eq!(evaluate(&truth).unwrap_err().code(), "E_SHAPE");
}

/// Scenes whose states are their own truth: a patch's state is the share of each of the 33 concepts, a word's the
/// concept it names.
fn scenes(pairs: u64, seed: u64) -> MemoryStore {
    let width = concepts().len();
    let made: Vec<Made> = (0..pairs)
        .map(|index| {
            let scene = scene(seed, index, Split::Train, Kind::Random);
            let mut vision = vec![0.0; 196 * width];
            for patch in 0..196 {
                for (concept, share) in scene.truth.patch_concepts(patch) {
                    vision[patch * width + concept.id] = share;
                }
            }
            let words = &scene.truth.words;
            let mut text = vec![0.0; (words.len() + 1) * width];
            for (token, word) in words.iter().enumerate() {
                if let Some(concept) = word.concept.filter(|concept| concept.id < width) {
                    text[token * width + concept.id] = 1.0;
                }
            }
            let mut spans: Vec<[u32; 2]> = words.iter().map(|word| word.span.map(|at| at as u32)).collect();
            spans.push([0, 0]);
            let mut kinds = vec![0; words.len()];
            kinds.push(1);
            let boxed = |o: &lucid_data::scenes::ObjectTruth| {
                let [x, y, width, height] = o.bbox.map(f64::from);
                let name = concept_of(ConceptKind::Shape, o.shape.index()).name;
                BoxAnnotation { x, y, width, height, category: Some(name.into()), ..Default::default() }
            };
            Made {
                key: format!("scene-{seed}-{index}"),
                grid: [14, 14],
                vision,
                boxes: scene.truth.objects.iter().map(boxed).collect(),
                caption: scene.caption,
                text,
                kinds,
                spans,
                size: Some([112, 112]),
                thumbnail: None,
            }
        })
        .collect();
    store(width, &made)
}

fn spec(pairs: usize, seed: u64) -> ScenesSpec {
    ScenesSpec { pairs, seed, split: Split::Train, edits: false }
}

#[test]
fn scenes_give_the_truth_of_patches_words_and_links() {
    let store = scenes(60, 4);
    let coder = LinearCoder::axes(concepts().len());
    let truth = ScenesTruth::new(&store, &spec(60, 4));
    let evaluation = evaluate(&coder, &store, &EvaluateOptions::default(), Some(&truth), &Silent).unwrap();
    let recovered = evaluation.truth.clone().unwrap();
    assert_eq!((recovered.identity_rate, recovered.identity_chance), (Some(1.0), Some(0.0)));
    assert!(recovered.mcc.vision.unwrap() > 0.999 && recovered.mcc.text.unwrap() > 0.999, "{:?}", recovered.mcc);
    for kind in ["color", "pattern", "size", "shape", "background"] {
        let found = &recovered.kinds[kind];
        assert_eq!(found.identity_rate, Some(1.0), "{kind}");
        let (mass, uniform) = (found.plan_mass.unwrap(), found.plan_mass_uniform.unwrap());
        assert!(found.words > 5 && mass > uniform + 0.05, "{kind}: {mass} against {uniform}");
    }
    // An object of a scene covers about a tenth of it, its background the rest.
    let uniform = |kind: &str| recovered.kinds[kind].plan_mass_uniform.unwrap();
    assert!(uniform("color") > 0.04 && uniform("color") < 0.2, "{}", uniform("color"));
    assert!(uniform("background") > 0.6, "{}", uniform("background"));
    let best = &evaluation.grounding["plan-max"]["best"];
    assert!(best.score.point_at1 > best.controls.shuffled_caption.unwrap().point_at1, "{best:?}");
    // A mask is smaller than its box, and patches that show a concept lie in it.
    for (map, targets) in &evaluation.grounding {
        for (target, boxed) in targets {
            let masked = &evaluation.mask_grounding[map][target];
            assert_eq!((masked.images, masked.queries), (boxed.images, boxed.queries));
            assert!(masked.controls.uniform.mass_at_obj < boxed.controls.uniform.mass_at_obj, "{map} {target}");
            assert!(masked.score.mass_at_obj <= boxed.score.mass_at_obj + 1e-9, "{map} {target}");
        }
    }
    let (boxed, masked) = (&evaluation.grounding["code"]["best"], &evaluation.mask_grounding["code"]["best"]);
    let gain = |of: &lucid_interpret::evaluation::Grounding| of.score.mass_at_obj / of.controls.uniform.mass_at_obj;
    assert!(gain(masked) > gain(boxed), "{masked:?} {boxed:?}");
    assert_eq!(without_interval(&evaluation), Vec::<String>::new());
    let found = &recovered.kinds["color"];
    for (path, value) in [
        ("truth.planMass", recovered.plan_mass),
        ("truth.transportAccuracy", recovered.transport_accuracy),
        ("truth.kinds.color.planMass", found.plan_mass),
        ("truth.kinds.color.transportAccuracy", found.transport_accuracy),
        ("truth.kinds.color.identityRate", found.identity_rate),
        ("truth.kinds.color.correlation.vision", found.correlation.vision),
        ("truth.identityRate", recovered.identity_rate),
        ("truth.mcc.vision", recovered.mcc.vision),
        ("truth.mcc.text", recovered.mcc.text),
    ] {
        let ([low, high], value) = (evaluation.intervals[path], value.unwrap());
        assert!(
            low <= value + 1e-5 && value <= high + 1e-5 && (high > low || (value - 1.0).abs() < 1e-12),
            "{path}: {low} {value} {high}"
        );
    }
}

#[test]
fn the_truth_of_other_scenes_is_refused() {
    let store = scenes(3, 4);
    let truth = ScenesTruth::new(&store, &spec(3, 5));
    let coder = LinearCoder::axes(concepts().len());
    let error = evaluate(&coder, &store, &EvaluateOptions::default(), Some(&truth), &Silent).unwrap_err();
    assert_eq!(error.code(), "E_SHAPE");
    assert!(error.to_string().contains("seed 5"), "{error}");
}
