//! The theory of Sinkhorn's iteration (spec 3 and 9) as properties.

use lucid_kernels::{Backend, Pairs, SinkhornOptions};

use crate::common::{Random, assert_close, epsilon, for_all, read, round, tolerance, upload};
use crate::oracle;
use crate::sinkhorn::{TEN, solve};

on_every_backend!(
    columns_are_exact_and_rows_converge,
    convergence_is_geometric_in_hilberts_metric,
    scalings_are_unique_up_to_the_gauge,
    cost_modulation_is_absorbed_at_convergence,
    permuting_columns_permutes_the_plan,
);

/// A pair of up to 40 × 12 with costs in [0, 1], uniform rows and positive columns.
struct Problem {
    pairs: Pairs,
    cost: Vec<f64>,
    column: Vec<f64>,
    random: Random,
}

fn problem(seed: u64, rows: usize, columns: usize) -> Problem {
    let mut random = Random(seed);
    let pairs = Pairs::new(&[rows], &[columns]).unwrap();
    let cost = random.between(rows * columns, 0.0, 1.0);
    let weights = random.between(columns, 0.05, 1.0);
    // Not rounded to f32: rows and columns must hold the same mass, or no plan meets both.
    let column = oracle::column_marginal(&weights, &pairs);
    Problem { pairs, cost, column, random }
}

const CONVERGED: SinkhornOptions = SinkhornOptions { epsilon: 0.25, iterations: 400, tolerance: 0.0, sink_mass: 0.0 };

fn columns_are_exact_and_rows_converge<B: Backend>(backend: &B) {
    for_all(16, &(0u64..1 << 32, 1usize..40, 1usize..12), |(seed, rows, columns)| {
        let Problem { pairs, cost, column, .. } = problem(seed, rows, columns);
        let plan = solve(backend, &cost, &pairs, &column, TEN).unwrap();
        assert_close("columns", &read(backend, &plan.column_sums, columns), &column, tolerance::<B>());
        let plan = solve(backend, &cost, &pairs, &column, CONVERGED).unwrap();
        let uniform = vec![1.0 / rows as f64; rows];
        assert_close("rows", &read(backend, &plan.row_sums, rows), &uniform, tolerance::<B>());
        assert!(read(backend, &plan.plan, rows * columns).iter().all(|&mass| mass > 0.0));
    });
}

/// Hilbert's projective metric of two positive vectors.
fn hilbert(a: &[f64], b: &[f64]) -> f64 {
    let ratios = a.iter().zip(b).map(|(a, b)| (a / b).ln());
    let (low, high) = ratios.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), r| (low.min(r), high.max(r)));
    high - low
}

/// Δ(K) = max over i, i', j, j' of ln (K_ij K_i'j' / (K_i'j K_ij')), from K = exp(−C/ε).
fn projective_diameter(cost: &[f64], rows: usize, columns: usize, epsilon: f64) -> f64 {
    let mut largest: f64 = 0.0;
    for (i, other) in (0..rows).flat_map(|i| (0..i).map(move |other| (i, other))) {
        let differences = (0..columns).map(|j| (cost[other * columns + j] - cost[i * columns + j]) / epsilon);
        let (low, high) =
            differences.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        largest = largest.max(high - low);
    }
    largest
}

/// d(u^{l+1}, u^l) ≤ κ d(u^l, u^{l−1}), κ = tanh(Δ/4)², up to the rounding of the logarithms.
fn convergence_is_geometric_in_hilberts_metric<B: Backend>(backend: &B) {
    for_all(12, &(0u64..1 << 32, 2usize..20, 2usize..9), |(seed, rows, columns)| {
        let Problem { pairs, cost, column, .. } = problem(seed, rows, columns);
        let scaling = |iterations| {
            let options = SinkhornOptions { epsilon: 0.25, iterations, tolerance: 0.0, sink_mass: 0.0 };
            let plan = solve(backend, &cost, &pairs, &column, options).unwrap();
            read(backend, &plan.u, rows)
        };
        let kappa = (projective_diameter(&cost, rows, columns, 0.25) / 4.0).tanh().powi(2);
        assert!(kappa < 1.0);
        let u: Vec<Vec<f64>> = (1..=8).map(scaling).collect();
        let distances: Vec<f64> = u.windows(2).map(|pair| hilbert(&pair[0], &pair[1])).collect();
        assert!(distances[0] > 0.0);
        for pair in distances.windows(2) {
            assert!(pair[1] <= kappa * pair[0] + tolerance::<B>(), "{} > {kappa} × {}", pair[1], pair[0]);
        }
    });
}

