//! Laws that every metric obeys (spec 9), on a model made by hand.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Mutex;

use common::{LinearCoder, Made, random_pairs, store, without_interval};
use lucid_data::PixelMask;
use lucid_data::progress::{Observer, Silent};
use lucid_data::store::AnnotatedSource;
use lucid_interpret::{
    Coder, EvaluateOptions, Evaluation, InterpretError, PairPlan, SparseCodes, cross_ceiling, evaluate,
};
use lucid_kernels::{Block, Modality};
use serde_json::Value;

const D: usize = 6;

fn run(coder: &dyn Coder, source: &dyn AnnotatedSource, options: &EvaluateOptions) -> Evaluation {
    evaluate(coder, source, options, None, &Silent).unwrap()
}

fn all_maps() -> EvaluateOptions {
    EvaluateOptions {
        heatmaps: ["plan-max", "code", "concept", "plan-sum"].map(String::from).to_vec(),
        ..EvaluateOptions::default()
    }
}

/// Reconstructs nothing but the bias.
fn blind(pairs: &[Made]) -> LinearCoder {
    let mut coder = LinearCoder::axes(D);
    coder.k = [0, 0];
    for (side, states) in [|p: &Made| p.vision.clone(), |p: &Made| p.text.clone()].iter().enumerate() {
        let rows: Vec<f32> = pairs.iter().flat_map(states).collect();
        let mean =
            |dim: usize| rows.iter().skip(dim).step_by(D).map(|&h| f64::from(h)).sum::<f64>() / (rows.len() / D) as f64;
        coder.bias[side] = (0..D).map(|dim| mean(dim) as f32).collect();
    }
    coder
}

#[test]
fn perfect_reconstruction_is_one_and_the_mean_is_zero() {
    let pairs = random_pairs(7, D, 1);
    let perfect = run(&LinearCoder::signed_axes(D), &store(D, &pairs), &EvaluateOptions::default());
    for (r2, fvu) in [(&perfect.r2.vision, &perfect.fvu.vision), (&perfect.r2.text, &perfect.fvu.text)] {
        let (r2, fvu) = (r2.as_ref().unwrap(), fvu.as_ref().unwrap());
        assert!((r2.joint - 1.0).abs() < 1e-12, "{r2:?}");
        assert!(r2.shared < 1.0 && r2.private.unwrap() < r2.shared);
        assert!((r2.shared + fvu.shared - 1.0).abs() < 1e-15);
    }
    let mean = run(&blind(&pairs), &store(D, &pairs), &EvaluateOptions::default());
    let (vision, text) = (mean.r2.vision.unwrap(), mean.r2.text.unwrap());
    for value in [vision.joint, vision.shared, text.joint, text.shared] {
        assert!(value.abs() < 1e-10, "{value}");
    }
    // Nothing fires, so every plan averages biases: cross reconstruction is the mean predictor too.
    let cross = mean.cross.t2v.unwrap();
    for value in [cross.shared, cross.joint, cross.controls.uniform_plan, cross.controls.shuffled_caption.unwrap()] {
        assert!(value.abs() < 1e-10, "{value}");
    }
    assert_eq!(mean.maxfreq.unwrap().t2i, 0.0);
    assert_eq!(mean.sparsity.vision.unwrap().dead.shared, D as u64);
}

#[test]
fn nothing_depends_on_batches_or_on_the_order_of_pairs() {
    let coder = LinearCoder { k: [3, 2], ..LinearCoder::signed_axes(D) };
    let pairs = random_pairs(11, D, 2);
    let reference = run(&coder, &store(D, &pairs), &all_maps());
    assert_eq!(reference.grounding.len(), 4);
    assert_eq!(reference.grounding["code"].len(), 5);
    for batch_pairs in [1, 3, 64] {
        assert_eq!(run(&coder, &store(D, &pairs), &EvaluateOptions { batch_pairs, ..all_maps() }), reference);
    }
    let mut turned = pairs.clone();
    turned.rotate_left(4);
    turned.swap(0, 5);
    // The shuffled captions follow the keys, so even the controls keep every bit.
    assert_eq!(run(&coder, &store(D, &turned), &all_maps()), reference);
    let other_seed = run(&coder, &store(D, &pairs), &EvaluateOptions { seed: 1, ..all_maps() });
    assert_ne!(other_seed.cross.t2v.as_ref().unwrap().controls, reference.cross.t2v.as_ref().unwrap().controls);
    assert_eq!(other_seed.r2, reference.r2);
}

