//! An atlas held for JavaScript.

use std::sync::Arc;

use lucid_data::store::{AnnotatedSource, StoreReader};
use lucid_interpret::{Atlas, Heatmap, HeatmapOf, ImageRef, score_labels};
use napi::bindgen_prelude::*;
use napi_derive::napi;

use crate::error::Failure;
use crate::model::NativeModel;

/// A loaded or new atlas.
#[napi]
pub struct NativeAtlas {
    pub(crate) atlas: Arc<Atlas>,
}

/// A heat map over the patches of one image.
#[napi(object, object_from_js = false)]
pub struct NativeHeatmap {
    /// Values row by row.
    pub values: Float32Array,
    /// Rows and columns.
    pub grid: Vec<u32>,
    /// Row and column of the hottest patch.
    pub peak: Vec<u32>,
}

impl From<Heatmap> for NativeHeatmap {
    fn from(heatmap: Heatmap) -> Self {
        Self { values: heatmap.values.into(), grid: heatmap.grid.to_vec(), peak: heatmap.peak.to_vec() }
    }
}

#[napi]
impl NativeAtlas {
    /// Loads the atlas in a folder.
    #[napi(factory, catch_unwind)]
    pub fn load(path: String) -> Result<Self> {
        Ok(Self { atlas: Arc::new(Atlas::load(path).map_err(Failure::from)?) })
    }

    /// The content of `atlas.json`.
    #[napi(catch_unwind)]
    pub fn data(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.atlas.index).map_err(Failure::from)?)
    }

    /// The `length` numbers of a heat map from `start` on.
    #[napi(catch_unwind)]
    pub fn map(&self, start: u32, length: u32) -> Result<Float32Array> {
        let (start, length) = (start as usize, length as usize);
        let values = self.atlas.heat.get(start..start.saturating_add(length));
        let values = values.ok_or_else(|| Failure::option("map", start, "the start of a heat map of this atlas"))?;
        Ok(values.to_vec().into())
    }

    /// A kept heat map; `of` and `image` as JSON.
    #[napi(catch_unwind)]
    pub fn heatmap(&self, of: String, image: String) -> Result<NativeHeatmap> {
        let of: HeatmapOf = serde_json::from_str(&of).map_err(Failure::from)?;
        let image: ImageRef = serde_json::from_str(&image).map_err(Failure::from)?;
        Ok(self.atlas.heatmap(&of, &image).map_err(Failure::from)?.into())
    }

    /// A heat map on any pair of a store, made from the model.
    #[napi(catch_unwind)]
    pub fn compute_heatmap(&self, of: String, pair: u32, model: &NativeModel, store: String) -> Result<NativeHeatmap> {
        let compute = || -> std::result::Result<Heatmap, Failure> {
            let of: HeatmapOf = serde_json::from_str(&of)?;
            let store = StoreReader::open(store.as_ref())?;
            let pair = pair as usize;
            let grid = if pair < lucid_data::store::ActivationSource::pairs(&store) {
                store.info(pair).vision_grid
            } else {
                [0, 0]
            };
            Ok(self.atlas.compute_heatmap(&*model.model, &store, &of, pair, grid)?)
        };
        Ok(compute()?.into())
    }

    /// Concepts, latents and images by words, as JSON.
    #[napi(catch_unwind)]
    pub fn search(&self, text: String) -> Result<String> {
        Ok(serde_json::to_string(&self.atlas.search(&text)).map_err(Failure::from)?)
    }

    /// How many labels are right by the truth of an evaluation (`truth` as JSON), as JSON.
    #[napi(catch_unwind)]
    pub fn score_labels(&self, truth: String) -> Result<String> {
        let score = || -> std::result::Result<String, Failure> {
            let latents = self.atlas.index.latents.iter();
            let labels = latents.filter_map(|latent| Some((latent.latent, latent.label.as_deref()?)));
            Ok(serde_json::to_string(&score_labels(labels, &serde_json::from_str(&truth)?))?)
        };
        Ok(score()?)
    }

    /// JPEG bytes of a picture.
    #[napi(catch_unwind)]
    pub fn picture(&self, image: u32) -> Option<Uint8Array> {
        let file = self.atlas.index.images.get(image as usize)?.file.as_ref()?;
        self.atlas.thumbnails.get(file).map(|bytes| bytes.clone().into())
    }

    /// Writes the atlas folder.
    #[napi(catch_unwind)]
    pub fn save(&self, path: String) -> Result<()> {
        self.atlas.save(path).map_err(Failure::from)?;
        Ok(())
    }
}
