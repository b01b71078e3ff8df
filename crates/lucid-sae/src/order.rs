//! Which pairs, with which caption, make up a step: a pure function of (seed, step).
//!
//! The pairs of every epoch form one endless sequence: epoch e takes positions e·n … e·n + n − 1, each pair once, in an
//! order that depends on (seed, e) only. Step s takes the next `batch` positions, so a batch may run across the end of
//! an epoch: no pair is ever dropped or repeated within an epoch. A run of whole epochs ends with a shorter batch
//! where `batch` does not divide; a run of `steps` has full batches only. Resuming needs the step and nothing else.

use lucid_data::caption_of;

use crate::config::{Config, Order};
use crate::rng::{Permutation, Purpose, Stream};

/// One pair of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Index in the store.
    pub pair: usize,
    /// Epoch in which it is visited, from 0.
    pub epoch: u64,
}

/// The sequence of visits of a run.
#[derive(Clone, Debug)]
pub struct DataOrder {
    pairs: u64,
    batch: u64,
    end: u64,
    order: Order,
    seed: u64,
}

impl DataOrder {
    /// The order of a run of `config` over `pairs` (at least 1) pairs. A batch is never larger than the store: the
    /// same pair twice in a step would add nothing but time.
    #[must_use]
    pub fn new(config: &Config, pairs: usize) -> Self {
        let pairs = pairs.max(1) as u64;
        let batch = (config.batch_pairs as u64).clamp(1, pairs);
        let end = match config.steps {
            0 => pairs.saturating_mul(config.epochs as u64),
            steps => batch.saturating_mul(steps as u64),
        };
        Self { pairs, batch, end, order: config.order, seed: config.seed }
    }

    /// Pairs of a full batch.
    #[must_use]
    pub const fn batch_pairs(&self) -> usize {
        self.batch as usize
    }

    /// Steps of the run.
    #[must_use]
    pub const fn steps(&self) -> usize {
        self.end.div_ceil(self.batch) as usize
    }

    /// The visit at a position of the endless sequence.
    #[must_use]
    pub const fn visit(&self, position: u64) -> Visit {
        let (epoch, within) = (position / self.pairs, position % self.pairs);
        let pair = match self.order {
            Order::Sequential => within,
            Order::Shuffle => {
                Permutation::new(Stream::new(self.seed, Purpose::Order).child(epoch), self.pairs).at(within)
            }
        };
        Visit { pair: pair as usize, epoch }
    }

    /// The visits of `step`.
    #[must_use]
    pub fn batch(&self, step: usize) -> Vec<Visit> {
        let start = self.batch * step as u64;
        (start..(start + self.batch).min(self.end)).map(|position| self.visit(position)).collect()
    }

    /// Epoch, with its fraction, reached after `steps` steps.
    #[must_use]
    pub fn epoch_after(&self, steps: usize) -> f64 {
        (self.batch * steps as u64).min(self.end) as f64 / self.pairs as f64
    }

    /// The caption of a visit to a pair that has `captions` of them, chosen by (seed, epoch, pair).
    #[must_use]
    pub fn caption(&self, visit: Visit, captions: usize) -> usize {
        caption_of(self.seed, visit.epoch, visit.pair, captions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_epoch_visits_every_pair_once(
            pairs in 1_usize..200, batch_pairs in 1_usize..70, epochs in 1_usize..5, seed: u64, shuffle: bool,
        ) {
            let order = if shuffle { Order::Shuffle } else { Order::Sequential };
            let config = Config { batch_pairs, epochs, steps: 0, seed, order, ..Config::default() };
            let order = DataOrder::new(&config, pairs);
            let mut seen = vec![vec![0_usize; pairs]; epochs];
            for step in 0..order.steps() {
                let batch = order.batch(step);
                prop_assert!(!batch.is_empty());
                for visit in batch {
                    seen[visit.epoch as usize][visit.pair] += 1;
                }
            }
            prop_assert!(seen.iter().flatten().all(|count| *count == 1));
            prop_assert_eq!(order.epoch_after(order.steps()), epochs as f64);
        }
    }

    #[test]
    fn a_run_of_steps_has_full_batches_across_epochs() {
        let config = Config { batch_pairs: 4, steps: 5, order: Order::Sequential, ..Config::default() };
        let order = DataOrder::new(&config, 6);
        assert_eq!(order.steps(), 5);
        let pairs: Vec<Vec<usize>> = (0..5).map(|s| order.batch(s).iter().map(|v| v.pair).collect()).collect();
        assert_eq!(pairs, [[0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5], [0, 1, 2, 3], [4, 5, 0, 1]]);
    }
}
