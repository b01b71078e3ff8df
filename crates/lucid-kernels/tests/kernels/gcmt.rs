//! Guided matching as a whole (spec 3): everything that [`Transport`] holds, against the dense formulas.

use lucid_kernels::{
    Backend, CodeShape, Codes, Device, KernelError, Pairs, Scalar, Selection, SinkhornOptions, Transport,
    TransportOptions, UNUSED,
};

use crate::common::{GLOBAL, HostCodes, Random, SPLIT, assert_close, read, some_codes, some_pairs, tolerance, upload};
use crate::oracle;
use crate::sinkhorn::TEN;

on_every_backend!(
    every_part_is_the_formulas,
    pairs_of_the_papers_size,
    masks_forbid,
    a_sink_and_a_tolerance,
    codes_of_zeros_match_evenly,
    codes_with_more_slots_than_their_shape,
    an_emptied_row_or_column_is_named,
);

const PLAIN: TransportOptions =
    TransportOptions { sinkhorn: TEN, mass_reweighting: true, lambda_global: 0.0, mask_penalty: f64::INFINITY };

fn solve<B: Backend>(
    backend: &B,
    (vision, text): &(HostCodes, HostCodes),
    pairs: &Pairs,
    admissible: Option<&[f64]>,
    options: &TransportOptions,
) -> Result<Transport<B>, KernelError> {
    let mut transport = Transport::new(backend, pairs)?;
    let admissible = admissible.map(|mask| upload(backend, mask));
    transport.solve(backend, &vision.upload(backend), &text.upload(backend), pairs, admissible.as_ref(), options)?;
    Ok(transport)
}

/// Everything is what the formulas say; plans relative to their largest entry, which is small where a pair is large.
fn check<B: Backend>(backend: &B, codes: &(HostCodes, HostCodes), pairs: &Pairs, options: &TransportOptions) {
    let found = solve(backend, codes, pairs, None, options).unwrap();
    let (rows, columns, cells) = (pairs.vision.total(), pairs.text.total(), pairs.cells.total());
    let t = tolerance::<B>();
    let cost = oracle::cosine_cost(&codes.0, &codes.1, pairs);
    assert_close("cost", &read(backend, &found.cost, cells), &cost, t);
    let weights = oracle::mass_weights(&codes.0, &codes.1, pairs);
    if options.uses_weights() {
        assert_close("weights", &read(backend, &found.weights, columns), &weights, t);
    }
    let uniform = |lengths: &lucid_kernels::Ragged| -> Vec<f64> {
        (0..lengths.len()).flat_map(|s| vec![1.0 / lengths.length(s) as f64; lengths.length(s)]).collect()
    };
    let row = uniform(&pairs.vision);
    assert_close("row", &read(backend, &found.row, rows), &row, t);
    let column = if options.mass_reweighting { oracle::column_marginal(&weights, pairs) } else { uniform(&pairs.text) };
    assert_close("column", &read(backend, &found.column, columns), &column, t);
    let mut guided = cost;
    for pair in 0..pairs.len() {
        let tokens = pairs.text.range(pair);
        for (at, value) in guided[pairs.cells.range(pair)].iter_mut().enumerate() {
            *value += options.lambda_global * (1.0 - weights[tokens.start + at % tokens.len()]);
        }
    }
    assert_close("guided", &read(backend, &found.guided, cells), &guided, t);
    let plan = read(backend, &found.plan.plan, cells);
    let SinkhornOptions { epsilon, iterations, .. } = options.sinkhorn;
    for pair in 0..pairs.len() {
        let (cells, rows, tokens) = (pairs.cells.range(pair), pairs.vision.range(pair), pairs.text.range(pair));
        let expected = oracle::sinkhorn(&guided[cells.clone()], &row[rows], &column[tokens], epsilon, iterations).0;
        let peak = expected.iter().fold(0.0f64, |peak, mass| peak.max(*mass));
        let scaled = |masses: &[f64]| masses.iter().map(|mass| mass / peak).collect::<Vec<_>>();
        assert_close("plan", &scaled(&plan[cells]), &scaled(&expected), 4.0 * t);
    }
}