#[test]
fn nothing_depends_on_the_scale_of_activations() {
    let coder = LinearCoder { k: [3, 2], ..LinearCoder::signed_axes(D) };
    let pairs = random_pairs(5, D, 3);
    let reference = run(&coder, &store(D, &pairs), &all_maps());
    let mut scaled = pairs.clone();
    for pair in &mut scaled {
        // A power of two changes no bit of a mantissa.
        pair.vision.iter_mut().chain(&mut pair.text).for_each(|h| *h *= 1024.0);
    }
    let found = run(&coder, &store(D, &scaled), &all_maps());
    assert_eq!(found.r2, reference.r2);
    assert_eq!(found.cross, reference.cross);
    assert_eq!(found.grounding, reference.grounding);
    assert_eq!(found.sparsity, reference.sparsity);
}

#[test]
fn cross_reconstruction_needs_the_right_caption() {
    let coder = LinearCoder { k: [D, D], ..LinearCoder::signed_axes(D) };
    let evaluation = run(&coder, &store(D, &random_pairs(30, D, 4)), &EvaluateOptions::default());
    for cross in [evaluation.cross.t2v.unwrap(), evaluation.cross.v2t.unwrap()] {
        assert!(cross.shared > cross.controls.shuffled_caption.unwrap() + 0.1, "{cross:?}");
        assert_eq!(cross.controls.mean, 0.0);
    }
    let leak = evaluation.delta_leak;
    assert!(leak.t2v.unwrap() > 0.0 && leak.v2t.unwrap() > 0.0, "{leak:?}");
}

#[test]
fn a_ridge_map_finds_what_is_linear_and_nothing_where_nothing_is() {
    let coder = LinearCoder::signed_axes(D);
    // Every token is the mean patch with its dimensions reversed, off the origin.
    let tied = |mut pairs: Vec<Made>| {
        for pair in &mut pairs {
            let patches = pair.vision.len() / D;
            let mean = |dim: usize| pair.vision.iter().skip(dim).step_by(D).sum::<f32>() / patches as f32;
            let token: Vec<f32> = (0..D).rev().map(|dim| 2.0 * mean(dim) + 0.5).collect();
            pair.text = token.repeat(pair.kinds.len());
        }
        pairs
    };
    let ceiling = |fitted: &[Made], measured: &[Made]| {
        cross_ceiling(&coder, &store(D, fitted), &store(D, measured), &Silent).unwrap().v2t.unwrap()
    };
    let (fitted, measured) = (tied(random_pairs(200, D, 5)), tied(random_pairs(60, D, 6)));
    let linear = ceiling(&fitted, &measured);
    // λ is a hundredth of the mean variance of an input: a direction with a tenth of that variance shrinks by 1/11, and R²
    // falls by the square of it, 0.0083, at most.
    assert!(linear.pooled > 0.99 && linear.both > 0.99, "{linear:?}");
    // Another pair's words: fitted on noise, a map of 2 · 6 inputs explains nothing of other noise.
    let strange = |mut pairs: Vec<Made>| {
        let right = pairs.clone();
        for (i, pair) in pairs.iter_mut().enumerate() {
            let Made { caption, text, kinds, spans, .. } = right[(i + 3) % right.len()].clone();
            *pair = Made { caption, text, kinds, spans, boxes: Vec::new(), ..pair.clone() };
        }
        pairs
    };
    let nothing = ceiling(&strange(random_pairs(200, D, 7)), &strange(random_pairs(60, D, 8)));
    assert!(nothing.pooled < 0.05, "{nothing:?}");
    let wide = cross_ceiling(&LinearCoder::axes(D + 1), &store(D, &fitted), &store(D, &measured), &Silent);
    assert_eq!(wide.unwrap_err().code(), "E_SHAPE");
}

