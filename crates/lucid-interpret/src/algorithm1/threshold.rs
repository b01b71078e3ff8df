//! The threshold of stage 3: an exact quantile of all peak scores in bounded memory.
//!
//! A first pass counts scores in bins of under half a percent width. That tells in which bin the quantile lies; the
//! second pass keeps only that bin's scores.

/// Bits of an f64 below the bin: sign and exponent and 8 bits of the mantissa remain.
const SHIFT: u32 = 44;

fn bin_of(score: f64) -> usize {
    (score.to_bits() >> SHIFT) as usize
}

/// Counts of positive finite scores by bin.
#[derive(Debug, Clone)]
pub struct Histogram {
    bins: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: vec![0; bin_of(f64::MAX) + 1], count: 0 }
    }
}

/// Where a quantile lies: a bin, and the rank of the wanted score within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    bin: usize,
    /// From 0.
    rank: u64,
}

/// A score against a [`Cut`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Certainly not above the quantile.
    Below,
    /// To be decided once all scores of the bin are known.
    Near,
    /// Certainly above it.
    Above,
}

impl Histogram {
    /// Counts a score.
    pub fn add(&mut self, score: f64) {
        self.bins[bin_of(score)] += 1;
        self.count += 1;
    }

    /// Scores counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Where the nearest-rank quantile lies: the ⌈q · n⌉-th smallest score. `None` without scores.
    #[must_use]
    pub fn cut(&self, quantile: f64) -> Option<Cut> {
        let wanted = ((quantile * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut before = 0;
        for (bin, &count) in self.bins.iter().enumerate() {
            if before + count >= wanted {
                return (count > 0).then_some(Cut { bin, rank: wanted - before - 1 });
            }
            before += count;
        }
        None
    }
}

/// The threshold of a false-discovery rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibrated {
    /// Scores above it count; infinite where no score does.
    pub threshold: f64,
    /// Scores above it.
    pub above: u64,
    /// Scores of the null above it.
    pub above_by_chance: u64,
}

impl Histogram {
    /// The lowest threshold above which the scores of `null`, of as many trials, and one more are at most `fdr` of these: with that one a
    /// single score above all of chance is not enough, and few scores keep the rate too. It lies on the edge of a bin.
    #[must_use]
    pub fn calibrate(&self, null: &Self, fdr: f64) -> Calibrated {
        let mut best = Calibrated { threshold: f64::INFINITY, above: 0, above_by_chance: 0 };
        let (mut above, mut by_chance) = (0, 0);
        for bin in (0..self.bins.len()).rev() {
            above += self.bins[bin];
            by_chance += null.bins[bin];
            if self.bins[bin] > 0 && (by_chance + 1) as f64 <= fdr * above as f64 {
                // The largest number below the bin: every score in it is above.
                let edge = f64::from_bits((bin as u64) << SHIFT).next_down().max(0.0);
                best = Calibrated { threshold: edge, above, above_by_chance: by_chance };
            }
        }
        best
    }
}

impl Cut {
    /// Side of a score.
    #[must_use]
    pub fn side(&self, score: f64) -> Side {
        match bin_of(score).cmp(&self.bin) {
            std::cmp::Ordering::Less => Side::Below,
            std::cmp::Ordering::Equal => Side::Near,
            std::cmp::Ordering::Greater => Side::Above,
        }
    }

    /// The quantile, given all scores that were [`Side::Near`].
    ///
    /// # Panics
    /// Where scores are missing.
    #[must_use]
    pub fn value(&self, mut near: Vec<f64>) -> f64 {
        near.sort_by(f64::total_cmp);
        near[self.rank as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_sorted_quantile(scores in prop::collection::vec(1e-6f64..10.0, 1..200), quantile in 0.0f64..=1.0) {
            let mut histogram = Histogram::default();
            scores.iter().for_each(|&s| histogram.add(s));
            let cut = histogram.cut(quantile).unwrap();
            let near: Vec<f64> = scores.iter().copied().filter(|&s| cut.side(s) == Side::Near).collect();
            let value = cut.value(near);
            let mut sorted = scores.clone();
            sorted.sort_by(f64::total_cmp);
            let rank = ((quantile * scores.len() as f64).ceil() as usize).clamp(1, scores.len());
            prop_assert_eq!(value, sorted[rank - 1]);
            for &s in &scores {
                match cut.side(s) {
                    Side::Below => prop_assert!(s < value),
                    Side::Above => prop_assert!(s > value),
                    Side::Near => {}
                }
            }
        }
    }

    #[test]
    fn a_rate_of_false_discoveries_is_kept() {
        let histogram = |scores: &[f64]| {
            let mut histogram = Histogram::default();
            scores.iter().for_each(|&s| histogram.add(s));
            histogram
        };
        let real = histogram(&[0.1, 0.2, 0.3, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]);
        let null = histogram(&[0.1, 0.15, 0.2, 0.3, 0.3, 1.05]);
        let found = real.calibrate(&null, 0.2);
        // Of the seven from 1.0 on one is chance's and one is added: more than a fifth. Of the six from 1.1 on the added one is less.
        assert!(found.threshold < 1.1 && found.threshold > 1.05, "{found:?}");
        assert_eq!((found.above, found.above_by_chance), (6, 0));
        // One score that chance does not reach says nothing yet.
        assert_eq!(histogram(&[2.0]).calibrate(&histogram(&[0.1]), 0.5).above, 0);
        // Nothing but noise: no threshold will do.
        let found = null.calibrate(&null, 0.5);
        assert_eq!((found.threshold, found.above), (f64::INFINITY, 0));
    }

    #[test]
    fn no_score_has_no_quantile() {
        assert_eq!(Histogram::default().cut(0.95), None);
    }
}
