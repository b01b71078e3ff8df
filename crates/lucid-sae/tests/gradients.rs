//! Losses and gradients of the whole step against the dense loss and its central differences, in every mode.
#![allow(clippy::unwrap_used)]

mod common;

use common::oracle::{self, Frozen};
use common::{Case, named, random_case, relative_error};
use lucid_kernels::{DeadLists, Modality, Scalar};
use lucid_sae::batch::Sides;
use lucid_sae::config::{AlignNormalization, PlanGradient, Reduction, TopK};
use lucid_sae::params::HostParams;

/// Central differences of the total in every parameter, in the order of [`named`]. Under `stop` the plan at the
/// expansion point is held fixed; AuxK's residual always is.
fn differences(case: &Case) -> Vec<Vec<f64>> {
    let unrolled = case.config.plan_gradient == PlanGradient::Unrolled;
    let (_, plans) = oracle::losses(case, &case.params, None);
    let frozen = Frozen { plans, errors: oracle::errors(case, &case.params) };
    let total = |params: &HostParams<f64>| {
        // The residual is held fixed in both modes: under `unrolled` there is no AuxK in these cases.
        oracle::losses(case, params, (!unrolled).then_some(&frozen)).0.total
    };
    let step = 1e-5;
    let mut out = Vec::new();
    for m in Modality::ALL {
        for array in 0..4 {
            fn pick(params: &mut HostParams<f64>, m: Modality, array: usize) -> &mut Vec<f64> {
                let side = params.of_mut(m);
                [&mut side.w_enc, &mut side.b_enc, &mut side.w_dec, &mut side.b_dec].into_iter().nth(array).unwrap()
            }
            let mut params = case.params.clone();
            let len = pick(&mut params, m, array).len();
            let mut gradient = Vec::with_capacity(len);
            for i in 0..len {
                let value = pick(&mut params, m, array)[i];
                pick(&mut params, m, array)[i] = value + step;
                let above = total(&params);
                pick(&mut params, m, array)[i] = value - step;
                gradient.push((above - total(&params)) / (2.0 * step));
                pick(&mut params, m, array)[i] = value;
            }
            out.push(gradient);
        }
    }
    out
}

fn check(name: &str, case: &Case) {
    let (report, gradients) = case.run(&Scalar::<f64>::new(), 2);
    let (expected, plans) = oracle::losses(case, &case.params, None);
    assert!(relative_error(&report.plan.unwrap().plan, &plans.concat()) < 1e-12, "{name}: plan");
    let found = serde_json::to_value(report.losses).unwrap();
    for (loss, value) in serde_json::to_value(expected).unwrap().as_object().unwrap() {
        let (found, expected) = (found[loss].as_f64().unwrap(), value.as_f64().unwrap());
        assert!((found - expected).abs() <= 1e-12 * (1.0 + expected.abs()), "{name} {loss}: {found} not {expected}");
    }
    // Truncation 1e-10 and rounding 1e-11, times derivatives that unrolling at ε = 0.1 raises to about a hundred.
    for ((parameter, found), expected) in named(&gradients).iter().zip(differences(case)) {
        let error = relative_error(found, &expected);
        assert!(error < 1e-7, "{name} {parameter}: relative error {error:e}");
        assert!(found.iter().any(|&value| value != 0.0), "{name} {parameter}: no gradient at all");
    }
}

#[test]
fn stopped_plan() {
    check("default weights", &random_case(1));
    let mut case = random_case(2);
    (case.config.reduction, case.config.normalize_loss) = (Reduction::Sum, false);
    check("printed form", &case);
    let mut case = random_case(3);
    case.config.align_normalization = AlignNormalization::Pooled;
    check("pooled align", &case);
}

/// Π and c are constants; L_ot runs through the cosines and through λ (1 − w_j).
#[test]
fn stopped_plan_with_transport_loss() {
    for (seed, mass_reweighting, lambda_global) in [(4, true, 0.5), (5, false, 0.0), (6, false, 0.7)] {
        let mut case = random_case(seed);
        case.config.w_ot = 0.8;
        (case.config.mass_reweighting, case.config.lambda_global) = (mass_reweighting, lambda_global);
        check("ot", &case);
    }
}

#[test]
fn unrolled_plan() {
    for (seed, mass_reweighting, lambda_global, w_ot) in
        [(7, true, 0.5, 0.4), (8, true, 0.0, 0.0), (9, false, 0.6, 0.4), (10, false, 0.0, 0.4)]
    {
        let mut case = random_case(seed);
        case.config.plan_gradient = PlanGradient::Unrolled;
        case.config.iterations = 4;
        (case.config.mass_reweighting, case.config.lambda_global) = (mass_reweighting, lambda_global);
        case.config.w_ot = w_ot;
        check("unrolled", &case);
    }
}

#[test]
fn masks() {
    for (seed, penalty, unrolled) in [(11, 1.5, false), (12, 1.5, true), (13, f64::INFINITY, true)] {
        let mut case = random_case(seed);
        let hard = penalty == f64::INFINITY;
        let cells: usize =
            case.vision_lengths.iter().zip(&case.text_lengths).map(|(rows, columns)| rows * columns).sum();
        // Every fourth entry; rows and columns of these shapes keep others.
        let forbidden = if hard { 0.0 } else { 0.25 };
        case.admissible = Some((0..cells).map(|cell| if cell % 4 == 1 { forbidden } else { 1.0 }).collect());
        case.config.mask_penalty = penalty;
        case.config.w_ot = 0.3;
        if unrolled {
            (case.config.plan_gradient, case.config.iterations) = (PlanGradient::Unrolled, 4);
        }
        check("mask", &case);
    }
}

#[test]
fn global_selection() {
    let mut case = random_case(14);
    case.config.topk = TopK::Global;
    case.config.w_ot = 0.4;
    check("global", &case);
}

/// More and fewer dead latents than kAux, in either block; the residual is held fixed in the differences.
#[test]
fn aux_k() {
    for (seed, k_aux) in [(15, 0), (16, 2), (17, 9)] {
        let mut case = random_case(seed);
        (case.config.aux_coefficient, case.config.k_aux) = (0.5, k_aux);
        case.dead = Sides {
            vision: DeadLists { shared: vec![1, 4, 5], private: vec![10, 12, 13, 17] },
            text: DeadLists { shared: vec![], private: vec![9, 11] },
        };
        let without = Case { dead: Sides::default(), ..case.clone() };
        let aux = case.run(&Scalar::<f64>::new(), 2).0.losses.aux;
        assert!(aux > 0.0 && without.run(&Scalar::<f64>::new(), 2).0.losses.aux == 0.0);
        check("auxk", &case);
    }
}