#[test]
fn plan_sum_is_flat_at_convergence_and_said_to_be() {
    struct Heard(Mutex<Vec<String>>);
    impl Observer for Heard {
        fn warning(&self, code: &str, _: &str) {
            self.0.lock().unwrap().push(code.to_owned());
        }
    }
    let heard = Heard(Mutex::new(Vec::new()));
    let coder = LinearCoder { iterations: 3000, ..LinearCoder::axes(D) };
    let store = store(D, &random_pairs(6, D, 5));
    let evaluation = evaluate(&coder, &store, &all_maps(), None, &heard).unwrap();
    for of_target in ["union", "largest", "best"] {
        let flat = &evaluation.grounding["plan-sum"][of_target];
        assert!((flat.score.mass_at_obj - flat.controls.uniform.mass_at_obj).abs() < 1e-6, "{flat:?}");
        let sharp = &evaluation.grounding["plan-max"][of_target];
        assert!((sharp.score.mass_at_obj - sharp.controls.uniform.mass_at_obj).abs() > 1e-3, "{sharp:?}");
    }
    assert_eq!(*heard.0.lock().unwrap(), ["W_FLAT_MAP"]);
}

#[test]
fn a_mask_that_fills_its_box_scores_as_the_box() {
    let mut pairs = random_pairs(12, D, 6);
    for (i, b) in pairs.iter_mut().flat_map(|pair| &mut pair.boxes).enumerate() {
        (b.x, b.y, b.width, b.height) = (b.x.floor(), b.y.floor(), [20.0, 13.0][i % 2], 15.0);
        let inside = |x: u32, y: u32| {
            let (x, y) = (f64::from(x) - b.x, f64::from(y) - b.y);
            (0.0..b.width).contains(&x) && (0.0..b.height).contains(&y)
        };
        b.mask = PixelMask::from_pixels([80, 60], inside).ok();
    }
    let measure = |pairs: &[Made]| run(&LinearCoder::axes(D), &store(D, pairs), &EvaluateOptions::default());
    let evaluation = measure(&pairs);
    assert_eq!(evaluation.grounding.keys().collect::<Vec<_>>(), evaluation.mask_grounding.keys().collect::<Vec<_>>());
    for (map, targets) in &evaluation.grounding {
        assert!(targets.len() == 5, "{map}");
        for (target, boxed) in targets {
            let masked = &evaluation.mask_grounding[map][target];
            assert_eq!((masked.images, masked.queries), (boxed.images, boxed.queries));
            for (mask, own) in [
                (masked.score, boxed.score),
                (masked.controls.uniform, boxed.controls.uniform),
                (masked.controls.oracle, boxed.controls.oracle),
            ] {
                assert!((mask.mass_at_obj - own.mass_at_obj).abs() < 1e-12, "{map} {target}");
                assert!(
                    (mask.iou_at10 - own.iou_at10).abs() < 1e-12 && mask.point_at1 == own.point_at1,
                    "{map} {target}"
                );
            }
        }
    }
    // A smaller mask in the same box is a smaller target; a pair of which one box has no mask is not asked about masks.
    for b in pairs.iter_mut().flat_map(|pair| &mut pair.boxes) {
        b.mask = PixelMask::from_pixels([80, 60], |x, y| f64::from(x) == b.x + 7.0 && f64::from(y) == b.y + 7.0).ok();
    }
    pairs[3].boxes[1].mask = None;
    let smaller = measure(&pairs);
    let (boxed, masked) = (&smaller.grounding["plan-max"]["union"], &smaller.mask_grounding["plan-max"]["union"]);
    assert_eq!((boxed.images, masked.images), (12, 11));
    assert!(masked.controls.uniform.mass_at_obj < 0.01 && boxed.controls.uniform.mass_at_obj > 0.05);
    let crowd = &mut pairs[3].boxes[1];
    crowd.crowd = true;
    assert_eq!(measure(&pairs).mask_grounding["plan-max"]["union"].images, 12);
}

