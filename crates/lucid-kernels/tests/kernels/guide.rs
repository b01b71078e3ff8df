//! Cosine cost, text weights, marginals and cost guidance, with their backward passes (spec 3).

use lucid_kernels::{Backend, Block, Codes, Pairs, UNUSED};

use crate::common::{
    GLOBAL, HostCodes, Random, SPLIT, assert_close, central_differences, difference_tolerance, dot, read, rubbish,
    some_codes, some_pairs, tolerance, upload,
};
use crate::oracle;

on_every_backend!(
    cost_is_one_minus_cosine,
    cost_backward_is_the_derivative,
    weights_are_cosines_with_the_mean,
    weights_backward_is_the_derivative,
    marginals,
    column_marginal_backward_is_the_derivative,
    guided_cost,
    zero_codes_carry_nothing,
);

fn cost_is_one_minus_cosine<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(1), some_pairs());
    for shape in [SPLIT, GLOBAL] {
        let (vision, text) = some_codes(&mut random, &pairs, shape);
        let mut cost = rubbish(backend, pairs.cells.total());
        backend.cosine_cost(&vision.upload(backend), &text.upload(backend), &pairs, &mut cost).unwrap();
        let expected = oracle::cosine_cost(&vision, &text, &pairs);
        assert_close("cost", &read(backend, &cost, expected.len()), &expected, tolerance::<B>());
    }
}

/// Derivatives of `loss` in the values of both codes, at used shared slots, added to `start`.
fn code_derivatives(
    vision: &HostCodes,
    text: &HostCodes,
    start: (&[f64], &[f64]),
    loss: impl Fn(&HostCodes, &HostCodes) -> f64,
) -> (Vec<f64>, Vec<f64>) {
    let add = |codes: &HostCodes, gradient: Vec<f64>, start: &[f64]| -> Vec<f64> {
        codes.masked(&gradient, Block::Shared).iter().zip(start).map(|(gradient, start)| gradient + start).collect()
    };
    let d_vision = central_differences(&vision.values, |values| loss(&vision.with_values(values), text));
    let d_text = central_differences(&text.values, |values| loss(vision, &text.with_values(values)));
    (add(vision, d_vision, start.0), add(text, d_text, start.1))
}

fn cost_backward_is_the_derivative<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(2), some_pairs());
    for shape in [SPLIT, GLOBAL] {
        let (vision, text) = some_codes(&mut random, &pairs, shape);
        let probe = random.values(pairs.cells.total());
        let start = (random.values(vision.values.len()), random.values(text.values.len()));
        let (v, t) = (vision.upload(backend), text.upload(backend));
        let mut cost = rubbish(backend, pairs.cells.total());
        backend.cosine_cost(&v, &t, &pairs, &mut cost).unwrap();
        let (mut d_vision, mut d_text) = (upload(backend, &start.0), upload(backend, &start.1));
        let d_cost = upload(backend, &probe);
        backend.cosine_cost_backward(&v, &t, &pairs, &cost, &d_cost, &mut d_vision, &mut d_text).unwrap();
        let expected = code_derivatives(&vision, &text, (&start.0, &start.1), |vision, text| {
            dot(&probe, &oracle::cosine_cost(vision, text, &pairs))
        });
        let tolerance = difference_tolerance::<B>();
        assert_close("d vision", &read(backend, &d_vision, start.0.len()), &expected.0, tolerance);
        assert_close("d text", &read(backend, &d_text, start.1.len()), &expected.1, tolerance);
    }
}

fn weights_are_cosines_with_the_mean<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(3), some_pairs());
    for shape in [SPLIT, GLOBAL] {
        let (vision, text) = some_codes(&mut random, &pairs, shape);
        let mut weights = rubbish(backend, pairs.text.total());
        backend.mass_weights(&vision.upload(backend), &text.upload(backend), &pairs, &mut weights).unwrap();
        let expected = oracle::mass_weights(&vision, &text, &pairs);
        assert!(expected.iter().any(|&w| w > 0.0));
        assert_close("weights", &read(backend, &weights, expected.len()), &expected, tolerance::<B>());
    }
}

