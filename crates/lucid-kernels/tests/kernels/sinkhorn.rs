//! Sinkhorn against POT and the dense iteration, its diagnostics, its errors, and its unrolled derivative (spec 3).

use lucid_kernels::{Backend, KernelError, Pairs, Plan, SinkhornOptions};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::{
    Random, assert_close, central_differences, difference_tolerance, dot, epsilon, narrow, plan_of, read, some_pairs,
    tolerance, upload,
};
use crate::oracle;

on_every_backend!(
    ten_rounds_of_an_independent_solver,
    converges_to_an_independent_solver,
    equals_the_dense_iteration,
    diagnostics,
    stops_at_the_tolerance,
    excluded_entries_carry_nothing,
    an_emptied_row_or_column_is_an_error,
    transport_cost_and_its_gradient,
    backward_is_the_derivative,
    backward_leaves_excluded_entries_alone,
    a_sink_is_a_word_nobody_said,
    backward_of_a_plan_with_a_sink,
);

pub const TEN: SinkhornOptions = SinkhornOptions { epsilon: 0.1, iterations: 10, tolerance: 0.0, sink_mass: 0.0 };

/// The plan of `pairs` with uniform rows.
pub fn solve<B: Backend>(
    backend: &B,
    cost: &[f64],
    pairs: &Pairs,
    column: &[f64],
    options: SinkhornOptions,
) -> Result<Plan<B>, KernelError> {
    let mut row = backend.zeros(pairs.vision.total())?;
    backend.uniform_marginal(&pairs.vision, &mut row)?;
    let mut plan = Plan::new(backend, pairs)?;
    backend.sinkhorn(&upload(backend, cost), pairs, &row, &upload(backend, column), options, &mut plan)?;
    backend.finish()?;
    Ok(plan)
}

struct Fixture {
    cost: Vec<f64>,
    column: Vec<f64>,
    ten: Vec<f64>,
    converged: Vec<f64>,
    pairs: Pairs,
    epsilon: f64,
    error_after_ten: f64,
}

