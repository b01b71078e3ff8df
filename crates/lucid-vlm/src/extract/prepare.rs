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
        Ok(seen) => match boxes(record.boxes, &seen) {
            Ok(boxes) => {
                Ok(Prepared { key, size: seen.size(), image: seen.image, thumbnail: seen.thumbnail, captions, boxes })
            }
            Err(reason) => Err(rejected(key.clone(), VlmError::Image { file: key, reason })),
        },
        // Pictures from memory have no name of their own.
        Err(VlmError::Image { file, reason }) if file.starts_with('<') => {
            Err(rejected(key.clone(), VlmError::Image { file: key, reason }))
        }
        Err(error) => Err(rejected(key, error)),
    };
    Outcome { pair, dropped }
}

/// A picture as the model sees it.
struct Seen {
    image: RgbImage,
    /// Width and height of the original.
    original: [u32; 2],
    /// The rectangle of the original that is seen: x, y, width, height.
    view: [f64; 4],
    thumbnail: Option<Vec<u8>>,
}

impl Seen {
    /// Width and height of what is seen, in whole pixels of the original.
    fn size(&self) -> [u32; 2] {
        [self.view[2], self.view[3]].map(|side| (side.round() as u32).max(1))
    }

    /// The top left pixel of what is seen.
    fn corner(&self) -> [u32; 2] {
        let size = self.size();
        std::array::from_fn(|i| (self.view[i].round() as u32).min(self.original[i].saturating_sub(size[i])))
    }
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
    Ok(Seen { image: processor.fitted(&image)?, original: [width, height], view, thumbnail: small })
}

/// The boxes, and their masks, of what is seen; or what is wrong with a mask.
fn boxes(all: Vec<BoxAnnotation>, seen: &Seen) -> Result<Vec<BoxAnnotation>, String> {
    let [x, y, width, height] = seen.view;
    let mut kept = Vec::with_capacity(all.len());
    for mut b in all {
        if let Some(mask) = b.mask.take() {
            if mask.size() != seen.original {
                let [[w, h], [of_w, of_h]] = [mask.size(), seen.original];
                return Err(format!("the mask of a box has {w} × {h} pixels, the image {of_w} × {of_h}"));
            }
            b.mask = if seen.size() == seen.original { Some(mask) } else { mask.crop(seen.corner(), seen.size()) };
        }
        kept.extend(within(b, x, y, width, height));
    }
    Ok(kept)
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
