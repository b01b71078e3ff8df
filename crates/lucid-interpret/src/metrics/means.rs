//! The per-dimension mean of a modality over the evaluation set: the h̄ of R².

use crate::exact_sum::ExactSum;

/// Sums of one pair's activations by dimension.
pub(crate) fn sums_of(states: &[f32], d: usize) -> Vec<f64> {
    let mut sums = vec![0.0; d];
    for row in states.chunks_exact(d) {
        sums.iter_mut().zip(row).for_each(|(sum, &h)| *sum += f64::from(h));
    }
    sums
}

/// Mean by dimension over all tokens of all pairs.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    sums: Vec<ExactSum>,
    tokens: u64,
}

impl Means {
    pub(crate) fn new(d: usize) -> Self {
        Self { sums: vec![ExactSum::default(); d], tokens: 0 }
    }

    pub(crate) fn add(&mut self, sums: &[f64], tokens: usize) {
        self.sums.iter_mut().zip(sums).for_each(|(total, &sum)| total.add(sum));
        self.tokens += tokens as u64;
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    pub(crate) fn finish(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum.value() / self.tokens.max(1) as f64).collect()
    }
}