fn fixtures() -> Vec<Fixture> {
    // Within the executable, which runs on machines without the source.
    let bytes = include_bytes!("../fixtures/sinkhorn.safetensors");
    let file = SafeTensors::deserialize(bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    let cases = (0..metadata.len()).map(|i| {
        let about: Value = serde_json::from_str(&metadata[&i.to_string()]).unwrap();
        let size = |name: &str| about[name].as_u64().unwrap() as usize;
        let tensor = |name: &str| -> Vec<f64> {
            let view = file.tensor(&format!("{i}.{name}")).unwrap();
            view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        };
        Fixture {
            cost: tensor("cost"),
            column: tensor("column"),
            ten: tensor("ten"),
            converged: tensor("converged"),
            pairs: Pairs::new(&[size("rows")], &[size("cols")]).unwrap(),
            epsilon: about["epsilon"].as_f64().unwrap(),
            error_after_ten: about["marginal_error_ten"].as_f64().unwrap(),
        }
    });
    cases.collect()
}

/// f64: 1e-9 of the largest entry; f32: 2e-4.
fn golden_tolerance<B: Backend>() -> f64 {
    if epsilon::<B>() < 1e-10 { 1e-9 } else { 2e-4 }
}

fn relative_to_peak(found: &[f64], expected: &[f64]) -> f64 {
    let peak = expected.iter().fold(0.0f64, |max, value| max.max(value.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / peak
}

fn ten_rounds_of_an_independent_solver<B: Backend>(backend: &B) {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 7);
    for (i, fixture) in fixtures.iter().enumerate() {
        let options = SinkhornOptions { epsilon: fixture.epsilon, ..TEN };
        let plan = solve(backend, &fixture.cost, &fixture.pairs, &fixture.column, options).unwrap();
        let error = relative_to_peak(&read(backend, &plan.plan, fixture.ten.len()), &fixture.ten);
        assert!(error < golden_tolerance::<B>(), "case {i}: {error:e}");
        let marginal = backend.read_vec(&plan.marginal_error, 1).unwrap()[0];
        let expected = fixture.error_after_ten;
        assert!((marginal - expected).abs() < tolerance::<B>() * (1.0 + expected), "case {i}: {marginal} {expected}");
    }
}

fn converges_to_an_independent_solver<B: Backend>(backend: &B) {
    for (i, fixture) in fixtures().iter().enumerate() {
        let options =
            SinkhornOptions { epsilon: fixture.epsilon, iterations: 20_000, tolerance: 4.0 * epsilon::<B>(), ..TEN };
        let plan = solve(backend, &fixture.cost, &fixture.pairs, &fixture.column, options).unwrap();
        let error = relative_to_peak(&read(backend, &plan.plan, fixture.ten.len()), &fixture.converged);
        assert!(error < golden_tolerance::<B>(), "case {i}: {error:e}");
    }
}

/// Costs and column marginals of `pairs`, uniform rows.
fn problem(random: &mut Random, pairs: &Pairs) -> (Vec<f64>, Vec<f64>) {
    let cost = random.between(pairs.cells.total(), 0.0, 1.0);
    let weights = random.between(pairs.text.total(), 0.1, 1.0);
    (cost, oracle::column_marginal(&weights, pairs).into_iter().map(crate::common::round).collect())
}

fn oracle_plan(cost: &[f64], pairs: &Pairs, column: &[f64], options: SinkhornOptions) -> Vec<f64> {
    (0..pairs.len())
        .flat_map(|pair| {
            let rows = pairs.vision.length(pair);
            let (cost, column) = (&cost[pairs.cells.range(pair)], &column[pairs.text.range(pair)]);
            oracle::sinkhorn(cost, &vec![1.0 / rows as f64; rows], column, options.epsilon, options.iterations).0
        })
        .collect()
}

fn equals_the_dense_iteration<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(51), Pairs::new(&[23, 1, 8, 5], &[7, 4, 1, 19]).unwrap());
    let (cost, column) = problem(&mut random, &pairs);
    for iterations in [1, 2, 10] {
        let options = SinkhornOptions { iterations, ..TEN };
        let plan = solve(backend, &cost, &pairs, &column, options).unwrap();
        let expected = oracle_plan(&cost, &pairs, &column, options);
        assert_close("plan", &read(backend, &plan.plan, cost.len()), &expected, tolerance::<B>());
        assert_eq!(backend.read_vec(&plan.iterations, 4).unwrap(), [iterations as u32; 4]);
        for pair in 0..pairs.len() {
            let rows = pairs.vision.length(pair);
            let (part, column) = (&cost[pairs.cells.range(pair)], &column[pairs.text.range(pair)]);
            let (_, u, v) = oracle::sinkhorn(part, &vec![1.0 / rows as f64; rows], column, 0.1, iterations);
            let (found_u, found_v) =
                (read(backend, &plan.u, pairs.vision.total()), read(backend, &plan.v, pairs.text.total()));
            // u and v grow with exp(C/ε): their error is relative.
            for (found, expected) in [(&found_u[pairs.vision.range(pair)], u), (&found_v[pairs.text.range(pair)], v)] {
                let ratio: Vec<f64> = found.iter().zip(&expected).map(|(found, expected)| found / expected).collect();
                assert_close("scaling", &ratio, &vec![1.0; ratio.len()], tolerance::<B>());
            }
        }
    }
}

fn diagnostics<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(52), some_pairs());
    let (cost, column) = problem(&mut random, &pairs);
    let plan = solve(backend, &cost, &pairs, &column, SinkhornOptions { iterations: 3, ..TEN }).unwrap();
    let cells = read(backend, &plan.plan, cost.len());
    let expected = plan_of(backend, &pairs, &cells);
    let (n_v, n_t, t) = (pairs.vision.total(), pairs.text.total(), tolerance::<B>());
    let rows = read(backend, &expected.row_sums, n_v);
    assert_close("row sums", &read(backend, &plan.row_sums, n_v), &rows, t);
    let columns = read(backend, &expected.column_sums, n_t);
    assert_close("column sums", &read(backend, &plan.column_sums, n_t), &columns, t);
    let (errors, entropies, costs) = (
        backend.read_vec(&plan.marginal_error, 3).unwrap(),
        backend.read_vec(&plan.entropy, 3).unwrap(),
        backend.read_vec(&plan.transport_cost, 3).unwrap(),
    );
    for pair in 0..3 {
        let range = pairs.cells.range(pair);
        let uniform = 1.0 / pairs.vision.length(pair) as f64;
        let error: f64 = rows[pairs.vision.range(pair)].iter().map(|sum| (sum - uniform).abs()).sum();
        let entropy: f64 = cells[range.clone()].iter().map(|mass| -mass * mass.ln()).sum();
        assert_close("marginal error", &[errors[pair]], &[error], t);
        assert_close("entropy", &[entropies[pair]], &[entropy], t);
        assert_close("transport cost", &[costs[pair]], &[dot(&cells[range.clone()], &cost[range])], t);
    }
}

