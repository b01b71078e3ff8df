//! What must hold for every step: degenerate pairs, refused inputs, AuxK's switch, Top-k's relation to a plain one.
#![allow(clippy::unwrap_used)]

mod common;

use common::oracle;
use common::{Case, named, random_case, relative_error};
use lucid_kernels::cpu::Cpu;
use lucid_kernels::{Backend, DeadCounters, DeadLists, KernelError, Modality, Scalar};
use lucid_sae::batch::{HostPairs, MicroBatch, Sides};
use lucid_sae::config::{AlignNormalization, Config, PlanGradient, TopK};
use lucid_sae::optimiser::learning_rate;

const F64: Scalar<f64> = Scalar::new();

/// The blocks only select: without transport and align, a global Top-k is a plain Top-k autoencoder, whatever the blocks
/// are called.
#[test]
fn global_topk_is_a_plain_topk_autoencoder() {
    let mut blocks = random_case(21);
    (blocks.config.topk, blocks.config.beta, blocks.config.gamma) = (TopK::Global, 0.0, 0.0);
    let mut plain = blocks.clone();
    (plain.config.d_shared, plain.config.d_private) = (18, 0);
    (plain.config.k_shared, plain.config.k_private) = (7, 0);
    let split = {
        let mut split = plain.clone();
        split.config.topk = TopK::Split;
        split
    };
    let (report, gradients) = plain.run(&F64, 2);
    for other in [&blocks, &split] {
        let (other_report, other_gradients) = other.run(&F64, 2);
        for m in Modality::ALL {
            let (a, b) = (report.sums.self_residual.of(m), other_report.sums.self_residual.of(m));
            assert!((a - b).abs() <= 1e-13 * a, "{a} {b}");
        }
        for ((name, a), (_, b)) in named(&gradients).iter().zip(named(&other_gradients)) {
            assert!(relative_error(a, &b) < 1e-13, "{name}");
        }
    }
    // The plain autoencoder itself: L = ‖h − W_decᵀ TopK(a) − b_dec‖², straight from the definition.
    let expected: f64 = oracle::errors(&plain, &plain.params).vision.iter().flatten().map(|x| x * x).sum();
    assert!((report.sums.self_residual.vision - expected).abs() < 1e-12 * expected);
}

#[test]
fn aux_is_zero_while_nothing_is_dead() {
    let mut on = random_case(22);
    on.config.aux_coefficient = 0.5;
    let off = random_case(22);
    let ((report, gradients), (expected, expected_gradients)) = (on.run(&F64, 2), off.run(&F64, 2));
    assert_eq!(report.losses, expected.losses);
    assert_eq!(gradients, expected_gradients);
}

/// Dead latents with nothing positive reconstruct nothing: the term is exactly its weight, and no gradient flows.
#[test]
fn aux_of_silent_latents_is_their_weight() {
    let mut case = random_case(23);
    (case.config.aux_coefficient, case.config.k_aux) = (0.5, 4);
    case.dead.vision = DeadLists { shared: vec![2], private: vec![9, 12] };
    for latent in [2, 9, 12] {
        case.params.vision.b_enc[latent] = -50.0;
    }
    let losses = case.run(&F64, 1).0.losses;
    assert!((losses.aux - (0.25 + 0.5)).abs() < 1e-12, "{}", losses.aux);
    let without = Case { dead: Sides::default(), ..case.clone() };
    assert_eq!(case.run(&F64, 1).1, without.run(&F64, 1).1);
}

/// A pair none of whose tokens has a code: uniform plan, finite losses and gradients, in both gradient modes.
#[test]
fn all_zero_codes() {
    fn check<B: Backend>(backend: &B) {
        for plan_gradient in [PlanGradient::Stop, PlanGradient::Unrolled] {
            let mut case = random_case(24);
            (case.config.plan_gradient, case.config.w_ot) = (plan_gradient, 0.5);
            case.params.vision.b_enc.fill(-100.0);
            let (report, gradients) = case.run(backend, 2);
            assert_eq!(report.l0(Modality::Vision), 0.0);
            assert!(report.l0(Modality::Text) > 0.0);
            let plan = report.plan.unwrap().plan;
            let first = common::widen(&plan[..8]);
            assert!(first.iter().all(|mass| (mass - 0.125).abs() < 1e-6), "{first:?}");
            assert!(report.losses.total.is_finite());
            assert!(named(&gradients).iter().all(|(_, values)| values.iter().all(|value| value.is_finite())));
        }
    }
    check(&F64);
    check(&Cpu::new(Some(2)).unwrap());
    #[cfg(feature = "cuda-shim")]
    common::on_shim(check);
}

#[test]
fn a_mask_that_empties_a_row_names_the_pair_of_the_batch() {
    let mut case = random_case(25);
    let mut mask = vec![1.0; 20];
    (mask[16], mask[17]) = (0.0, 0.0);
    case.admissible = Some(mask);
    case.config.mask_penalty = f64::INFINITY;
    for micro_pairs in [1, 2, 3] {
        let error = case.try_run(&F64, micro_pairs).unwrap_err();
        assert_eq!(error, KernelError::EmptyMask { pair: 2, axis: "row", index: 1 });
        let error = case.try_run(&Cpu::new(Some(2)).unwrap(), micro_pairs).unwrap_err();
        assert_eq!(error, KernelError::EmptyMask { pair: 2, axis: "row", index: 1 });
        #[cfg(feature = "cuda-shim")]
        common::on_shim(|backend| {
            let error = case.try_run(backend, micro_pairs).unwrap_err();
            assert_eq!(error, KernelError::EmptyMask { pair: 2, axis: "row", index: 1 });
        });
    }
    assert_eq!(KernelError::EmptyMask { pair: 2, axis: "row", index: 1 }.code(), "E_EMPTY_MASK");
    case.config.mask_penalty = 2.0;
    assert!(case.try_run(&F64, 1).is_ok(), "a finite penalty admits the row at a price");
}