/// The probe is zero where w = 0: there the maximum has a kink and the gradient is 0 by definition.
fn weights_backward_is_the_derivative<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(4), some_pairs());
    for shape in [SPLIT, GLOBAL] {
        let (vision, text) = some_codes(&mut random, &pairs, shape);
        let weights = oracle::mass_weights(&vision, &text, &pairs);
        let probe = random.values(weights.len());
        let smooth: Vec<f64> = probe.iter().zip(&weights).map(|(p, &w)| if w > 0.0 { *p } else { 0.0 }).collect();
        let start = (random.values(vision.values.len()), random.values(text.values.len()));
        let (mut d_vision, mut d_text) = (upload(backend, &start.0), upload(backend, &start.1));
        let (v, t, d_weights) = (vision.upload(backend), text.upload(backend), upload(backend, &probe));
        backend.mass_weights_backward(&v, &t, &pairs, &d_weights, &mut d_vision, &mut d_text).unwrap();
        let expected = code_derivatives(&vision, &text, (&start.0, &start.1), |vision, text| {
            dot(&smooth, &oracle::mass_weights(vision, text, &pairs))
        });
        let tolerance = difference_tolerance::<B>();
        assert_close("d vision", &read(backend, &d_vision, start.0.len()), &expected.0, tolerance);
        assert_close("d text", &read(backend, &d_text, start.1.len()), &expected.1, tolerance);
    }
}

fn marginals<B: Backend>(backend: &B) {
    let pairs = some_pairs();
    let mut out = rubbish(backend, pairs.vision.total());
    backend.uniform_marginal(&pairs.vision, &mut out).unwrap();
    let expected: Vec<f64> = [4, 1, 6].into_iter().flat_map(|t| vec![1.0 / f64::from(t); t as usize]).collect();
    assert_close("row marginal", &read(backend, &out, expected.len()), &expected, tolerance::<B>());

    // The second pair has one token, the third only zero weights.
    let weights = [0.5, 0.0, 0.25, 0.125, 0.0, 0.0];
    let mut column = rubbish(backend, pairs.text.total());
    backend.column_marginal(&upload(backend, &weights), &pairs, &mut column).unwrap();
    let found = read(backend, &column, weights.len());
    assert_close("column marginal", &found, &oracle::column_marginal(&weights, &pairs), tolerance::<B>());
    assert!(found[1] > 0.0, "marginals are strictly positive");
    assert_eq!(&found[4..], &[0.5, 0.5]);
}

fn column_marginal_backward_is_the_derivative<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(6), some_pairs());
    let weights = random.between(pairs.text.total(), 0.1, 1.0);
    let probe = random.values(weights.len());
    let start = random.values(weights.len());
    let mut d_weights = upload(backend, &start);
    let (w, d_column) = (upload(backend, &weights), upload(backend, &probe));
    backend.column_marginal_backward(&w, &pairs, &d_column, &mut d_weights).unwrap();
    let expected = central_differences(&weights, |w| dot(&probe, &oracle::column_marginal(w, &pairs)));
    let expected: Vec<f64> = expected.iter().zip(&start).map(|(gradient, start)| gradient + start).collect();
    assert_close("d weights", &read(backend, &d_weights, start.len()), &expected, difference_tolerance::<B>());

    // All weights zero: the marginal is uniform, whatever they are.
    let mut d_weights = upload(backend, &[0.0; 6]);
    backend.column_marginal_backward(&upload(backend, &[0.0; 6]), &pairs, &d_column, &mut d_weights).unwrap();
    assert_eq!(read(backend, &d_weights, 6), [0.0; 6]);
}

