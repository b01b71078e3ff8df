//! Training that starts from given parameters: a model folder, or a safetensors file with the tensors of one.

use std::path::Path;

use crate::config::Config;
use crate::error::SaeError;
use crate::files::read_file;
use crate::model::Model;
use crate::normalisation::Normalisation;
use crate::params::HostParams;
use crate::tensors::TensorFile;
use crate::weights;

/// Parameters to start from.
#[derive(Debug)]
pub struct InitialModel {
    /// Weights.
    pub params: HostParams<f32>,
    /// The normalisation they were made for; `None` leaves it to the configuration and the data.
    pub normalisation: Option<Normalisation>,
}

/// Reads `path` for a run of `config` on states of these widths. Sizes that do not fit are refused (`E_SHAPE`), and so
/// is a normalisation that the configuration switches off (`E_OPTION`): the weights would mean something else.
pub fn read(path: &Path, config: &Config, d_vision: usize, d_text: usize) -> Result<InitialModel, SaeError> {
    if path.is_dir() {
        let model = Model::load(path)?;
        let widths = [("dVision", model.params.vision.d, d_vision), ("dText", model.params.text.d, d_text)];
        let latents = [
            ("dShared", model.config.d_shared, config.d_shared),
            ("dPrivate", model.config.d_private, config.d_private),
        ];
        for (name, found, expected) in widths.into_iter().chain(latents) {
            if found != expected {
                return Err(SaeError::Shape {
                    what: format!("{name} of {}", path.display()),
                    found: found.to_string(),
                    expected: expected.to_string(),
                });
            }
        }
        for (name, found, expected) in
            [("center", config.center, model.config.center), ("scale", config.scale, model.config.scale)]
        {
            if found != expected {
                return Err(SaeError::option(
                    name,
                    found,
                    format!("{expected}, as the model at {} has it", path.display()),
                ));
            }
        }
        return Ok(InitialModel { params: model.params, normalisation: Some(model.normalisation) });
    }
    let bytes = read_file(path, u64::MAX)?;
    let file = TensorFile::parse(path, &bytes)?;
    let params = weights::read_params(&file, path, d_vision, d_text, config.latents(), "")?;
    let normalisation = weights::read_normalisation(&file, path, d_vision, d_text)?;
    if normalisation.is_some() && !config.center && !config.scale {
        let expected = format!("true: {} holds weights for centred or scaled activations", path.display());
        return Err(SaeError::option("center", false, expected));
    }
    Ok(InitialModel { params, normalisation })
}
