//! Which caption of an image an epoch uses.

/// The caption of pair `pair` in epoch `epoch`, below `captions`: a hash of `(seed, epoch, pair)` alone, so it depends on
/// neither order, batch size nor what was read before. With one caption it is always 0.
///
/// # Panics
/// Where `captions` is 0; a store has at least one caption a pair.
pub fn caption_of(seed: u64, epoch: u64, pair: usize, captions: usize) -> usize {
    assert!(captions > 0, "pair {pair} has no caption");
    let hash = mix(mix(mix(seed).wrapping_add(epoch)).wrapping_add(pair as u64));
    // The upper half of the product is uniform below `captions` up to 2⁻⁶⁴ · captions.
    ((u128::from(hash) * captions as u128) >> 64) as usize
}

/// SplitMix64: the increment and the finaliser of its generator, a bijection of 64 bits.
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::caption_of;

    #[test]
    fn every_caption_comes_up_equally_often_and_epochs_differ() {
        let mut counts = [0u32; 5];
        let mut repeated = 0;
        for pair in 0..2000 {
            for epoch in 0..10 {
                counts[caption_of(3, epoch, pair, 5)] += 1;
                repeated += u32::from(caption_of(3, epoch, pair, 5) == caption_of(3, epoch + 1, pair, 5));
            }
        }
        // 20000 draws at 1/5: mean 4000, standard deviation √(20000 · 0.2 · 0.8) = 57; five of them either way.
        assert!(counts.iter().all(|&c| (3715..=4285).contains(&c)), "{counts:?}");
        assert!((3715..=4285).contains(&repeated), "{repeated} equal neighbours");
        assert!((0..50).any(|p| caption_of(3, 0, p, 5) != caption_of(4, 0, p, 5)));
        assert!((0..50).all(|p| caption_of(3, 7, p, 1) == 0));
    }
}
