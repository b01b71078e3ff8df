//! Hubness: whether few answers are near to everything. The skewness of how often an answer is among the nearest of a query.

/// Neighbours whose occurrences make hubness.
pub(super) const NEIGHBOURS: usize = 10;

/// Hubness in one direction.
pub(super) struct Hubs {
    pub skewness: f64,
    /// How the skewness changes as a pair counts more, in the order of pairs, to first order: its query gives places once more, and its
    /// answer is one number more. Which answers are nearest stays as it is.
    pub influence: Vec<f64>,
}

/// Hubness of `matrix` \[queries · answers\], n of both, by the `k` nearest answers.
pub(super) fn hubs(matrix: &[f32], n: usize, k: usize) -> Hubs {
    let places: Vec<Places> = matrix.chunks_exact(n).map(|row| Places::new(row, k)).collect();
    let counts = occurrences(matrix, n, &places);
    let moments = Moments::new(&counts);
    let slopes: Vec<f64> = counts.iter().map(|&count| moments.slope(count)).collect();
    let mut influence: Vec<f64> = counts.iter().map(|&count| moments.of_one_more(count)).collect();
    for (query, (row, places)) in matrix.chunks_exact(n).zip(&places).enumerate() {
        influence[query] += row.iter().zip(&slopes).map(|(&value, slope)| places.held(value) * slope).sum::<f64>();
    }
    Hubs { skewness: moments.skewness(), influence }
}

/// The skewness of `k` neighbours of `n` drawn at random: (1 − 2p) / √(np(1 − p)).
pub(super) fn at_random(n: usize, k: usize) -> f64 {
    let share = k as f64 / n as f64;
    let spread = (n as f64 * share * (1.0 - share)).sqrt();
    if spread > 0.0 { (1.0 - 2.0 * share) / spread } else { 0.0 }
}

/// The k nearest answers of a query; those that tie at the last place share what is left evenly.
struct Places {
    cut: f32,
    share: f64,
}

impl Places {
    fn new(row: &[f32], k: usize) -> Self {
        let mut sorted = row.to_vec();
        let (_, &mut cut, _) = sorted.select_nth_unstable_by(k - 1, |a: &f32, b| b.total_cmp(a));
        let above = row.iter().filter(|&&value| value > cut).count();
        let ties = row.iter().filter(|&&value| value == cut).count();
        Self { cut, share: (k - above) as f64 / ties as f64 }
    }

    /// How much of a place an answer of this value has.
    fn held(&self, value: f32) -> f64 {
        if value > self.cut {
            1.0
        } else if value == self.cut {
            self.share
        } else {
            0.0
        }
    }
}

/// How often each answer is among the nearest of a query.
fn occurrences(matrix: &[f32], n: usize, places: &[Places]) -> Vec<f64> {
    let mut counts = vec![0.0; n];
    for (row, places) in matrix.chunks_exact(n).zip(places) {
        counts.iter_mut().zip(row).for_each(|(count, &value)| *count += places.held(value));
    }
    counts
}

/// Central moments of numbers.
struct Moments {
    n: f64,
    mean: f64,
    second: f64,
    third: f64,
}

impl Moments {
    fn new(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let moment = |power: i32| values.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
        Self { n, mean, second: moment(2), third: moment(3) }
    }

    fn vary(&self) -> bool {
        self.second > 1e-24
    }

    /// m₃ / m₂^{3/2}, 0 where nothing varies.
    fn skewness(&self) -> f64 {
        if self.vary() { self.third / self.second.powf(1.5) } else { 0.0 }
    }

    /// The change of the skewness with changes of the two moments.
    fn change(&self, second: f64, third: f64) -> f64 {
        if !self.vary() {
            return 0.0;
        }
        (third - 1.5 * self.third * second / self.second) / (self.n * self.second.powf(1.5))
    }

    /// ∂ skewness / ∂ x of one of the numbers.
    fn slope(&self, x: f64) -> f64 {
        let x = x - self.mean;
        self.change(2.0 * x, 3.0 * (x * x - self.second))
    }

