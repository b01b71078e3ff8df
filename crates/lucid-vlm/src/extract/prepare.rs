//! Records of a data set to what the forward pass takes: decoded, fitted and tokenised.

use super::options::{CaptionPolicy, ExtractOptions};
use crate::backbone::Backbone;
use crate::decode::{decode_image_within, thumbnail};
use crate::error::VlmError;
use crate::tokenizer::Tokens;
use image::RgbImage;
use lucid_data::{BoxAnnotation, DataError, ImageSource, OnBad, PairRecord, Skipped};

/// A pair ready for the forward pass.
pub(super) struct Prepared {
    pub key: String,
    pub image: RgbImage,
    /// Width and height of what the model sees, in pixels of the original.
    pub size: [u32; 2],
    pub thumbnail: Option<Vec<u8>>,
    pub captions: Vec<(String, Tokens)>,
    /// Boxes in the pixels of `size`.
    pub boxes: Vec<BoxAnnotation>,
}

/// A pair, or why it is left out; and captions left out of it.
pub(super) struct Outcome {
    pub pair: Result<Prepared, Rejected>,
    pub dropped: Vec<Skipped>,
}

/// Why a record is left out.
pub(super) struct Rejected {
    pub key: String,
    pub error: VlmError,
    /// Whether the data set itself cannot be read on: then nothing may be skipped.
    pub fatal: bool,
}

pub(super) fn skipped(key: String, error: &VlmError) -> Skipped {
    Skipped { key, code: error.code().into(), reason: error.to_string() }
}

/// Prepares the record at position `index`.
pub(super) fn prepare(
    backbone: &Backbone,
    record: Result<PairRecord, DataError>,
    index: usize,
    options: &ExtractOptions,
) -> Outcome {
    let record = match record {
        Ok(record) => record,
        Err(error) => {
            let key = error.record().map(str::to_owned);
            let fatal = key.is_none();
            let key = key.unwrap_or_else(|| format!("pair {index}"));
            return Outcome { pair: Err(Rejected { key, error: error.into(), fatal }), dropped: Vec::new() };
        }
    };
    let key = record.key;
    let mut dropped = Vec::new();
    let mut captions = Vec::with_capacity(record.captions.len());
    let mut last_error = None;
    let most = if options.caption_policy == CaptionPolicy::First { 1 } else { usize::MAX };
    for (i, text) in record.captions.into_iter().take(most).enumerate() {
        match backbone.tokenizer().encode(&text, options.keep_eos) {
            Ok(tokens) => captions.push((text, tokens)),
            Err(error) => {
                dropped.push(skipped(format!("{key}#{i}"), &error));
                last_error = Some(error);
            }
        }
    }
    // A picture keeps the captions that have tokens, unless the user wants to hear of the first bad one.
    let stops = options.on_bad == OnBad::Stop || captions.is_empty();
    let seen = match last_error {
        Some(error) if stops => Err(error),
        _ if captions.is_empty() => {
            Err(DataError::NoCaption { key: key.clone(), reason: "the data set gives none".into() }.into())
        }
        _ => picture(backbone, &record.image, options),
    };
    if seen.is_err() {
        dropped.clear();
    }
    let rejected = |key: String, error| Rejected { key, error, fatal: false };
    let pair = match seen {
        Ok(Seen { image, view: [x, y, width, height], thumbnail }) => Ok(Prepared {
            key,
            image,
            size: [(width.round() as u32).max(1), (height.round() as u32).max(1)],
            thumbnail,
            captions,
            boxes: record.boxes.into_iter().filter_map(|b| within(b, x, y, width, height)).collect(),
        }),
        // Pictures from memory have no name of their own.
        Err(VlmError::Image { file, reason }) if file.starts_with('<') => {
            Err(rejected(key.clone(), VlmError::Image { file: key, reason }))
        }
        Err(error) => Err(rejected(key, error)),
    };
    Outcome { pair, dropped }
}

/// A picture as the model sees it: the rectangle of the original, x, y, width, height.
struct Seen {
    image: RgbImage,
    view: [f64; 4],
    thumbnail: Option<Vec<u8>>,
}

/// Where a processor crops, what is kept — the small picture, the size, the boxes — is of the part that the model sees, so that a
/// heat map lies over it as it does over a squashed picture.
fn picture(backbone: &Backbone, source: &ImageSource, options: &ExtractOptions) -> Result<Seen, VlmError> {
    let image = decode_image_within(source, options.max_pixels)?;
    let processor = backbone.preprocessing();
    let (width, height) = image.dimensions();
    let view = processor.view(width, height);
    let small = if !options.thumbnails {
        None
    } else if view == [0.0, 0.0, f64::from(width), f64::from(height)] {
        Some(thumbnail(&image)?)
    } else {
        let [x, y, w, h] = view.map(|v| v.round() as u32);
        let part = image::imageops::crop_imm(&image, x, y, w.clamp(1, width - x), h.clamp(1, height - y));
        Some(thumbnail(&part.to_image())?)
    };
    Ok(Seen { image: processor.fitted(&image)?, view, thumbnail: small })
}

/// A box in the pixels of a view that begins at x, y; `None` where it lies outside.
fn within(mut b: BoxAnnotation, x: f64, y: f64, width: f64, height: f64) -> Option<BoxAnnotation> {
    // The whole picture is seen: a box that sticks out of it is the data set's affair.
    if x == 0.0 && y == 0.0 {
        return Some(b);
    }
    let (left, top) = ((b.x - x).max(0.0), (b.y - y).max(0.0));
    let (right, bottom) = ((b.x + b.width - x).min(width), (b.y + b.height - y).min(height));
    (b.x, b.y, b.width, b.height) = (left, top, right - left, bottom - top);
    (b.width > 0.0 && b.height > 0.0).then_some(b)
}
