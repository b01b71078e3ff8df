//! Thresholds that keep k entries a token on average: of a model that was trained with BatchTopK, so that a token's code no longer
//! depends on its batch, and of JumpReLU at the start. And the codes of models that have thresholds.

use lucid_data::store::{ActivationSource, PerModality};
use lucid_kernels::{Modality, UNUSED};

use crate::config::{Activation, Config};
use crate::error::SaeError;
use crate::jump::sort_falling;
use crate::model::{Codes, Model, Provenance};
use crate::normalisation::{Normalisation, Variances};
use crate::params::HostParams;
use crate::selection::wide_shape;

/// Pairs looked at, spread evenly over the store.
const PAIRS: usize = 512;

/// The same at the start of a run whose thresholds are learnt; never 0, since logarithms are.
pub(crate) fn of_start(
    config: &Config,
    params: &HostParams<f32>,
    normalisation: &Normalisation,
    variances: Variances,
    source: &dyn ActivationSource,
) -> Result<PerModality<f32>, SaeError> {
    const LEAST: f32 = 1e-4;
    let config = Config { activation: Activation::BatchTopk, ..config.clone() };
    let start = Model::new(config, params.clone(), normalisation.clone(), variances, Provenance::default())?;
    let PerModality { vision, text } = calibrate(&start, source)?;
    Ok(PerModality { vision: vision.max(LEAST), text: text.max(LEAST) })
}

/// The values above which the training pairs keep k entries a token on average: the (k·N)-th largest of a sample, for each
/// modality. 0 where the sample has no more positive entries than that.
pub(crate) fn calibrate(model: &Model, source: &dyn ActivationSource) -> Result<PerModality<f32>, SaeError> {
    let pairs = source.pairs().min(PAIRS);
    let of = |modality: Modality| -> Result<f32, SaeError> {
        let (mut values, mut tokens) = (Vec::new(), 0);
        for pair in (0..pairs).map(|at| at * source.pairs() / pairs) {
            let length = match modality {
                Modality::Vision => source.vision_len(pair),
                Modality::Text => source.text_len(pair, 0),
            };
            let mut states = vec![0.0; length * model.width(modality)];
            match modality {
                Modality::Vision => source.read_vision(pair, &mut states)?,
                Modality::Text => source.read_text(pair, 0, &mut states)?,
            }
            let codes = model.encode_shaped(&states, modality, wide_shape(&model.config))?;
            let used = codes.indices.iter().zip(&codes.values).filter(|(index, _)| **index != UNUSED);
            values.extend(used.map(|(_, value)| *value));
            tokens += length;
        }
        let keep = model.config.k() * tokens;
        if keep == 0 || keep >= values.len() {
            return Ok(0.0);
        }
        let (_, cut, _) = values.select_nth_unstable_by(keep - 1, |a, b| b.total_cmp(a));
        Ok(*cut)
    };
    Ok(PerModality { vision: of(Modality::Vision)?, text: of(Modality::Text)? })
}

/// Codes of what pre-activations exceed their thresholds by, turned into the pre-activations; by falling value.
pub(crate) fn above_learnt(excess: Codes, log_threshold: &[f32]) -> Codes {
    let mut codes = above(excess, 0.0);
    let slots = codes.k_shared;
    for (indices, values) in codes.indices.chunks_exact_mut(slots).zip(codes.values.chunks_exact_mut(slots)) {
        let used = indices.iter().zip(&*values).filter(|(index, _)| **index != UNUSED);
        let mut row: Vec<(u32, f32)> = used.map(|(&i, &x)| (i, x + log_threshold[i as usize].exp())).collect();
        sort_falling(&mut row);
        for (slot, (index, value)) in row.into_iter().enumerate() {
            (indices[slot], values[slot]) = (index, value);
        }
    }
    codes
}

/// Codes without the entries below `least`, in as many slots as the fullest token needs.
pub(crate) fn above(codes: Codes, least: f32) -> Codes {
    let width = codes.k_shared.max(1);
    let kept = |values: &[f32]| values.iter().take_while(|value| **value > 0.0 && **value >= least).count();
    let counts: Vec<usize> = codes.values.chunks_exact(width).map(kept).collect();
    let slots = counts.iter().copied().max().unwrap_or(0).max(1);
    let mut found = Codes {
        indices: vec![UNUSED; codes.n * slots],
        values: vec![0.0; codes.n * slots],
        n: codes.n,
        k_shared: slots,
        k_private: 0,
    };
    for (token, &count) in counts.iter().enumerate() {
        let (to, from) = (token * slots, token * width);
        found.indices[to..to + count].copy_from_slice(&codes.indices[from..from + count]);
        found.values[to..to + count].copy_from_slice(&codes.values[from..from + count]);
    }
    found
}