#[test]
fn controls_stand_beside_every_grounding_number() {
    let evaluation = run(&LinearCoder::axes(D), &store(D, &random_pairs(12, D, 6)), &EvaluateOptions::default());
    for (map, targets) in &evaluation.grounding {
        for (target, grounding) in targets {
            let (score, controls) = (grounding.score, &grounding.controls);
            assert!(controls.shuffled_caption.is_some(), "{map} {target}");
            assert!(score.mass_at_obj <= controls.oracle.mass_at_obj + 1e-12);
            assert!(score.point_at1 <= controls.oracle.point_at1);
            assert!(score.iou_at10 <= controls.oracle.iou_at10 + 1e-12);
            assert!(controls.uniform.mass_at_obj > 0.0 && controls.uniform.mass_at_obj < 1.0);
        }
    }
    let union = &evaluation.grounding["plan-max"]["union"];
    assert_eq!((union.images, union.queries), (12, 12));
    // Captions say "dog" in two of three pairs and "cats" in the third; the boxes of each pair are a dog and a cat.
    assert_eq!(evaluation.grounding["plan-max"]["category"].queries, 12);
    assert_eq!(evaluation.grounding["plan-max"]["phrase"].queries, 12);
}

#[test]
fn what_cannot_be_computed_is_absent_and_named() {
    let mut one = random_pairs(1, D, 7);
    one[0].boxes.clear();
    let mut coder = LinearCoder::axes(D);
    coder.k = [D, 0];
    let evaluation = run(&coder, &store(D, &one), &EvaluateOptions::default());
    let json = serde_json::to_value(&evaluation).unwrap();
    assert!(json["grounding"].is_null() && json.get("truth").is_none());
    let control = &json["cross"]["t2v"]["controls"];
    assert!(control.get("shuffledCaption").is_none() && control["uniformPlan"].is_number());
    assert!(json["r2"]["vision"].get("private").is_none());
    for path in [
        "grounding",
        "truth",
        "cross.t2v.controls.shuffledCaption",
        "cross.v2t.controls.shuffledCaption",
        "r2.vision.private",
    ] {
        assert!(json["skipped"][path].is_string(), "{path}: {}", json["skipped"]);
    }
    fn no_null(value: &Value) -> bool {
        match value {
            Value::Null => false,
            Value::Array(items) => items.iter().all(no_null),
            Value::Object(fields) => fields.values().all(no_null),
            _ => true,
        }
    }
    assert!(no_null(&json));
    assert_eq!(serde_json::from_value::<Evaluation>(json).unwrap(), evaluation);

    // Activations that do not vary have no R².
    one[0].vision.iter_mut().for_each(|h| *h = 0.5);
    let evaluation = run(&coder, &store(D, &one), &EvaluateOptions::default());
    assert!(evaluation.r2.vision.is_none() && evaluation.cross.t2v.is_none() && evaluation.r2.text.is_some());
    assert!(evaluation.skipped.contains_key("r2.vision") && evaluation.skipped.contains_key("deltaLeak.t2v"));
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    let store = store(D, &random_pairs(2, D, 8));
    let options = EvaluateOptions { targets: vec!["unoin".into()], ..EvaluateOptions::default() };
    let error = evaluate(&LinearCoder::axes(D), &store, &options, None, &Silent).unwrap_err();
    assert_eq!(error.code(), "E_UNKNOWN_OPTION");
    assert!(error.to_string().contains("did you mean 'union'"), "{error}");
    let options = EvaluateOptions { heatmaps: vec!["plan_max".into()], ..EvaluateOptions::default() };
    let error = evaluate(&LinearCoder::axes(D), &store, &options, None, &Silent).unwrap_err();
    assert!(error.to_string().contains("plan-max"), "{error}");
    let error = evaluate(&LinearCoder::axes(D + 1), &store, &EvaluateOptions::default(), None, &Silent).unwrap_err();
    assert_eq!(error.code(), "E_SHAPE");
    let none = EvaluateOptions { batch_pairs: 0, ..EvaluateOptions::default() };
    assert_eq!(evaluate(&LinearCoder::axes(D), &store, &none, None, &Silent).unwrap_err().code(), "E_OPTION");
}

