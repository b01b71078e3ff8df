//! A CUDA device that fails in the middle: every allocation and every launch of a step, one after the other.
#![cfg(feature = "cuda-shim")]
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Case, random_case};
use lucid_kernels::KernelError;
use lucid_kernels::cuda::{Cuda, Order, Shim};
use lucid_sae::batch::{HostPairs, MicroBatch};
use lucid_sae::config::PlanGradient;
use lucid_sae::params::{HostDictionary, HostParams, Params};
use lucid_sae::step::Step;

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
fn step(backend: &Cuda<Shim>, case: &Case) -> Result<(f64, Vec<f32>), KernelError> {
    let dictionary = |from: &HostDictionary<f64>| HostDictionary {
        d: from.d,
        latents: from.latents,
        w_enc: narrow(&from.w_enc),
        b_enc: narrow(&from.b_enc),
        w_dec: narrow(&from.w_dec),
        b_dec: narrow(&from.b_dec),
    };
    let host = HostParams { vision: dictionary(&case.params.vision), text: dictionary(&case.params.text) };
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

#[test]
fn every_allocation_can_fail() {
    let case = case();
    let expected = step(&Cuda::new(Arc::new(Shim::new(Order::Forward))).unwrap(), &case).unwrap();
    let mut failures = 0;
    for count in 0.. {
        let shim = Arc::new(Shim::new(Order::Forward));
        shim.fail_allocation_after(count);
        let outcome = Cuda::new(Arc::clone(&shim)).and_then(|backend| {
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
    let case = case();
    let mut failures = 0;
    for count in 0.. {
        let shim = Arc::new(Shim::new(Order::Forward));
        shim.fail_launches_after(count);
        let backend = Cuda::new(Arc::clone(&shim)).unwrap();
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