fn guided_cost<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(7), Pairs::new(&[2, 1], &[2, 3]).unwrap());
    let cost = random.between(7, 0.0, 1.0);
    let mask = [1.0, 0.25, 0.0, 1.0, 1.0, 0.5, 1.0];
    let weights = [0.5, 0.0, 1.0, 0.25, 0.75];
    let column = [0, 1, 0, 1, 2, 3, 4];
    let (c, m, w) = (upload(backend, &cost), upload(backend, &mask), upload(backend, &weights));
    let mut guided = rubbish(backend, 7);
    let t = tolerance::<B>();

    backend.guide_cost(&c, &pairs, None, f64::INFINITY, None, 0.5, &mut guided).unwrap();
    assert_close("plain", &read(backend, &guided, 7), &cost, t);

    backend.guide_cost(&c, &pairs, Some(&m), 3.0, Some(&w), 0.5, &mut guided).unwrap();
    let expected: Vec<f64> =
        (0..7).map(|x| cost[x] + 3.0 * (1.0 - mask[x]) + 0.5 * (1.0 - weights[column[x]])).collect();
    assert_close("soft", &read(backend, &guided, 7), &expected, t);

    backend.guide_cost(&c, &pairs, Some(&m), f64::INFINITY, None, 0.0, &mut guided).unwrap();
    let found = read(backend, &guided, 7);
    for x in 0..7 {
        let right = if mask[x] < 1.0 { found[x] == f64::INFINITY } else { (found[x] - cost[x]).abs() < t };
        assert!(right, "hard mask at {x}: {}", found[x]);
    }

    let probe = random.values(7);
    let mut d_weights = upload(backend, &[1.0; 5]);
    backend.guide_cost_backward(&upload(backend, &probe), &pairs, 0.5, &mut d_weights).unwrap();
    let mut expected = [1.0; 5];
    (0..7).for_each(|x| expected[column[x]] -= 0.5 * probe[x]);
    assert_close("d weights", &read(backend, &d_weights, 5), &expected, t);
}

/// All-zero shared codes on either side: cosine 0, weight 0, and no gradient anywhere.
fn zero_codes_carry_nothing<B: Backend>(backend: &B) {
    let pairs = Pairs::new(&[2], &[2]).unwrap();
    let k = SPLIT.k();
    let mut indices = vec![UNUSED; 2 * k];
    let mut values = vec![0.0; 2 * k];
    // Token 0 has a private entry only; token 1 has a shared one.
    (indices[3], values[3]) = (12, 1.0);
    (indices[k], values[k]) = (4, 0.5);
    let host = HostCodes { n: 2, shape: SPLIT, indices, values };
    let (vision, text): (Codes<B>, Codes<B>) = (host.upload(backend), host.upload(backend));
    let mut cost = rubbish(backend, 4);
    backend.cosine_cost(&vision, &text, &pairs, &mut cost).unwrap();
    assert_close("cost", &read(backend, &cost, 4), &[1.0, 1.0, 1.0, 0.0], tolerance::<B>());
    let mut weights = rubbish(backend, 2);
    backend.mass_weights(&vision, &text, &pairs, &mut weights).unwrap();
    assert_close("weights", &read(backend, &weights, 2), &[0.0, 1.0], tolerance::<B>());

    let (mut d_vision, mut d_text) = (upload(backend, &vec![0.0; 2 * k]), upload(backend, &vec![0.0; 2 * k]));
    let ones = upload(backend, &[1.0, 1.0, 1.0, 0.0]);
    backend.cosine_cost_backward(&vision, &text, &pairs, &cost, &ones, &mut d_vision, &mut d_text).unwrap();
    let d_weights = upload(backend, &[1.0, 0.0]);
    backend.mass_weights_backward(&vision, &text, &pairs, &d_weights, &mut d_vision, &mut d_text).unwrap();
    assert_eq!(read(backend, &d_vision, 2 * k), vec![0.0; 2 * k]);
    assert_eq!(read(backend, &d_text, 2 * k), vec![0.0; 2 * k]);
}
