//! Reads the states of one pair, and decides which caption stands in for the wrong one.

use lucid_data::store::ActivationSource;
use lucid_kernels::Modality;

use crate::error::{InterpretError, Result};

/// Raw activations of one pair: the patches, or the valid tokens of its first caption; `[tokens · d]`.
pub fn read_states(source: &dyn ActivationSource, pair: usize, modality: Modality) -> Result<Vec<f32>> {
    let mut states = match modality {
        Modality::Vision => vec![0.0; source.vision_len(pair) * source.d_vision()],
        Modality::Text => vec![0.0; source.text_len(pair, 0) * source.d_text()],
    };
    match modality {
        Modality::Vision => source.read_vision(pair, &mut states)?,
        Modality::Text => source.read_text(pair, 0, &mut states)?,
    }
    if states.iter().any(|h| !h.is_finite()) {
        let what = format!("a {} activation", modality.name());
        return Err(InterpretError::NonFinite { what, pair: source.key(pair).to_owned() });
    }
    Ok(states)
}

/// For every pair the pair whose caption is the wrong one for it: one cycle through all pairs, so that no pair keeps
/// its own caption and every caption is used once. The cycle's order is a hash of (seed, key): it depends on which
/// pairs there are, not on how they are ordered. `None` with fewer than two pairs.
#[must_use]
pub fn wrong_captions(source: &dyn ActivationSource, seed: u64) -> Option<Vec<usize>> {
    let n = source.pairs();
    if n < 2 {
        return None;
    }
    let mut cycle: Vec<([u8; 32], usize)> = (0..n)
        .map(|pair| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).update(source.key(pair).as_bytes());
            (*hasher.finalize().as_bytes(), pair)
        })
        .collect();
    cycle.sort_unstable();
    let mut wrong = vec![0; n];
    for (position, &(_, pair)) in cycle.iter().enumerate() {
        wrong[pair] = cycle[(position + 1) % n].1;
    }
    Some(wrong)
}
