//! A sum that does not depend on the order of its terms.

/// Exact sum of f64 terms, rounded once when read (Shewchuk's expansion, as in Python's `math.fsum`).
///
/// Metrics are sums over pairs. Kept exactly, they come out with the same bits for every batch size, order of pairs
/// and number of threads. Terms must be finite.
#[derive(Debug, Clone, Default)]
pub struct ExactSum {
    /// Non-overlapping parts of growing magnitude; their sum is the exact one.
    parts: Vec<f64>,
}

impl ExactSum {
    /// Adds one finite term.
    pub fn add(&mut self, term: f64) {
        debug_assert!(term.is_finite(), "terms are checked where they are made");
        let mut rest = term;
        let mut kept = 0;
        for i in 0..self.parts.len() {
            let part = self.parts[i];
            let (large, small) = if rest.abs() < part.abs() { (part, rest) } else { (rest, part) };
            let high = large + small;
            let low = small - (high - large);
            if low != 0.0 {
                self.parts[kept] = low;
                kept += 1;
            }
            rest = high;
        }
        self.parts.truncate(kept);
        self.parts.push(rest);
    }

    /// The sum, rounded to the nearest f64.
    #[must_use]
    pub fn value(&self) -> f64 {
        let mut parts = self.parts.iter().rev().copied();
        let Some(mut high) = parts.next() else { return 0.0 };
        let mut low = 0.0;
        for part in parts.by_ref() {
            let before = high;
            high = before + part;
            low = part - (high - before);
            if low != 0.0 {
                break;
            }
        }
        // A remainder of exactly half a unit is rounded by what lies below it.
        if let Some(next) = parts.next()
            && ((low < 0.0 && next < 0.0) || (low > 0.0 && next > 0.0))
        {
            let twice = low * 2.0;
            let moved = high + twice;
            if twice == moved - high {
                high = moved;
            }
        }
        high
    }
}

/// Mean of terms, exact until read.
#[derive(Debug, Clone, Default)]
pub struct ExactMean {
    sum: ExactSum,
    count: u64,
}

impl ExactMean {
    /// Adds one finite term.
    pub fn add(&mut self, term: f64) {
        self.sum.add(term);
        self.count += 1;
    }

    /// Number of terms.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean; `None` without terms.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum.value() / self.count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cancels_exactly() {
        let mut sum = ExactSum::default();
        [1e100, 1.0, -1e100, 1e-30].into_iter().for_each(|x| sum.add(x));
        assert_eq!(sum.value(), 1.0);
        let mut tenths = ExactSum::default();
        (0..10).for_each(|_| tenths.add(0.1));
        assert_eq!(tenths.value(), 1.0);
        assert_eq!(ExactSum::default().value(), 0.0);
        assert_eq!(ExactMean::default().value(), None);
    }

    proptest! {
        #[test]
        fn does_not_depend_on_order(mut terms in prop::collection::vec(-1e12f64..1e12, 0..60), by in 0usize..60) {
            let sum = |terms: &[f64]| {
                let mut s = ExactSum::default();
                terms.iter().for_each(|&x| s.add(x * 1e-7));
                s.value().to_bits()
            };
            let before = sum(&terms);
            if !terms.is_empty() {
                let by = by % terms.len();
                terms.rotate_left(by);
                terms.reverse();
            }
            prop_assert_eq!(before, sum(&terms));
        }
    }
}
