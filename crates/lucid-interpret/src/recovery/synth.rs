//! The truth of activation-level synthetic pairs.

use lucid_data::synth::{NONE, SynthTruth};

use super::truth::{Link, MemoryTruth, PairTruth, TruthConcept};

/// The truth as recovery reads it: the shared concepts, of kind `concept`, each named as in the captions. A patch or
/// token shows its concept with strength 1; every token that names one is linked to the patches that show it.
#[must_use]
pub fn synth_truth(truth: &SynthTruth) -> MemoryTruth {
    let named = |name: String| TruthConcept { words: vec![name.clone()], name, kind: "concept".into() };
    let concepts = (0..truth.concepts).map(|c| named(format!("concept{c}"))).collect();
    let shown = |concepts: &[u32]| -> Vec<Vec<(u32, f32)>> {
        concepts.iter().map(|&concept| if concept == NONE { Vec::new() } else { vec![(concept, 1.0)] }).collect()
    };
    let pairs = truth
        .pairs
        .iter()
        .map(|pair| {
            let link = |token: usize| {
                let patches: Vec<(u32, f32)> =
                    pair.patches_of(token).into_iter().map(|patch| (patch as u32, 1.0)).collect();
                (!patches.is_empty()).then(|| Link { token, concept: pair.token_concept[token], patches })
            };
            PairTruth {
                patches: shown(&pair.patch_concept),
                tokens: shown(&pair.token_concept),
                links: (0..pair.token_concept.len()).filter_map(link).collect(),
            }
        })
        .collect();
    MemoryTruth { concepts, pairs }
}
