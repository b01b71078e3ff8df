//! Counter-based random numbers: a value is a pure function of a key and a position.
//!
//! Nothing keeps a state between draws, so the same numbers come out whatever the order, the threads or the point at
//! which a run was resumed.

use std::f64::consts::TAU;

/// What a stream of random numbers is for. Part of the key, so that two uses never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Rows of a decoder.
    Decoder = 1,
    /// Columns of an encoder that is not tied.
    Encoder = 2,
    /// The permutation of the pairs of an epoch.
    Order = 3,
    /// The sample of tokens that the paired initialisation looks at.
    TokenSample = 4,
    /// The sample of pairs that the co-activation start looks at.
    PairSample = 5,
    /// The modality that a step of a universal autoencoder encodes.
    Modality = 6,
}

/// SplitMix64's finaliser: a bijection of 64-bit words that passes for random on consecutive inputs.
#[must_use]
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A stream of random numbers under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of `purpose` under `seed`.
    #[must_use]
    pub const fn new(seed: u64, purpose: Purpose) -> Self {
        Self { key: mix(seed ^ 0x9e37_79b9_7f4a_7c15) }.child(purpose as u64)
    }

    /// An independent stream, numbered `index`.
    #[must_use]
    pub const fn child(self, index: u64) -> Self {
        // Mixed twice: once would make child i of key k equal child j of key k' whenever the sums agree.
        Self { key: mix(mix(self.key).wrapping_add(mix(index.wrapping_add(0x632b_e59b_d9b4_e019)))) }
    }

    /// The 64 random bits at `position`.
    #[must_use]
    pub const fn bits(self, position: u64) -> u64 {
        mix(self.key.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number in (0, 1) at `position`, 53 bits.
    #[must_use]
    pub fn uniform(self, position: u64) -> f64 {
        // Half a step above the lower edge: never 0, so that its logarithm exists.
        ((self.bits(position) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// A standard normal number at `position` (Box–Muller).
    #[must_use]
    pub fn normal(self, position: u64) -> f64 {
        let radius = (-2.0 * self.uniform(2 * position).ln()).sqrt();
        radius * (TAU * self.uniform(2 * position + 1)).cos()
    }

    /// A direction drawn uniformly from the unit sphere, written into `row`.
    pub fn direction(self, row: &mut [f32]) {
        let normals: Vec<f64> = (0..row.len()).map(|i| self.normal(i as u64)).collect();
        let norm = normals.iter().map(|x| x * x).sum::<f64>().sqrt();
        for (out, x) in row.iter_mut().zip(&normals) {
            // A norm of 0 needs every one of the 53-bit uniforms at its edge; the guard costs nothing.
            *out = (x / norm.max(f64::MIN_POSITIVE)) as f32;
        }
    }
}

/// A keyed permutation of 0..n: position → element, in constant time and memory.
///
/// A four-round Feistel network over the smallest even number of bits that holds n, walked until it lands below n.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    stream: Stream,
    n: u64,
    half_bits: u32,
}

impl Permutation {
    /// The permutation of 0..`n` under `stream`.
    #[must_use]
    pub const fn new(stream: Stream, n: u64) -> Self {
        let bits = if n < 2 { 2 } else { 64 - (n - 1).leading_zeros() };
        Self { stream, n, half_bits: bits.div_ceil(2) }
    }

    /// The element at `position` (< n).
    #[must_use]
    pub const fn at(&self, position: u64) -> u64 {
        let mut element = self.feistel(position);
        // The domain is at most 4 n, so the walk is short; it ends because the network is a bijection.
        while element >= self.n {
            element = self.feistel(element);
        }
        element
    }

    const fn feistel(&self, word: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = ((word >> self.half_bits) & mask, word & mask);
        let mut round = 0;
        while round < 4 {
            let next = left ^ (self.stream.child(round).bits(right) & mask);
            left = right;
            right = next;
            round += 1;
        }
        (left << self.half_bits) | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_permutation_visits_every_element_once(seed: u64, n in 1_u64..3000) {
            let permutation = Permutation::new(Stream::new(seed, Purpose::Order), n);
            let mut seen: Vec<u64> = (0..n).map(|position| permutation.at(position)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn permutations_of_different_keys_differ() {
        let order = |epoch| {
            let permutation = Permutation::new(Stream::new(7, Purpose::Order).child(epoch), 100);
            (0..100).map(|position| permutation.at(position)).collect::<Vec<_>>()
        };
        assert_eq!(order(0), order(0));
        assert_ne!(order(0), order(1));
        let kept = order(0).iter().zip(order(1)).filter(|(a, b)| **a == *b).count();
        assert!(kept < 10, "{kept} of 100 positions agree; one is expected");
    }

    #[test]
    fn normals_have_the_moments_of_a_normal_distribution() {
        let stream = Stream::new(3, Purpose::Decoder);
        let n = 40_000;
        let x: Vec<f64> = (0..n).map(|i| stream.normal(i)).collect();
        let moment = |power| x.iter().map(|x| x.powi(power)).sum::<f64>() / n as f64;
        // Five standard errors of each sample moment: sqrt(var/n) with var = 1, 2, 96.
        assert!(moment(1).abs() < 5.0 * (1.0 / n as f64).sqrt());
        assert!((moment(2) - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt());
        assert!((moment(4) - 3.0).abs() < 5.0 * (96.0 / n as f64).sqrt());
    }
}