    /// ∂ skewness / ∂ weight of one of the numbers, all weights 1.
    fn of_one_more(&self, x: f64) -> f64 {
        let x = x - self.mean;
        self.change(x * x - self.second, x.powi(3) - self.third - 3.0 * self.second * x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(matrix: &[f32], n: usize, k: usize) -> Vec<f64> {
        let places: Vec<Places> = matrix.chunks_exact(n).map(|row| Places::new(row, k)).collect();
        occurrences(matrix, n, &places)
    }

    #[test]
    fn answers_that_tie_share_the_last_places() {
        let even = counted(&[0.0; 25], 5, 2);
        assert!(even.iter().all(|count| (count - 2.0).abs() < 1e-12));
        // One answer is near to every query.
        let hub: Vec<f32> = (0..25).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
        assert_eq!(counted(&hub, 5, 1), [5.0, 0.0, 0.0, 0.0, 0.0]);
        // As scipy.stats.skew gives it.
        assert!((Moments::new(&[1.0, 2.0, 3.0, 4.0, 10.0]).skewness() - 1.138_419_957_660_616_7).abs() < 1e-12);
        assert_eq!(Moments::new(&[2.0; 4]).skewness(), 0.0);
        let all = hubs(&hub, 5, 5);
        assert_eq!((all.skewness, all.influence), (0.0, vec![0.0; 5]), "everything is near");
    }

    /// Derivatives of the skewness against finite differences.
    #[test]
    fn the_skewness_changes_as_its_derivatives_say() {
        let values = [1.0, 2.0, 3.5, 4.0, 10.0, 0.5];
        let moments = Moments::new(&values);
        for at in 0..values.len() {
            let step = 1e-5;
            let with = |change: f64| {
                let mut other = values;
                other[at] += change;
                Moments::new(&other).skewness()
            };
            let found = (with(step) - with(-step)) / (2.0 * step);
            assert!((found - moments.slope(values[at])).abs() < 1e-8, "{found}");
            // One number weighs more or less, the others 1.
            let weighted = |weight: f64| {
                let of = |x: &dyn Fn(f64) -> f64| {
                    let sum = values.iter().enumerate().map(|(i, &v)| x(v) * if i == at { weight } else { 1.0 });
                    sum.sum::<f64>() / (5.0 + weight)
                };
                let mean = of(&|v| v);
                of(&|v| (v - mean).powi(3)) / of(&|v| (v - mean).powi(2)).powf(1.5)
            };
            let found = (weighted(1.0 + step) - weighted(1.0 - step)) / (2.0 * step);
            assert!((found - moments.of_one_more(values[at])).abs() < 1e-8, "{found}");
        }
    }

    /// The spread that the influences give against that of hubness over sets drawn anew. It is somewhat wide: how often an answer was near
    /// is uncertain itself, and the queries that made it so are drawn anew besides.
    #[test]
    fn the_spread_is_that_of_other_sets() {
        let (n, d, sets) = (300, 6, 60);
        let mut state = 1_u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1_u64 << 24) as f32 + 1e-7
        };
        let (mut found, mut said) = (Vec::new(), Vec::new());
        for _ in 0..sets {
            let mut points = || (0..n * d).map(|_| (-uniform().ln()).sqrt()).collect::<Vec<f32>>();
            let (queries, answers) = (points(), points());
            // Nearest by distance: answers in the middle are hubs.
            let near = |q: &[f32], a: &[f32]| -q.iter().zip(a).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
            let rows = queries.chunks_exact(d);
            let matrix: Vec<f32> =
                rows.flat_map(|q| answers.chunks_exact(d).map(move |a| near(q, a)).collect::<Vec<_>>()).collect();
            let hubs = hubs(&matrix, n, NEIGHBOURS);
            found.push(hubs.skewness);
            said.push(hubs.influence.iter().map(|x| x * x).sum::<f64>());
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let middle = mean(&found);
        let spread = mean(&found.iter().map(|x| (x - middle).powi(2)).collect::<Vec<_>>()).sqrt();
        let ratio = mean(&said).sqrt() / spread;
        assert!((0.8..1.8).contains(&ratio), "said {} found {spread}", mean(&said).sqrt());
    }
}