fn stops_at_the_tolerance<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(53), Pairs::new(&[12, 2], &[6, 1]).unwrap());
    let (cost, column) = problem(&mut random, &pairs);
    let options = SinkhornOptions { iterations: 500, tolerance: 1e-3, ..TEN };
    let plan = solve(backend, &cost, &pairs, &column, options).unwrap();
    let rounds = backend.read_vec(&plan.iterations, 2).unwrap();
    let errors = backend.read_vec(&plan.marginal_error, 2).unwrap();
    assert!(rounds[0] > 1 && rounds[0] < 500 && errors[0] < 1e-3, "{rounds:?} {errors:?}");
    assert_eq!(rounds[1], 1, "one column is exact after one round");
    let before = SinkhornOptions { iterations: rounds[0] as usize - 1, tolerance: 0.0, ..TEN };
    let plan = solve(backend, &cost, &pairs, &column, before).unwrap();
    assert!(backend.read_vec(&plan.marginal_error, 1).unwrap()[0] >= 1e-3, "stopped one round too late");
}

fn excluded_entries_carry_nothing<B: Backend>(backend: &B) {
    let pairs = Pairs::new(&[2], &[3]).unwrap();
    let inf = f64::INFINITY;
    let cost = [0.5, inf, 0.25, inf, 0.5, 0.75];
    let plan = solve(backend, &cost, &pairs, &[0.25, 0.25, 0.5], TEN).unwrap();
    let cells = read(backend, &plan.plan, 6);
    assert_eq!((cells[1], cells[3]), (0.0, 0.0));
    assert!(cells.iter().all(|mass| mass.is_finite()));
    assert_close("column 0", &[cells[0]], &[0.25], tolerance::<B>());
    assert!(backend.read_vec(&plan.transport_cost, 1).unwrap()[0].is_finite());
    assert!(backend.read_vec(&plan.entropy, 1).unwrap()[0].is_finite());
}

fn an_emptied_row_or_column_is_an_error<B: Backend>(backend: &B) {
    let pairs = Pairs::new(&[1, 2], &[1, 2]).unwrap();
    let (column, inf) = ([1.0, 0.5, 0.5], f64::INFINITY);
    let row = solve(backend, &[0.5, 0.5, 0.5, inf, inf], &pairs, &column, TEN).err();
    assert_eq!(row, Some(KernelError::EmptyMask { pair: 1, axis: "row", index: 1 }));
    let column_error = solve(backend, &[0.5, inf, 0.5, inf, 0.5], &pairs, &column, TEN).err();
    assert_eq!(column_error, Some(KernelError::EmptyMask { pair: 1, axis: "column", index: 0 }));

    // Counted from the batch's first pair; and once told, an error is over.
    let mut plan = Plan::new(backend, &pairs).unwrap();
    plan.first_pair = 5;
    let (rows, columns) = (upload(backend, &[1.0, 0.5, 0.5]), upload(backend, &column));
    let cost = upload(backend, &[0.5, 0.5, 0.5, inf, inf]);
    let told = backend.sinkhorn(&cost, &pairs, &rows, &columns, TEN, &mut plan).and_then(|()| backend.finish());
    assert_eq!(told, Err(KernelError::EmptyMask { pair: 6, axis: "row", index: 1 }));
    assert_eq!(backend.finish(), Ok(()));
}

