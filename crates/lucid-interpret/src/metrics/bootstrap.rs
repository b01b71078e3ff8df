//! Confidence intervals of sums over pairs, by a bootstrap over images.
//!
//! The Poisson bootstrap: in each resample a pair counts Poisson(1) times, drawn from (seed, key of its image, resample) alone. It is
//! the ordinary bootstrap for many pairs, and can be summed in one pass, in any order and in any parts. Means that other sums
//! are taken about (the h̄ of R²) are those of all pairs in every resample.

use std::collections::BTreeMap;

use crate::evaluation::Interval;

/// How a number comes of two sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Σ a / Σ b.
    Ratio,
    /// 1 − Σ a / Σ b.
    OneMinusRatio,
}

/// How often one pair counts in every resample.
pub(crate) struct Weights(Vec<u8>);

impl Weights {
    #[cfg(test)]
    pub(crate) fn new(counts: Vec<u8>) -> Self {
        Self(counts)
    }

    /// How often it counts in every resample.
    pub(crate) fn all(&self) -> &[u8] {
        &self.0
    }

    /// How often it counts in one resample.
    pub(crate) fn of(&self, resample: usize) -> u8 {
        self.0.get(resample).copied().unwrap_or(0)
    }
}

/// The 2.5th and 97.5th percentiles (nearest rank), to six digits.
pub(crate) fn interval_of(mut values: Vec<f64>) -> Option<Interval> {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let rank = (share * values.len() as f64).ceil() as usize;
        rounded(values[rank.clamp(1, values.len()) - 1])
    };
    (!values.is_empty()).then(|| [at(0.025), at(0.975)])
}

/// Sums of every number in every resample.
#[derive(Debug, Default)]
pub(crate) struct Bootstrap {
    resamples: usize,
    seed: u64,
    sums: BTreeMap<String, (Form, Vec<[f64; 2]>)>,
    values: BTreeMap<String, Vec<f64>>,
}