/// A model whose weights hold a NaN.
struct Broken(LinearCoder);

impl Coder for Broken {
    fn width(&self, modality: Modality) -> usize {
        self.0.width(modality)
    }
    fn d_shared(&self) -> usize {
        self.0.d_shared()
    }
    fn latents(&self) -> usize {
        self.0.latents()
    }
    fn encode(&self, activations: &[f32], modality: Modality) -> Result<SparseCodes, InterpretError> {
        self.0.encode(activations, modality)
    }
    fn decode(&self, codes: &SparseCodes, modality: Modality, block: Block) -> Result<Vec<f32>, InterpretError> {
        let mut states = self.0.decode(codes, modality, block)?;
        states[0] = f32::NAN;
        Ok(states)
    }
    fn plan(&self, vision: &SparseCodes, text: &SparseCodes) -> Result<PairPlan, InterpretError> {
        self.0.plan(vision, text)
    }
}

#[test]
fn a_nan_is_an_error_that_names_the_pair() {
    let store = store(D, &random_pairs(2, D, 9));
    let error =
        evaluate(&Broken(LinearCoder::axes(D)), &store, &EvaluateOptions::default(), None, &Silent).unwrap_err();
    assert_eq!(error.code(), "E_NON_FINITE");
    assert_eq!(error.details()["pair"], "pair-0");
}

#[test]
fn cancelling_stops_the_work() {
    struct Stop;
    impl Observer for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let store = store(D, &random_pairs(2, D, 10));
    let error = evaluate(&LinearCoder::axes(D), &store, &EvaluateOptions::default(), None, &Stop).unwrap_err();
    assert_eq!(error.code(), "E_CANCELLED");
}

/// Every number has an interval, and every interval holds the number it belongs to.
#[test]
fn intervals_hold_their_numbers() {
    let pairs = random_pairs(40, D, 9);
    let evaluation = run(&LinearCoder::signed_axes(D), &store(D, &pairs), &all_maps());
    let json = serde_json::to_value(&evaluation).unwrap();
    assert_eq!(without_interval(&evaluation), Vec::<String>::new());
    for (path, [low, high]) in &evaluation.intervals {
        assert!(low <= high, "{path}");
        let number = |path: &str| {
            let value = path.split('.').try_fold(&json, |node, name| node.get(name));
            value.and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {path}"))
        };
        let value = match path.split_once(".aboveShuffled") {
            Some((of, "")) => number(&format!("{of}.shared")) - number(&format!("{of}.controls.shuffledCaption")),
            Some((of, score)) => {
                number(&format!("{of}{score}")) - number(&format!("{of}.controls.shuffledCaption{score}"))
            }
            None => number(path),
        };
        // Six digits are kept.
        let room = 1e-5 * value.abs().max(1e-3);
        assert!(*low - room <= value && value <= *high + room, "{path}: {value} outside {low} … {high}");
    }
    let none = run(&LinearCoder::signed_axes(D), &store(D, &pairs), &EvaluateOptions { bootstrap: 0, ..all_maps() });
    assert!(none.intervals.is_empty());
    assert_eq!(none.r2, evaluation.r2);
}