fn transport_cost_and_its_gradient<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(54), some_pairs());
    let (mut cost, mut cells) =
        (random.between(pairs.cells.total(), 0.0, 1.0), random.between(pairs.cells.total(), 0.0, 0.2));
    let expected = dot(&cost, &cells) - cost[5] * cells[5];
    (cost[5], cells[5]) = (f64::INFINITY, 0.0);
    let plan = plan_of(backend, &pairs, &cells);
    let device = upload(backend, &cost);
    let mut sums = backend.upload(&[0.0, 2.0]).unwrap();
    backend.transport_cost(&device, &plan, &pairs, &mut sums, 1).unwrap();
    assert_close("⟨C, Π⟩", &backend.read_vec(&sums, 2).unwrap(), &[0.0, 2.0 + expected], tolerance::<B>());

    let start = random.values(cells.len());
    let (mut d_cost, mut d_plan) = (upload(backend, &start), upload(backend, &start));
    backend.transport_cost_backward(&device, &plan, &pairs, 0.5, &mut d_cost, Some(&mut d_plan)).unwrap();
    let by_cost: Vec<f64> = start.iter().zip(&cells).map(|(start, mass)| start + 0.5 * mass).collect();
    let by_plan: Vec<f64> =
        start.iter().zip(&cost).map(|(start, cost)| start + if cost.is_finite() { 0.5 * cost } else { 0.0 }).collect();
    assert_close("d cost", &read(backend, &d_cost, cells.len()), &by_cost, tolerance::<B>());
    assert_close("d plan", &read(backend, &d_plan, cells.len()), &by_plan, tolerance::<B>());
}

/// Gradients of ⟨probe, Π⟩ on top of `start`: (cost, column).
fn gradients<B: Backend>(
    backend: &B,
    cost: &[f64],
    pairs: &Pairs,
    column: &[f64],
    options: SinkhornOptions,
    probe: &[f64],
    start: (&[f64], &[f64]),
) -> (Vec<f64>, Vec<f64>) {
    let plan = solve(backend, cost, pairs, column, options).unwrap();
    let mut row = backend.zeros(pairs.vision.total()).unwrap();
    backend.uniform_marginal(&pairs.vision, &mut row).unwrap();
    let (c, m, g) = (upload(backend, cost), upload(backend, column), upload(backend, probe));
    let (mut d_cost, mut d_column) =
        (backend.upload(&narrow::<B::Real>(start.0)).unwrap(), backend.upload(&narrow::<B::Real>(start.1)).unwrap());
    backend.sinkhorn_backward(&c, pairs, &row, &m, options, &plan, &g, &mut d_cost, &mut d_column).unwrap();
    (read(backend, &d_cost, cost.len()), read(backend, &d_column, column.len()))
}

fn backward_is_the_derivative<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(55), some_pairs());
    let (cost, column) = problem(&mut random, &pairs);
    let probe = random.values(cost.len());
    let start = (random.values(cost.len()), random.values(column.len()));
    for iterations in [1, 3, 10] {
        let options = SinkhornOptions { iterations, ..TEN };
        let found = gradients(backend, &cost, &pairs, &column, options, &probe, (&start.0, &start.1));
        let by_cost = central_differences(&cost, |cost| dot(&probe, &oracle_plan(cost, &pairs, &column, options)));
        let by_column = central_differences(&column, |c| dot(&probe, &oracle_plan(&cost, &pairs, c, options)));
        let add = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
        // 1/ε multiplies every derivative: rounding too.
        let t = 10.0 * difference_tolerance::<B>();
        assert_close("d cost", &found.0, &add(&by_cost, &start.0), t);
        assert_close("d column", &found.1, &add(&by_column, &start.1), t);
    }
}

fn backward_leaves_excluded_entries_alone<B: Backend>(backend: &B) {
    let pairs = Pairs::new(&[2], &[3]).unwrap();
    let (cost, column) = ([0.5, f64::INFINITY, 0.25, 0.125, 0.5, 0.75], [0.25, 0.25, 0.5]);
    let probe = Random(56).values(6);
    let (d_cost, d_column) = gradients(backend, &cost, &pairs, &column, TEN, &probe, (&[0.0; 6], &[0.0; 3]));
    assert_eq!(d_cost[1], 0.0);
    assert!(d_cost.iter().chain(&d_column).all(|value| value.is_finite()));
    let finite = |free: &[f64]| [&free[..1], &[f64::INFINITY], &free[1..]].concat();
    let free = [0.5, 0.25, 0.125, 0.5, 0.75];
    let expected = central_differences(&free, |free| dot(&probe, &oracle_plan(&finite(free), &pairs, &column, TEN)));
    let found = [&d_cost[..1], &d_cost[2..]].concat();
    assert_close("d cost", &found, &expected, 10.0 * difference_tolerance::<B>());
}

