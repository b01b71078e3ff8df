//! Any source written as a store.

use std::path::Path;

use super::{AnnotatedSource, CaptionActivations, Manifest, MemoryStore, PairActivations, StoreOptions, StoreWriter};
use crate::error::{DataError, Result};
use crate::progress::{Observer, Silent};

/// Writes everything of `source` as a store: keeps a generated set, or changes precision or shard size.
///
/// # Errors
/// As [`StoreWriter::append`] and [`StoreWriter::finish`]; `E_CANCELLED`.
pub fn write_store(
    source: &dyn AnnotatedSource,
    path: &Path,
    options: StoreOptions,
    observer: &dyn Observer,
) -> Result<Manifest> {
    let (d_vision, d_text) = (source.d_vision(), source.d_text());
    let mut writer = StoreWriter::create(path, StoreOptions { d_vision, d_text, ..options })?;
    let mut vision = Vec::new();
    for i in 0..source.pairs() {
        if observer.cancelled() {
            return Err(DataError::Cancelled { stage: "writing activations" });
        }
        vision.resize(source.vision_len(i) * d_vision, 0.0);
        source.read_vision(i, &mut vision)?;
        let mut states = Vec::with_capacity(source.captions(i));
        for c in 0..source.captions(i) {
            let mut text = vec![0.0; source.text_len(i, c) * d_text];
            source.read_text(i, c, &mut text)?;
            states.push(text);
        }
        let info = source.info(i);
        let captions: Vec<CaptionActivations> = states
            .iter()
            .enumerate()
            .map(|(c, states)| {
                let tokens = source.text_tokens(i, c);
                CaptionActivations {
                    text: &info.captions[c],
                    states,
                    ids: tokens.ids,
                    kinds: tokens.kinds,
                    spans: tokens.spans,
                }
            })
            .collect();
        writer.append(&PairActivations {
            key: &info.key,
            vision: &vision,
            vision_grid: info.vision_grid,
            captions: &captions,
            size: info.size,
            boxes: &info.boxes,
            thumbnail: source.thumbnail(i),
        })?;
        observer.progress("write", i as u64 + 1, source.pairs() as u64);
    }
    writer.finish()
}

impl MemoryStore {
    /// Writes this set as a store at `path`.
    ///
    /// # Errors
    /// As [`write_store`].
    pub fn write_to(&self, path: &Path, options: StoreOptions) -> Result<Manifest> {
        write_store(self, path, options, &Silent)
    }
}
