//! The activation store, and its verification.

use std::path::PathBuf;
use std::sync::Arc;

use lucid_data::store::{ActivationSource, AnnotatedSource, StoreReader, verify_store};
use napi::bindgen_prelude::*;
use napi_derive::napi;

use crate::error::Failure;
use crate::job::{NativeJob, Outcome, spawn};

/// An open store.
#[napi]
pub struct NativeStore {
    reader: Arc<StoreReader>,
}

/// States of one pair.
#[napi(object, object_from_js = false)]
pub struct NativePair {
    /// \[T_v · d_v\].
    pub vision: Float32Array,
    /// \[T_t · d_t\].
    pub text: Float32Array,
    /// Vocabulary ids.
    pub text_ids: Uint32Array,
    /// 0: a token of the text, 1: the end of the sentence.
    pub text_kinds: Uint8Array,
    /// Byte spans in the caption, start and end in turn.
    pub text_spans: Uint32Array,
}

#[napi]
impl NativeStore {
    /// Opens the store in a folder.
    #[napi(factory, catch_unwind)]
    pub fn open(path: String) -> Result<Self> {
        let reader = StoreReader::open(path.as_ref()).map_err(Failure::from)?;
        Ok(Self { reader: Arc::new(reader) })
    }

    /// The manifest as JSON.
    #[napi(catch_unwind)]
    pub fn meta(&self) -> Result<String> {
        Ok(serde_json::to_string(self.reader.manifest()).map_err(Failure::from)?)
    }

    /// States of a pair with one of its captions.
    #[napi(catch_unwind)]
    pub fn pair(&self, index: u32, caption: u32) -> Result<NativePair> {
        let (store, pair, caption) = (&*self.reader, index as usize, caption as usize);
        let mut vision = vec![0.0; store.vision_len(pair) * store.d_vision()];
        let mut text = vec![0.0; store.text_len(pair, caption) * store.d_text()];
        store.read_vision(pair, &mut vision).map_err(Failure::from)?;
        store.read_text(pair, caption, &mut text).map_err(Failure::from)?;
        let tokens = store.text_tokens(pair, caption);
        Ok(NativePair {
            vision: vision.into(),
            text: text.into(),
            text_ids: tokens.ids.to_vec().into(),
            text_kinds: tokens.kinds.to_vec().into(),
            text_spans: tokens.spans.concat().into(),
        })
    }

    /// Key, captions, grid, size and boxes as JSON.
    #[napi(catch_unwind)]
    pub fn pair_info(&self, index: u32) -> Result<String> {
        Ok(serde_json::to_string(self.reader.info(index as usize)).map_err(Failure::from)?)
    }

    /// JPEG bytes of the small picture.
    #[napi(catch_unwind)]
    pub fn thumbnail(&self, index: u32) -> Option<Uint8Array> {
        self.reader.thumbnail(index as usize).map(|bytes| bytes.to_vec().into())
    }
}

/// Compares every file of a store with its hash.
#[napi(catch_unwind)]
pub fn start_verify(path: String) -> Result<NativeJob> {
    spawn("verify", None, move |shared| {
        let report = verify_store(&PathBuf::from(path), &**shared)?.into_result()?;
        Ok(Outcome::from(serde_json::to_value(report)?))
    })
}
