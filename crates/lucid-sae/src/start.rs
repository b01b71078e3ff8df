//! Where a run starts: parameters, normalisation and variances at step 0, or those of a checkpoint.

use lucid_data::store::{ActivationSource, Statistics};
use lucid_kernels::DeadCounters;

use crate::batch::Sides;
use crate::checkpoint::Checkpoint;
use crate::config::{Activation, Method};
use crate::error::SaeError;
use crate::events::TrainObserver;
use crate::init::initialise;
use crate::init_file;
use crate::normalisation::{Normalisation, Variances};
use crate::params::{HostDictionary, HostParams};
use crate::threshold;
use crate::trainer::TrainOptions;

/// Where a run starts.
pub(crate) struct Start {
    /// Weights.
    pub params: HostParams<f32>,
    /// Centring and scaling.
    pub normalisation: Normalisation,
    /// Variances in normalised units.
    pub variances: Variances,
    /// The rest of a resumed run's state.
    pub resumed: Option<Resumed>,
}

/// What a resumed run has besides parameters.
pub(crate) struct Resumed {
    /// First moments.
    pub first: HostParams<f32>,
    /// Second moments.
    pub second: HostParams<f32>,
    /// Updates made.
    pub updates: u64,
    /// Dead-latent counters.
    pub dead: Sides<DeadCounters>,
    /// Steps finished.
    pub done: usize,
}

impl Start {
    /// Where a checkpoint stopped.
    pub fn from_checkpoint(c: Checkpoint) -> Self {
        Self {
            params: c.params,
            normalisation: c.normalisation,
            variances: c.state.variances,
            resumed: Some(Resumed {
                first: c.first,
                second: c.second,
                updates: c.updates,
                dead: c.dead,
                done: c.state.step,
            }),
        }
    }

    /// Step 0, from given parameters or from the data.
    pub fn fresh(
        options: &TrainOptions,
        source: &dyn ActivationSource,
        observer: &dyn TrainObserver,
    ) -> Result<Self, SaeError> {
        let config = &options.config;
        let statistics = source.statistics();
        check_statistics(source, &statistics)?;
        let given = match &options.init {
            Some(path) => Some(init_file::read(path, config, source.d_vision(), source.d_text())?),
            None => None,
        };
        let (params, normalisation) = given.map_or((None, None), |given| (Some(given.params), given.normalisation));
        let normalisation = match normalisation {
            Some(normalisation) => normalisation,
            None => Normalisation::from_statistics(config, &statistics)?,
        };
        let variances = Variances::new(config, &statistics, &normalisation)?;
        let params = match params {
            Some(params) => params,
            None => initialise(config, source, &statistics, &normalisation, observer)?,
        };
        let params = match config.method {
            Method::VlSae => one_encoder(params)?,
            _ => params,
        };
        let params = match (config.activation, &params.log_threshold) {
            (Activation::JumpRelu, None) => {
                let start = threshold::of_start(config, &params, &normalisation, variances, source)?;
                let of = |theta: f32| vec![theta.ln(); config.latents()];
                HostParams { log_threshold: Some(Sides { vision: of(start.vision), text: of(start.text) }), ..params }
            }
            (Activation::JumpRelu, Some(_)) => params,
            // Those of a model that training starts from mean nothing to another activation.
            _ => HostParams { log_threshold: None, ..params },
        };
        Ok(Self { params, normalisation, variances, resumed: None })
    }
}

/// VL-SAE's encoder of patches is also that of words.
fn one_encoder(params: HostParams<f32>) -> Result<HostParams<f32>, SaeError> {
    if params.vision.d != params.text.d {
        let found = format!("vl-sae with states of widths {} and {}", params.vision.d, params.text.d);
        return Err(SaeError::option("method", found, "states of one width: its encoder is one for both modalities"));
    }
    let text = HostDictionary { w_enc: params.vision.w_enc.clone(), ..params.text };
    Ok(HostParams { text, ..params })
}

/// Statistics that are not finite come from activations that are not: the first such pair is named.
fn check_statistics(source: &dyn ActivationSource, statistics: &Statistics) -> Result<(), SaeError> {
    let (v, m) = (statistics.variance, statistics.mean_square);
    if [v.vision, v.text, m.vision, m.text].iter().all(|x| x.is_finite()) {
        return Ok(());
    }
    let (mut vision, mut text) = (Vec::new(), Vec::new());
    for pair in 0..source.pairs() {
        vision.resize(source.vision_len(pair) * source.d_vision(), 0.0);
        text.resize(source.text_len(pair, 0) * source.d_text(), 0.0);
        source.read_vision(pair, &mut vision)?;
        source.read_text(pair, 0, &mut text)?;
        if vision.iter().chain(&text).any(|x| !x.is_finite()) {
            let pair = source.key(pair).to_owned();
            return Err(SaeError::NonFinite { what: "activations".into(), step: 0, pair, checkpoint: None });
        }
    }
    Err(SaeError::option("activations", "states too large for their variance", "states of an ordinary size"))
}