/// `cost` and `column` with one more column in every pair: cost 1 everywhere, mass `mass`.
fn with_sink(cost: &[f64], pairs: &Pairs, column: &[f64], mass: f64) -> (Vec<f64>, Pairs, Vec<f64>) {
    let (mut wide, mut columns) = (Vec::new(), Vec::new());
    let (mut rows, mut widths) = (Vec::new(), Vec::new());
    for pair in 0..pairs.len() {
        let tokens = pairs.text.range(pair);
        for row in cost[pairs.cells.range(pair)].chunks_exact(tokens.len()) {
            wide.extend_from_slice(row);
            wide.push(1.0);
        }
        columns.extend(column[tokens.clone()].iter().map(|c| c * (1.0 - mass)));
        columns.push(mass);
        rows.push(pairs.vision.length(pair));
        widths.push(tokens.len() + 1);
    }
    (wide, Pairs::new(&rows, &widths).unwrap(), columns)
}

/// The entries of a plan with a sink that are not the sink's.
fn without_sink(plan: &[f64], pairs: &Pairs, wide: &Pairs) -> Vec<f64> {
    let rows = |pair| plan[wide.cells.range(pair)].chunks_exact(wide.text.length(pair));
    (0..pairs.len()).flat_map(|pair| rows(pair).flat_map(|row| row[..row.len() - 1].to_vec())).collect()
}

fn a_sink_is_a_word_nobody_said<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(57), some_pairs());
    let (cost, column) = problem(&mut random, &pairs);
    for (sink_mass, iterations) in [(0.3, 1), (0.3, 10), (0.8, 10)] {
        let options = SinkhornOptions { iterations, sink_mass, ..TEN };
        let (wide_cost, wide, wide_column) = with_sink(&cost, &pairs, &column, sink_mass);
        let expected = oracle_plan(&wide_cost, &wide, &wide_column, SinkhornOptions { sink_mass: 0.0, ..options });
        let plan = solve(backend, &cost, &pairs, &column, options).unwrap();
        let found = read(backend, &plan.plan, cost.len());
        assert_close("Π", &found, &without_sink(&expected, &pairs, &wide), 10.0 * tolerance::<B>());
        // The columns are exact after a round, and hold what the sink leaves.
        let sums = read(backend, &plan.column_sums, column.len());
        let left: Vec<f64> = column.iter().map(|c| c * (1.0 - sink_mass)).collect();
        assert_close("columns", &sums, &left, 10.0 * tolerance::<B>());
    }
}

fn backward_of_a_plan_with_a_sink<B: Backend>(backend: &B) {
    let (mut random, pairs) = (Random(58), some_pairs());
    let (cost, column) = problem(&mut random, &pairs);
    let probe = random.values(cost.len());
    let start = (vec![0.0; cost.len()], vec![0.0; column.len()]);
    for iterations in [1, 3, 10] {
        let options = SinkhornOptions { iterations, sink_mass: 0.4, ..TEN };
        let plan = |cost: &[f64], column: &[f64]| {
            let (wide_cost, wide, wide_column) = with_sink(cost, &pairs, column, 0.4);
            let plan = oracle_plan(&wide_cost, &wide, &wide_column, SinkhornOptions { sink_mass: 0.0, ..options });
            dot(&probe, &without_sink(&plan, &pairs, &wide))
        };
        let found = gradients(backend, &cost, &pairs, &column, options, &probe, (&start.0, &start.1));
        let by_cost = central_differences(&cost, |cost| plan(cost, &column));
        let by_column = central_differences(&column, |column| plan(&cost, column));
        let t = 10.0 * difference_tolerance::<B>();
        assert_close("d cost", &found.0, &by_cost, t);
        assert_close("d column", &found.1, &by_column, t);
    }
}