/// Adding a_i + b_j to the cost leaves the converged plan, and (u e^{−a/ε}, v e^{−b/ε}) differs from (u, v) by a gauge
/// (α, 1/α) only.
fn scalings_are_unique_up_to_the_gauge<B: Backend>(backend: &B) {
    for_all(12, &(0u64..1 << 32, 1usize..20, 1usize..9), |(seed, rows, columns)| {
        let Problem { pairs, cost, column, mut random } = problem(seed, rows, columns);
        let (a, b) = (random.between(rows, 0.0, 0.5), random.between(columns, 0.0, 0.5));
        let shifted: Vec<f64> =
            (0..rows * columns).map(|cell| round(cost[cell] + a[cell / columns] + b[cell % columns])).collect();
        let plain = solve(backend, &cost, &pairs, &column, CONVERGED).unwrap();
        let moved = solve(backend, &shifted, &pairs, &column, CONVERGED).unwrap();
        let cells = rows * columns;
        let expected = read(backend, &plain.plan, cells);
        // The shifted cost is rounded to f32, which moves exp(−C/ε) by 2^-24 / ε relative at most.
        let t = tolerance::<B>() + 4.0 * f64::from(f32::EPSILON);
        assert_close("plan", &read(backend, &moved.plan, cells), &expected, t);
        let ratio = |moved: Vec<f64>, plain: Vec<f64>, shift: &[f64]| -> Vec<f64> {
            let shift = shift.iter().map(|shift| (-shift / CONVERGED.epsilon).exp());
            moved.iter().zip(&plain).zip(shift).map(|((moved, plain), shift)| moved * shift / plain).collect()
        };
        let alpha = ratio(read(backend, &moved.u, rows), read(backend, &plain.u, rows), &a);
        let inverse = ratio(read(backend, &moved.v, columns), read(backend, &plain.v, columns), &b);
        let products: Vec<f64> =
            alpha.iter().flat_map(|alpha| inverse.iter().map(move |inverse| alpha * inverse)).collect();
        // The condition of the scalings is that of the fixed point, 1 / (1 − κ): allow ten times the rounding.
        assert_close("α · 1/α", &products, &vec![1.0; cells], 10.0 * t);
        let same: Vec<f64> = alpha.iter().map(|other| other / alpha[0]).collect();
        assert_close("α", &same, &vec![1.0; rows], 10.0 * t);
    });
}

/// λ_global adds a constant to each column, which v absorbs (spec 3, part 3): no change at convergence, but a change of
/// the first round.
fn cost_modulation_is_absorbed_at_convergence<B: Backend>(backend: &B) {
    for_all(12, &(0u64..1 << 32, 2usize..20, 2usize..9), |(seed, rows, columns)| {
        let Problem { pairs, cost, column, mut random } = problem(seed, rows, columns);
        let weights = upload(backend, &random.between(columns, 0.0, 1.0));
        let device = upload(backend, &cost);
        let mut guided = backend.zeros(cost.len()).unwrap();
        backend.guide_cost(&device, &pairs, None, f64::INFINITY, Some(&weights), 0.5, &mut guided).unwrap();
        let guided = read(backend, &guided, cost.len());
        let plan = |cost: &[f64], options| {
            read(backend, &solve(backend, cost, &pairs, &column, options).unwrap().plan, cost.len())
        };
        assert_close("converged", &plan(&guided, CONVERGED), &plan(&cost, CONVERGED), tolerance::<B>());
        let once = SinkhornOptions { iterations: 1, ..CONVERGED };
        let change = plan(&guided, once).iter().zip(plan(&cost, once)).map(|(a, b)| (a - b).abs()).sum::<f64>();
        assert!(change > 100.0 * epsilon::<B>(), "the first round does change: {change}");
    });
}

fn permuting_columns_permutes_the_plan<B: Backend>(backend: &B) {
    for_all(12, &(0u64..1 << 32, 1usize..20, 1usize..12), |(seed, rows, columns)| {
        let Problem { pairs, cost, column, mut random } = problem(seed, rows, columns);
        let mut order: Vec<usize> = (0..columns).collect();
        (1..columns).for_each(|i| order.swap(i, random.below(i + 1)));
        let permuted: Vec<f64> =
            (0..rows * columns).map(|cell| cost[cell / columns * columns + order[cell % columns]]).collect();
        let permuted_column: Vec<f64> = order.iter().map(|&j| column[j]).collect();
        let plan = read(backend, &solve(backend, &cost, &pairs, &column, TEN).unwrap().plan, cost.len());
        let found = read(backend, &solve(backend, &permuted, &pairs, &permuted_column, TEN).unwrap().plan, cost.len());
        let expected: Vec<f64> =
            (0..rows * columns).map(|cell| plan[cell / columns * columns + order[cell % columns]]).collect();
        assert_close("plan", &found, &expected, tolerance::<B>());
    });
}