fn upload(case: &Case) -> Result<MicroBatch<Scalar<f64>>, KernelError> {
    let host = HostPairs {
        vision: &case.vision,
        vision_lengths: &case.vision_lengths,
        text: &case.text,
        text_lengths: &case.text_lengths,
        admissible: case.admissible.as_deref(),
    };
    MicroBatch::upload(&F64, 6, 5, &host)
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let good = random_case(26);
    assert!(upload(&good).is_ok());

    let mut bad = good.clone();
    bad.text[2 * 5 + 7] = f64::NAN;
    let error = upload(&bad).err().unwrap();
    assert_eq!(error, KernelError::NonFinite { what: "text activations", pair: 1, position: 7 });

    let mut bad = good.clone();
    bad.vision[6 * 6] = f64::INFINITY;
    let error = upload(&bad).err().unwrap();
    assert_eq!(error, KernelError::NonFinite { what: "vision activations", pair: 2, position: 0 });

    let mut bad = good.clone();
    bad.text_lengths = vec![2, 0, 5];
    assert!(matches!(upload(&bad), Err(KernelError::Shape { what, .. }) if what == "textLengths[1]"));

    let mut bad = good.clone();
    bad.text_lengths = vec![2, 5];
    assert!(matches!(upload(&bad), Err(KernelError::Shape { what, .. }) if what == "textLengths"));

    let mut bad = good.clone();
    bad.vision.pop();
    assert!(matches!(upload(&bad), Err(KernelError::Shape { what, .. }) if what == "vision activations"));

    for mask in [vec![1.0; 19], vec![1.5; 20], vec![f64::NAN; 20]] {
        let bad = Case { admissible: Some(mask), ..good.clone() };
        assert_eq!(upload(&bad).err().unwrap().code(), "E_SHAPE");
    }
}

#[test]
fn variances_must_be_positive() {
    let mut case = random_case(27);
    case.variance.text = 0.0;
    assert!(matches!(case.try_run(&F64, 1), Err(KernelError::Option { option: "variance", .. })));
    case.config.normalize_loss = false;
    assert!(case.try_run(&F64, 1).is_ok());
    let mut case = random_case(27);
    case.config.align_normalization = AlignNormalization::Pooled;
    case.pooled_variance = None;
    assert!(matches!(case.try_run(&F64, 1), Err(KernelError::Option { option: "pooledVariance", .. })));
}

/// Buffers kept from a larger or different step leave no trace.
#[test]
fn a_step_does_not_depend_on_the_step_before() {
    fn check<B: Backend>(backend: &B) {
        use lucid_sae::step::Step;
        let mut first = random_case(28);
        (first.config.aux_coefficient, first.config.k_aux) = (0.5, 3);
        first.dead.text = DeadLists { shared: vec![1], private: vec![8, 15] };
        let params = first.upload_params(backend);
        let mut step = Step::new(backend, &params, &first.config).unwrap();
        let mut second = first.clone();
        second.config.plan_gradient = PlanGradient::Unrolled;
        let run = |step: &mut Step<B>, case: &Case, micro_pairs| {
            let batch = case.micro_batches(backend, micro_pairs);
            let report = step.run(backend, &params, &batch, &case.inputs()).unwrap();
            (report, step.gradients.read(backend).unwrap())
        };
        let alone = run(&mut step, &first, 1);
        run(&mut step, &second, 3);
        let again = run(&mut step, &first, 1);
        assert_eq!(alone.0, again.0);
        assert!(alone.1 == again.1, "gradients differ");
    }
    check(&F64);
    check(&Cpu::new(Some(2)).unwrap());
    #[cfg(feature = "cuda-shim")]
    common::on_shim(check);
}

#[test]
fn sums_and_firing_counts() {
    let case = random_case(29);
    let (report, _) = case.run(&F64, 2);
    assert_eq!((report.sums.tokens.vision, report.sums.tokens.text, report.sums.pairs), (9, 7, 3));
    let expected: f64 = oracle::errors(&case, &case.params).text.iter().flatten().map(|x| x * x).sum();
    assert!((report.sums.self_residual.text - expected).abs() < 1e-12 * expected);
    assert!((report.r2(Modality::Text, 1.4) - (1.0 - expected / 7.0 / 1.4)).abs() < 1e-12);
    assert!(report.l0(Modality::Vision) <= 7.0 && report.fired.vision.len() == 18);

    let mut counters = DeadCounters::new(18);
    counters.advance(&report.fired.vision, 9);
    let silent = report.fired.vision.iter().filter(|&&count| count == 0).count();
    assert_eq!(counters.lists(8, 8).len(), silent);
    assert_eq!(counters.lists(8, 9).len(), 0, "dead means more than, not as many as");
}

#[test]
fn learning_rate_schedule() {
    let config = Config { lr: 0.2, warmup_steps: 0, ..Config::default() };
    assert_eq!(learning_rate(&config, 0, 10), 0.2);
    assert!((learning_rate(&config, 5, 10) - 0.1).abs() < 1e-15);
    assert!(learning_rate(&config, 10, 10).abs() < 1e-15);
    let config = Config { warmup_steps: 4, ..config };
    let rates: Vec<f64> = (0..4).map(|step| learning_rate(&config, step, 14)).collect();
    assert_eq!(rates, [0.05, 0.1, 0.2 * 3.0 / 4.0, 0.2]);
    assert_eq!(learning_rate(&config, 4, 14), 0.2);
    assert!((learning_rate(&config, 9, 14) - 0.1).abs() < 1e-15);
}