/// Lengths that are no multiple of anything, from one token on; few and many shared latents; with and without weights.
fn every_part_is_the_formulas<B: Backend>(backend: &B) {
    let wide = CodeShape { d_shared: 1100, d_private: 5, k_shared: 20, k_private: 3, selection: Selection::Split };
    let narrow = CodeShape { d_shared: 1, d_private: 2, k_shared: 1, k_private: 2, selection: Selection::Global };
    let cases = [
        (some_pairs(), SPLIT),
        (some_pairs(), GLOBAL),
        (Pairs::new(&[33, 1, 9], &[7, 1, 37]).unwrap(), SPLIT),
        (Pairs::new(&[17, 65], &[34, 3]).unwrap(), wide),
        (Pairs::new(&[5, 2], &[2, 6]).unwrap(), narrow),
    ];
    for (index, (pairs, shape)) in cases.iter().enumerate() {
        let codes = some_codes(&mut Random(80 + index as u64), pairs, *shape);
        for (mass_reweighting, lambda_global) in [(true, 0.0), (true, 0.3), (false, 0.3), (false, 0.0)] {
            check(backend, &codes, pairs, &TransportOptions { mass_reweighting, lambda_global, ..PLAIN });
        }
    }
}

/// 196 and 256 patches, 64 words, 1536 shared latents of which 16 fire.
fn pairs_of_the_papers_size<B: Backend>(backend: &B) {
    let shape = CodeShape { d_shared: 1536, d_private: 64, k_shared: 16, k_private: 4, selection: Selection::Split };
    for (patches, words) in [(196, 64), (256, 64), (256, 1), (1, 64)] {
        let pairs = Pairs::new(&[patches], &[words]).unwrap();
        check(backend, &some_codes(&mut Random(patches as u64), &pairs, shape), &pairs, &PLAIN);
    }
    // Latents that fire for most of the words: lists that are longer than the lanes that walk them.
    let few = CodeShape { d_shared: 18, ..shape };
    let pairs = Pairs::new(&[50, 7], &[64, 13]).unwrap();
    check(backend, &some_codes(&mut Random(90), &pairs, few), &pairs, &PLAIN);
}

/// A mask's penalty is added to the cost, an infinite one excludes; weights and marginals do not change.
fn masks_forbid<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(91), some_pairs());
    let codes = some_codes(&mut random, &pairs, SPLIT);
    let cells = pairs.cells.total();
    // Three cells of the first pair, one of them by half; nobody is left without a partner.
    let mask: Vec<f64> =
        (0..cells).map(|at| [1.0, 0.0, 0.5][usize::from(at == 1 || at == 5) + 2 * usize::from(at == 9)]).collect();
    let free = solve(backend, &codes, &pairs, None, &PLAIN).unwrap();
    for penalty in [0.7, f64::INFINITY] {
        let found =
            solve(backend, &codes, &pairs, Some(&mask), &TransportOptions { mask_penalty: penalty, ..PLAIN }).unwrap();
        let (cost, guided) = (read(backend, &found.cost, cells), read(backend, &found.guided, cells));
        assert_eq!(cost, read(backend, &free.cost, cells));
        assert_eq!(read(backend, &found.weights, 6), read(backend, &free.weights, 6));
        let plan = read(backend, &found.plan.plan, cells);
        for at in 0..cells {
            match mask[at] < 1.0 {
                false => assert_eq!(guided[at], cost[at]),
                true if penalty.is_finite() => {
                    let added = guided[at] - cost[at];
                    assert!((added - penalty * (1.0 - mask[at])).abs() < tolerance::<B>(), "{added}");
                }
                true => assert_eq!((guided[at], plan[at]), (f64::INFINITY, 0.0)),
            }
        }
        let columns: Vec<f64> = read(backend, &found.plan.column_sums, pairs.text.total());
        assert_close("columns", &columns, &read(backend, &found.column, columns.len()), tolerance::<B>());
    }
}

