//! Pairs of a source or of another store into a store.

use std::path::Path;

use super::check::check_pair;
use super::precision::Encoded;
use super::{
    AnnotatedSource, CaptionActivations, Manifest, MemoryStore, PairActivations, PerModality, PrecisionError,
    StoreOptions, StoreReader, StoreWriter,
};
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

impl StoreWriter {
    /// Adds pair `pair` of `reader` exactly as it is stored there: nothing is rounded again, and shards and statistics
    /// become those of a store that took the pair itself. What the first rounding changed is not known of one pair:
    /// the manifest then has no [`Manifest::precision_error`] (that of whole stores is joined by [`super::merge_stores`]).
    ///
    /// # Errors
    /// `E_SHAPE` where precision or widths differ; `E_NON_FINITE` from a damaged store; `E_IO`.
    pub fn append_stored(&mut self, reader: &StoreReader, pair: usize) -> Result<()> {
        self.check_usable()?;
        let StoreOptions { precision, d_vision, d_text, .. } = self.options;
        let theirs = reader.manifest();
        if (theirs.precision, theirs.d_vision, theirs.d_text) != (precision, d_vision, d_text) {
            return Err(DataError::shape(
                format!("the store {}", reader.path().display()),
                format!("{} of widths {} and {}", theirs.precision, theirs.d_vision, theirs.d_text),
                format!("{precision} of widths {d_vision} and {d_text}"),
            ));
        }
        let (vision, captions) = reader.encoded(pair);
        let decode = |from: Encoded, width: usize| {
            let mut out = vec![0.0; from.states.len() / precision.bytes()];
            precision.decode(from, width, &mut out);
            out
        };
        let states: Vec<Vec<f32>> = captions.iter().map(|&c| decode(c, d_text)).collect();
        let info = reader.info(pair);
        let listed: Vec<CaptionActivations> = states
            .iter()
            .enumerate()
            .map(|(c, states)| {
                let tokens = reader.text_tokens(pair, c);
                let text = &info.captions[c];
                CaptionActivations { text, states, ids: tokens.ids, kinds: tokens.kinds, spans: tokens.spans }
            })
            .collect();
        let decoded = PairActivations {
            key: &info.key,
            vision: &decode(vision, d_vision),
            vision_grid: info.vision_grid,
            captions: &listed,
            size: info.size,
            boxes: &info.boxes,
            thumbnail: reader.thumbnail(pair),
        };
        check_pair(&decoded, d_vision, d_text, precision)?;
        self.put(&decoded, vision, &captions, false)
    }

    /// Joins what rounding changed in pairs that came by [`StoreWriter::append_stored`].
    pub(super) fn join_errors(&mut self, errors: &PerModality<PrecisionError>) {
        self.errors.vision.join(&errors.vision);
        self.errors.text.join(&errors.text);
    }
}
