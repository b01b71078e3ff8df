//! A CUDA device that fails in the middle: every allocation and every launch of a step, one after the other.
#![cfg(feature = "cuda-shim")]
#![allow(clippy::unwrap_used)]

mod common;
mod support;

use std::sync::Arc;

use common::{Case, random_case};
use lucid_kernels::cuda::{Cuda, Driver, Graphs, Order, Shim};
use lucid_kernels::{Backend, KernelError, Precision};
use lucid_sae::batch::{HostPairs, MicroBatch};
use lucid_sae::config::{Initialise, Order as DataOrder, PlanGradient};
use lucid_sae::params::{HostDictionary, HostParams, Params};
use lucid_sae::step::Step;
use lucid_sae::trainer::train_on;
use lucid_sae::{Config, Model, SaeError, TrainEvent, TrainOptions};
use support::{Poisoned, Recorder, tiny, tiny_store};

/// A case that passes through every kernel of a step.
fn case() -> Case {
    let mut case = random_case(31);
    (case.config.plan_gradient, case.config.w_ot) = (PlanGradient::Unrolled, 0.5);
    (case.config.aux_coefficient, case.config.k_aux) = (0.5, 3);
    case.dead.text.shared = vec![1];
    case.dead.text.private = vec![8, 15];
    case
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// Uploads everything and makes a step: its loss and the gradients of W_dec.
fn step<D: Driver>(backend: &Cuda<D>, case: &Case) -> Result<(f64, Vec<f32>), KernelError> {
    let dictionary = |from: &HostDictionary<f64>| HostDictionary {
        d: from.d,
        latents: from.latents,
        w_enc: narrow(&from.w_enc),
        b_enc: narrow(&from.b_enc),
        w_dec: narrow(&from.w_dec),
        b_dec: narrow(&from.b_dec),
    };
    let (vision, text) = (dictionary(&case.params.vision), dictionary(&case.params.text));
    let host = HostParams { vision, text, log_threshold: None };
    let params = Params::upload(backend, &host)?;
    let (vision, text) = (narrow(&case.vision), narrow(&case.text));
    let pairs = HostPairs {
        vision: &vision,
        vision_lengths: &case.vision_lengths,
        text: &text,
        text_lengths: &case.text_lengths,
        admissible: None,
    };
    let batch = vec![MicroBatch::upload(backend, host.vision.d, host.text.d, &pairs)?];
    let mut step = Step::new(backend, &params, &case.config)?;
    let report = step.run(backend, &params, &batch, &case.inputs())?;
    Ok((report.losses.total, step.gradients.read(backend)?.vision.w_dec))
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

fn backend(shim: &Arc<Shim>, precision: Precision) -> Result<Cuda<Shim>, KernelError> {
    Cuda::new(Arc::clone(shim))?.with_precision(precision)
}

#[test]
fn every_allocation_can_fail() {
    PRECISIONS.into_iter().for_each(every_allocation);
}

fn every_allocation(precision: Precision) {
    let case = case();
    let expected = step(&backend(&Arc::new(Shim::new(Order::Forward)), precision).unwrap(), &case).unwrap();
    let mut failures = 0;
    for count in 0.. {
        let shim = Arc::new(Shim::new(Order::Forward));
        shim.fail_allocation_after(count);
        let outcome = backend(&shim, precision).and_then(|backend| {
            let first = step(&backend, &case);
            if first.is_err() {
                // The device is whole: with memory again, the same backend makes the same step.
                assert!(step(&backend, &case).unwrap() == expected, "allocation {count} left a trace");
            }
            first
        });
        assert_eq!(shim.live_allocations(), 0, "allocation {count}: memory was not given back");
        match outcome {
            Err(KernelError::Memory { bytes }) => assert!(bytes > 0),
            Err(other) => panic!("allocation {count}: {other}"),
            Ok(found) => {
                assert!(found == expected);
                break;
            }
        }
        failures += 1;
    }
    assert!(failures > 60, "only {failures} allocations");
}

#[test]
fn every_launch_can_fail() {
    PRECISIONS.into_iter().for_each(every_launch);
}

fn every_launch(precision: Precision) {
    let case = case();
    let mut failures = 0;
    for count in 0.. {
        let shim = Arc::new(Shim::new(Order::Forward));
        shim.fail_launches_after(count);
        let backend = backend(&shim, precision).unwrap();
        match step(&backend, &case) {
            Err(error @ KernelError::Device { .. }) => {
                assert_eq!(error.code(), "E_DEVICE");
                assert!(error.to_string().contains("lost"), "{error}");
            }
            Err(other) => panic!("launch {count}: {other}"),
            Ok(_) => break,
        }
        drop(backend);
        assert_eq!(shim.live_allocations(), 0, "launch {count}: memory was not given back");
        failures += 1;
    }
    assert!(failures > 100, "only {failures} launches");
}

/// Launches that wait fail later than they were made: never unnoticed, and the device is whole afterwards. Each step is made three
/// times, so that the last is a replay.
#[test]
fn every_launch_can_fail_in_a_graph() {
    let case = case();
    let expected = step(&backend(&Arc::new(Shim::new(Order::Forward)), Precision::F32).unwrap(), &case).unwrap();
    let mut failures = 0;
    for count in (0..).step_by(7) {
        let device = Cuda::new(Arc::new(Graphs::new(Shim::new(Order::Forward), true))).unwrap();
        device.driver().inner().fail_launches_after(count);
        let outcomes: Vec<_> = (0..3).map(|_| step(&device, &case)).collect();
        device.driver().inner().fail_launches_after(i64::MAX);
        // What was given back after the last of them may have had an error to tell.
        let _ = device.driver().give();
        assert!(step(&device, &case).unwrap() == expected, "launch {count} left a trace");
        match outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
            Some(error) => assert!(error.to_string().contains("lost"), "{error}"),
            None => break,
        }
        assert!(outcomes.iter().flatten().all(|outcome| *outcome == expected), "launch {count} went unnoticed");
        failures += 1;
    }
    assert!(failures > 40, "only {failures} launches");
}

/// Trains for two steps on a device whose allocation `fails` is refused: the model, how often the micro-batch was halved, and
/// whether there was such an allocation.
fn training(micro_pairs: usize, fails: Option<i64>) -> (Result<Model, SaeError>, usize, bool) {
    let shim = Arc::new(Shim::new(Order::Forward));
    let backend = Cuda::new(Arc::clone(&shim)).unwrap();
    let options = TrainOptions::new(Config { micro_pairs, steps: 2, ..tiny() });
    if let Some(count) = fails {
        shim.fail_allocation_after(count);
    }
    let observer = Recorder::default();
    let model = train_on(&backend, &tiny_store(), None, &options, &observer);
    let events = observer.events.into_inner().unwrap();
    let halved = |event: &&TrainEvent| matches!(event, TrainEvent::Warning { code, .. } if code == "W_MEMORY");
    (model, events.iter().filter(halved).count(), shim.allocation_failed())
}

/// A step that finds no room goes on with half the micro-batch: in the first step, with the bits of a run that had it from the
/// start.
#[test]
fn without_room_the_micro_batch_is_halved() {
    let weights = |model: Model| model.params.vision.w_dec.clone();
    let (full, half) = (weights(training(4, None).0.unwrap()), weights(training(2, None).0.unwrap()));
    assert_ne!(full, half, "the order of summation does differ");
    let (mut refused, mut as_half) = (0, 0);
    for fails in (0..400).step_by(9) {
        match training(4, Some(fails)) {
            (Ok(model), 0, failed) => {
                // What was refused was room for the next step's pairs, or nothing was.
                assert_eq!(weights(model), full, "allocation {fails}");
                if !failed {
                    break;
                }
            }
            (Ok(model), times, _) => {
                assert_eq!(times, 1, "allocation {fails}");
                let found = weights(model);
                let close = found.iter().zip(&full).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + b.abs()));
                assert!(close, "allocation {fails}: not only the order of summation has changed");
                as_half += usize::from(found == half);
            }
            (Err(error), times, _) => {
                assert_eq!((error.code(), times), ("E_MEMORY", 0), "allocation {fails}");
                // 4 arrays of 4 bytes: 24 latents of 12 and 10 dimensions, twice, and the biases.
                assert!(error.to_string().contains("take 18016 bytes"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 2 && as_half > 2, "{refused} before the first step, {as_half} in it");
}

/// Pairs that are read again because the device had no room are looked at as those that are not: a value that is not finite
/// is told by its pair's key. It lies in the second of the batches that a step reads.
#[test]
fn without_room_a_nan_is_named_all_the_same() {
    let store = Poisoned { inner: tiny_store(), pair: 3, value: f32::NAN };
    let config = Config { initialise: Initialise::Random, order: DataOrder::Sequential, micro_pairs: 2, ..tiny() };
    let (mut refused, mut halved) = (0, 0);
    for fails in 0.. {
        let shim = Arc::new(Shim::new(Order::Forward));
        let backend = Cuda::new(Arc::clone(&shim)).unwrap();
        shim.fail_allocation_after(fails);
        let observer = Recorder::default();
        let error = train_on(&backend, &store, None, &TrainOptions::new(config.clone()), &observer).unwrap_err();
        match error {
            SaeError::NonFinite { what, step: 0, pair, .. } => {
                assert_eq!((what.as_str(), pair.as_str()), ("activations", "pair-3"), "allocation {fails}");
                halved += usize::from(observer.warnings().contains(&"W_MEMORY".to_string()));
            }
            error => {
                assert_eq!(error.code(), "E_MEMORY", "allocation {fails}: {error}");
                refused += 1;
            }
        }
        if !shim.allocation_failed() {
            break;
        }
    }
    assert!(refused > 2 && halved > 0, "{refused} before the first step, {halved} in it");
}

/// The host waits for the four things that a step reports, whatever the number of micro-batches: errors, sums, and who fired.
#[test]
fn a_step_waits_only_for_its_report() {
    let case = case();
    let backend = Cuda::new(Arc::new(Shim::new(Order::Forward))).unwrap();
    let params = case.upload_params(&backend);
    let mut made = Step::new(&backend, &params, &case.config).unwrap();
    let inputs = lucid_sae::step::StepInputs { keep_plan: false, ..case.inputs() };
    for micro_pairs in [1, 3] {
        let batch = case.micro_batches(&backend, micro_pairs);
        let before = backend.driver().waits();
        made.run(&backend, &params, &batch, &inputs).unwrap();
        assert_eq!(backend.driver().waits() - before, 4, "{micro_pairs} pairs a micro-batch");
    }
}
