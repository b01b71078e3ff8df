//! Counter-based random numbers: every draw is a pure function of a key and a counter.
//!
//! SplitMix64 (Steele, Lea and Flood 2014). Nothing here calls a transcendental function, so that the same seed gives
//! the same scene on every machine.

/// A stream of random numbers addressed by `(seed, index, domain)`.
#[derive(Debug, Clone)]
pub struct Stream {
    state: u64,
}

/// The finaliser of SplitMix64: a bijection of 64 bits that spreads every input bit over every output bit.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Stream {
    /// The stream of `(seed, index)`; `domain` keeps independent uses of the same pair apart.
    pub fn new(seed: u64, index: u64, domain: u64) -> Self {
        let key = mix(seed.wrapping_add(GOLDEN))
            ^ mix(index.wrapping_mul(0xD1B5_4A32_D192_ED03).wrapping_add(domain.wrapping_mul(GOLDEN)));
        Self { state: mix(key) }
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "a stream of random words never ends")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// A whole number in `0..n` (n ≥ 1) by multiply-shift; the bias is below n / 2^32.
    pub fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }

    /// A number in [0, 1) with 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// A number in [low, high).
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// One of `items`, each as likely as the others.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Puts `items` in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// A hash of a pixel as a number in [0, 1), for textures.
pub fn pixel_noise(key: u32, x: u32, y: u32) -> f32 {
    let mut h = key ^ x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA77);
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    h ^= h >> 15;
    (h >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_index_and_domain() {
        let first = |s, i, d| Stream::new(s, i, d).next();
        let all = [first(1, 0, 0), first(0, 1, 0), first(0, 0, 1), first(0, 0, 0), first(1, 1, 0)];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn draws_are_spread_evenly() {
        let mut stream = Stream::new(3, 9, 0);
        let mut counts = [0_usize; 7];
        let mut sum = 0.0_f64;
        for _ in 0..70_000 {
            counts[stream.below(7)] += 1;
            sum += f64::from(stream.unit());
        }
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
        assert!((sum / 70_000.0 - 0.5).abs() < 0.01);
    }
}
