//! Where training starts (spec 5, 5.2): dictionaries of random directions, or paired shared dictionaries.
//!
//! All of it happens in normalised units. Rows of W_dec always start with norm 1, with or without `unitNormDecoder`.
//! `tiedInit` copies W_decᵀ into W_enc; without it the encoder gets directions of its own, except for the shared
//! latents of a paired start, whose encoders are tied because the pairing would otherwise be lost at once.

use lucid_data::store::{ActivationSource, Statistics};
use lucid_kernels::Modality;
use rayon::prelude::*;

use crate::config::{Config, Initialise};
use crate::error::SaeError;
use crate::events::TrainObserver;
use crate::normalisation::Normalisation;
use crate::paired::paired_atoms;
use crate::params::{HostDictionary, HostParams, transpose};
use crate::pca::components;
use crate::rng::{Purpose, Stream};

/// Parameters at step 0, a pure function of the configuration and the data.
pub fn initialise(
    config: &Config,
    source: &dyn ActivationSource,
    statistics: &Statistics,
    normalisation: &Normalisation,
    observer: &dyn TrainObserver,
) -> Result<HostParams<f32>, SaeError> {
    let mut params = HostParams::zeros(source.d_vision(), source.d_text(), config.latents());
    let means = [&statistics.mean_vision, &statistics.mean_text];
    for (modality, mean) in Modality::ALL.into_iter().zip(means) {
        let dictionary = params.of_mut(modality);
        let d = dictionary.d;
        directions(config.seed, Purpose::Decoder, modality, d, &mut dictionary.w_dec);
        if config.bias_from_mean {
            let scaling = normalisation.of(modality);
            for (bias, (mean, centre)) in dictionary.b_dec.iter_mut().zip(mean.iter().zip(&scaling.mean)) {
                // Nearly 0 with centring: what the rounding of the stored mean leaves is not worth a bias.
                *bias =
                    if config.center { 0.0 } else { ((mean - f64::from(*centre)) * f64::from(scaling.scale)) as f32 };
            }
        }
    }
    if config.initialise == Initialise::Pca {
        for modality in Modality::ALL {
            params.of_mut(modality).w_dec = components(source, normalisation, modality, config.latents())?;
        }
    }
    let paired = matches!(config.initialise, Initialise::Paired | Initialise::Coactivation) && config.d_shared > 0;
    if paired {
        let atoms = paired_atoms(config, source, statistics, observer)?;
        for (modality, atoms) in [(Modality::Vision, &atoms.vision), (Modality::Text, &atoms.text)] {
            let dictionary = params.of_mut(modality);
            // A shorter list leaves the last shared latents at their random directions.
            dictionary.w_dec[..atoms.len()].copy_from_slice(atoms);
        }
    }
    for modality in Modality::ALL {
        let dictionary = params.of_mut(modality);
        let tied = if config.tied_init {
            config.latents()
        } else if paired {
            config.d_shared
        } else {
            0
        };
        tie(config.seed, modality, dictionary, tied);
    }
    Ok(params)
}

/// Sets W_enc: the first `tied` columns to the rows of W_dec, the others to directions of their own.
fn tie(seed: u64, modality: Modality, dictionary: &mut HostDictionary<f32>, tied: usize) {
    let (d, latents) = (dictionary.d, dictionary.latents);
    if tied == latents {
        dictionary.w_enc = transpose(&dictionary.w_dec, latents, d);
        return;
    }
    let mut rows = vec![0.0; latents * d];
    directions(seed, Purpose::Encoder, modality, d, &mut rows);
    rows[..tied * d].copy_from_slice(&dictionary.w_dec[..tied * d]);
    dictionary.w_enc = transpose(&rows, latents, d);
}

/// Fills `rows` \[n · d\] with independent uniform directions, row i from stream (seed, purpose, modality, i).
fn directions(seed: u64, purpose: Purpose, modality: Modality, d: usize, rows: &mut [f32]) {
    let stream = Stream::new(seed, purpose).child(modality as u64);
    rows.par_chunks_mut(d).enumerate().for_each(|(row, out)| stream.child(row as u64).direction(out));
}