/// With a sink and with a tolerance: what the reference's operations give, its diagnostics included.
fn a_sink_and_a_tolerance<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(92), Pairs::new(&[12, 3, 30], &[6, 2, 11]).unwrap());
    let codes = some_codes(&mut random, &pairs, GLOBAL);
    let reference = Scalar::<f64>::new();
    for (sink_mass, tolerance_of_rows) in [(0.2, 0.0), (0.0, 1e-2), (0.35, 2e-2)] {
        let sinkhorn = SinkhornOptions { sink_mass, tolerance: tolerance_of_rows, iterations: 40, ..TEN };
        let options = TransportOptions { sinkhorn, lambda_global: 0.1, ..PLAIN };
        let found = solve(backend, &codes, &pairs, None, &options).unwrap();
        let expected = solve(&reference, &codes, &pairs, None, &options).unwrap();
        let t = 10.0 * tolerance::<B>();
        let cells = pairs.cells.total();
        assert_close("plan", &read(backend, &found.plan.plan, cells), &read(&reference, &expected.plan.plan, cells), t);
        let rounds = backend.read_vec(&found.plan.iterations, 3).unwrap();
        assert_eq!(rounds, reference.read_vec(&expected.plan.iterations, 3).unwrap());
        for (name, found, expected) in [
            ("marginal error", &found.plan.marginal_error, &expected.plan.marginal_error),
            ("entropy", &found.plan.entropy, &expected.plan.entropy),
            ("transport cost", &found.plan.transport_cost, &expected.plan.transport_cost),
        ] {
            let expected = reference.read_vec(expected, 3).unwrap();
            assert_close(name, &backend.read_vec(found, 3).unwrap(), &expected, t);
        }
    }
}

/// No shared entry on either side: cost 1 everywhere, weights 0, and so the even plan.
fn codes_of_zeros_match_evenly<B: Backend>(backend: &B) {
    let pairs = Pairs::new(&[3, 2], &[2, 1]).unwrap();
    let empty = |n: usize| HostCodes {
        n,
        shape: SPLIT,
        indices: vec![UNUSED; n * SPLIT.k()],
        values: vec![0.0; n * SPLIT.k()],
    };
    let found = solve(backend, &(empty(5), empty(3)), &pairs, None, &TransportOptions { lambda_global: 0.5, ..PLAIN });
    let found = found.unwrap();
    assert_close("cost", &read(backend, &found.cost, 8), &[1.0; 8], 0.0);
    assert_close("weights", &read(backend, &found.weights, 3), &[0.0; 3], 0.0);
    let even = [1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 0.5, 0.5];
    assert_close("plan", &read(backend, &found.plan.plan, 8), &even, tolerance::<B>());
}

/// Codes that have more slots than their shape says may hold more shared entries than its k_shared: all of them count.
fn codes_with_more_slots_than_their_shape<B: Backend>(backend: &B) {
    fn plan<B: Backend>(backend: &B) -> Vec<f64> {
        let (pairs, k) = (Pairs::new(&[4], &[3]).unwrap(), SPLIT.k() + 2);
        // Six shared entries of nine latents, each token its own.
        let codes = |n: usize| {
            let slots = (0..n * k).map(|at| (at / k, at % k));
            let indices: Vec<u32> =
                slots.clone().map(|(t, s)| if s < 6 { ((t * 2 + s) % 9) as u32 } else { UNUSED }).collect();
            let values: Vec<f64> =
                slots.map(|(t, s)| if s < 6 { 1.0 + ((t * 3 + s * 5) % 7) as f64 } else { 0.0 }).collect();
            Codes { n, k, shape: SPLIT, indices: backend.upload(&indices).unwrap(), values: upload(backend, &values) }
        };
        let mut transport = Transport::new(backend, &pairs).unwrap();
        transport.solve(backend, &codes(4), &codes(3), &pairs, None, &PLAIN).unwrap();
        read(backend, &transport.plan.plan, 12)
    }
    assert_close("plan", &plan(backend), &plan(&Scalar::<f64>::new()), 10.0 * tolerance::<B>());
}

fn an_emptied_row_or_column_is_named<B: Backend>(backend: &B) {
    let pairs = Pairs::new(&[2, 2], &[1, 2]).unwrap();
    let codes = some_codes(&mut Random(93), &pairs, SPLIT);
    let error = |mask: &[f64]| solve(backend, &codes, &pairs, Some(mask), &PLAIN).err();
    let row = error(&[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    assert_eq!(row, Some(KernelError::EmptyMask { pair: 1, axis: "row", index: 1 }));
    let column = error(&[1.0, 1.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(column, Some(KernelError::EmptyMask { pair: 1, axis: "column", index: 1 }));
    // Counted from the batch's first pair; and once told, an error is over.
    let mut transport = Transport::new(backend, &pairs).unwrap();
    transport.plan.first_pair = 5;
    let (vision, text) = (codes.0.upload(backend), codes.1.upload(backend));
    let mask = upload(backend, &[1.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    let told = transport.solve(backend, &vision, &text, &pairs, Some(&mask), &PLAIN);
    assert_eq!(told, Err(KernelError::EmptyMask { pair: 5, axis: "row", index: 1 }));
    assert_eq!(backend.finish(), Ok(()));
}
