//! The embedded mini backbone: an ordinary checkpoint of the SigLIP layout, compiled in.

use crate::backbone::{Backbone, BackboneFiles};
use crate::error::VlmError;
use std::sync::{Mutex, PoisonError};

static LOADED: Mutex<Option<Backbone>> = Mutex::new(None);

impl Backbone {
    /// The embedded backbone, read once; later calls share its weights. It was trained on generated scenes only and is not
    /// comparable with a real SigLIP.
    ///
    /// # Errors
    /// As [`Backbone::load`], should the compiled-in files not fit together.
    pub fn mini() -> Result<Self, VlmError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(backbone) = &*loaded {
            return Ok(backbone.clone());
        }
        let backbone = Self::from_files(BackboneFiles {
            id: "mini",
            config: include_bytes!("../mini/config.json"),
            weights: &[("model.safetensors", include_bytes!("../mini/model.safetensors"))],
            tokenizer: include_bytes!("../mini/tokenizer.json"),
            tokenizer_config: None,
            preprocessor: Some(include_bytes!("../mini/preprocessor_config.json")),
        })?;
        *loaded = Some(backbone.clone());
        Ok(backbone)
    }
}