/// SplitMix64's finaliser.
pub(super) fn mix(x: u64) -> u64 {
    let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A Poisson(1) number from a uniform one in [0, 1), by its distribution function.
fn poisson(uniform: f64) -> u8 {
    let (mut term, mut sum, mut count) = ((-1.0_f64).exp(), (-1.0_f64).exp(), 0_u8);
    while uniform >= sum && count < 20 {
        count += 1;
        term /= f64::from(count);
        sum += term;
    }
    count
}

impl Bootstrap {
    pub(crate) fn new(resamples: usize, seed: u64) -> Self {
        Self { resamples, seed, ..Self::default() }
    }

    /// Takes the values of a number in every resample that has one.
    pub(crate) fn insert(&mut self, path: &str, values: Vec<f64>) {
        self.values.insert(path.to_owned(), values);
    }

    /// A number in every resample to first order: it changes by `change` for every weight more that a key has.
    pub(crate) fn linear<'a>(&self, number: f64, changes: impl IntoIterator<Item = (&'a str, f64)>) -> Vec<f64> {
        let mut values = vec![number; self.resamples];
        for (key, change) in changes {
            let weights = self.weights(key);
            values.iter_mut().zip(weights.all()).for_each(|(value, &w)| *value += (f64::from(w) - 1.0) * change);
        }
        values
    }

    pub(crate) const fn resamples(&self) -> usize {
        self.resamples
    }

    /// The weights of what `key` names.
    pub(crate) fn weights(&self, key: &str) -> Weights {
        if self.resamples == 0 {
            return Weights(Vec::new());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"bootstrap").update(&self.seed.to_le_bytes()).update(key.as_bytes());
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        let start = u64::from_le_bytes(bytes);
        let draw = |resample: usize| {
            let word = mix(start.wrapping_add((resample as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            poisson((word >> 11) as f64 / (1_u64 << 53) as f64)
        };
        Weights((0..self.resamples).map(draw).collect())
    }

    /// Adds a pair's part of the number at `path` of the evaluation.
    pub(crate) fn add(&mut self, weights: &Weights, path: &str, form: Form, a: f64, b: f64) {
        if self.resamples == 0 {
            return;
        }
        if !self.sums.contains_key(path) {
            self.sums.insert(path.to_owned(), (form, vec![[0.0; 2]; self.resamples]));
        }
        let Some((_, sums)) = self.sums.get_mut(path) else { return };
        for (sum, &weight) in sums.iter_mut().zip(&weights.0) {
            if weight > 0 {
                sum[0] += f64::from(weight) * a;
                sum[1] += f64::from(weight) * b;
            }
        }
    }

    /// The 2.5th and 97.5th percentiles (nearest rank) of every number, to six digits: the order of summation changes more, and no
    /// interval is worth more. Resamples without a denominator are left out.
    pub(crate) fn finish(&self) -> BTreeMap<String, Interval> {
        let interval = |(path, (form, sums)): (&String, &(Form, Vec<[f64; 2]>))| {
            let value = |sum: &[f64; 2]| match form {
                Form::Ratio => sum[0] / sum[1],
                Form::OneMinusRatio => 1.0 - sum[0] / sum[1],
            };
            let values = sums.iter().filter(|sum| sum[1] > 0.0).map(value).collect();
            Some((path.clone(), interval_of(values)?))
        };
        let given = self.values.iter().filter_map(|(path, values)| Some((path.clone(), interval_of(values.clone())?)));
        self.sums.iter().filter_map(interval).chain(given).collect()
    }
}

/// Six significant digits.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let power = 10_f64.powi(5 - value.abs().log10().floor() as i32);
    (value * power).round() / power
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of n values has the standard error σ/√n; the interval is 1.96 of it to either side.
    #[test]
    fn the_interval_of_a_mean_is_that_of_the_normal_law() {
        let n = 2000;
        let mut bootstrap = Bootstrap::new(2000, 7);
        let value = |i: usize| (mix(i as u64 * 7919 + 1) >> 11) as f64 / (1_u64 << 53) as f64;
        for i in 0..n {
            let weights = bootstrap.weights(&format!("image {i}"));
            bootstrap.add(&weights, "mean", Form::Ratio, value(i), 1.0);
        }
        let [low, high] = bootstrap.finish()["mean"];
        let mean = (0..n).map(value).sum::<f64>() / n as f64;
        let half = 1.96 * (1.0 / 12.0_f64).sqrt() / (n as f64).sqrt();
        // The percentiles of 2000 resamples are themselves uncertain by about 5 % of the half width.
        assert!((low - (mean - half)).abs() < 0.2 * half && (high - (mean + half)).abs() < 0.2 * half, "{low} {high}");
        assert!(low < mean && mean < high);
    }

    #[test]
    fn weights_are_poisson_and_depend_on_the_key_alone() {
        let bootstrap = Bootstrap::new(5000, 1);
        let weights = bootstrap.weights("a").0;
        assert_eq!(weights, bootstrap.weights("a").0);
        assert_ne!(weights, bootstrap.weights("b").0);
        let n = weights.len() as f64;
        let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / n;
        let variance = weights.iter().map(|&w| (f64::from(w) - mean).powi(2)).sum::<f64>() / n;
        // Standard errors 0.014 and 0.024.
        assert!((mean - 1.0).abs() < 0.07 && (variance - 1.0).abs() < 0.12, "{mean} {variance}");
    }

    #[test]
    fn a_number_that_does_not_vary_has_an_interval_of_no_width() {
        let mut bootstrap = Bootstrap::new(200, 1);
        for i in 0..50 {
            let weights = bootstrap.weights(&i.to_string());
            bootstrap.add(&weights, "r2", Form::OneMinusRatio, 0.25, 1.0);
            bootstrap.add(&weights, "nothing", Form::Ratio, 0.0, 0.0);
        }
        let found = bootstrap.finish();
        assert_eq!(found["r2"], [0.75, 0.75]);
        assert!(!found.contains_key("nothing"));
        assert!(Bootstrap::new(0, 1).finish().is_empty());
        assert_eq!(rounded(0.123_456_789), 0.123_457);
        assert_eq!(rounded(-12_345_678.0), -12_345_700.0);
    }
}
