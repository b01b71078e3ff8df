//! Turns activations that were computed elsewhere into a store: arrays in memory, `.npy` files, safetensors.

mod array;
mod npy;
mod tensors;

use std::path::Path;

use serde_json::{Value, json};

use crate::error::{DataError, Result};
use crate::progress::Observer;
use crate::store::{CaptionActivations, Manifest, PairActivations, Precision, StoreOptions, StoreWriter};

pub use array::{Activations, Lengths};
use array::{Loaded, Rows};

/// What to import; [`import_activations`] says how the shapes are read.
#[derive(Debug, Clone)]
pub struct ImportOptions<'a> {
    /// States of the patches.
    pub vision: Activations<'a>,
    /// States of the tokens.
    pub text: Activations<'a>,
    /// Patches of every pair; `None` where all have the same number.
    pub vision_lengths: Option<Lengths>,
    /// Valid tokens of every pair; `None` where the safetensors file of `text` holds `textLengths`.
    pub text_lengths: Option<Lengths>,
    /// Width of the patches' states, for arrays without a shape.
    pub d_vision: Option<usize>,
    /// Width of the tokens' states, for arrays without a shape.
    pub d_text: Option<usize>,
    /// Rows and columns of the patch grid; where absent a square, or one row where the number of patches is no square.
    pub vision_grid: Option<[u32; 2]>,
    /// Image names, one a pair; where absent pairs are numbered.
    pub images: Option<Vec<String>>,
    /// Captions, one a pair.
    pub captions: Option<Vec<String>>,
    /// How activations are stored.
    pub precision: Precision,
    /// Pairs in a shard.
    pub pairs_per_shard: usize,
    /// What to note about their origin (backbone, layer …), kept under `provenance.source`.
    pub provenance: Value,
    /// Replace an existing store under the same name.
    pub overwrite: bool,
}

impl<'a> ImportOptions<'a> {
    /// The given activations, everything else at its default (f16, 1024 pairs a shard).
    pub fn new(vision: Activations<'a>, text: Activations<'a>) -> Self {
        Self {
            vision,
            text,
            vision_lengths: None,
            text_lengths: None,
            d_vision: None,
            d_text: None,
            vision_grid: None,
            images: None,
            captions: None,
            precision: Precision::F16,
            pairs_per_shard: 1024,
            provenance: Value::Null,
            overwrite: false,
        }
    }
}

/// Writes imported activations as a store at `out`.
///
/// Shapes: `[pairs, tokens, d]` is padded: with lengths, the first `length` rows of every pair are taken; without, all
/// (patches only: padded tokens would pass for valid ones, so text always needs its lengths). `[rows, d]` is ragged: the
/// pairs' rows follow each other and the lengths add up to `rows`; patches without lengths are dealt out evenly. A flat
/// array is one of these once its width is known: `d_vision`, `d_text`, or what the lengths leave as the only choice.
///
/// # Errors
/// `E_SHAPE` for sizes that do not fit together, `E_FORMAT` for files in a form that is not read (Fortran order, pickles,
/// big-endian numbers, integers), `E_NON_FINITE`, `E_OVERFLOW`, `E_EMPTY` (a length of 0), `E_IO`, `E_EXISTS`, `E_CANCELLED`.
pub fn import_activations(options: ImportOptions, out: &Path, observer: &dyn Observer) -> Result<Manifest> {
    let mut vision = options.vision.load("vision")?;
    let mut text = options.text.load("text")?;
    let text_lengths = lengths("textLengths", &options.text_lengths, &text)?
        .ok_or_else(|| DataError::shape("textLengths", "nothing", "the number of valid tokens of every pair"))?;
    let pairs = text_lengths.len();
    if pairs == 0 {
        return Err(DataError::Empty { what: "textLengths".into() });
    }
    let vision_lengths = lengths("visionLengths", &options.vision_lengths, &vision)?;
    let vision_rows = Rows::new("vision", &vision, vision_lengths, pairs, options.d_vision)?;
    let text_rows = Rows::new("text", &text, Some(text_lengths), pairs, options.d_text)?;
    for (what, list) in [("images", &options.images), ("captions", &options.captions)] {
        if let Some(list) = list.as_ref().filter(|l| l.len() != pairs) {
            return Err(DataError::shape(what, format!("{} entries", list.len()), format!("{pairs}, one a pair")));
        }
    }
    let provenance =
        json!({ "kind": "import", "vision": vision.origin(), "text": text.origin(), "source": options.provenance });
    let mut writer = StoreWriter::create(
        out,
        StoreOptions {
            precision: options.precision,
            pairs_per_shard: options.pairs_per_shard,
            provenance,
            d_vision: vision_rows.d,
            d_text: text_rows.d,
            overwrite: options.overwrite,
        },
    )?;
    let (mut patches, mut tokens) = (Vec::new(), Vec::new());
    for i in 0..pairs {
        if observer.cancelled() {
            return Err(DataError::Cancelled { stage: "importing activations" });
        }
        let key = options.images.as_ref().map_or_else(|| format!("pair-{i:06}"), |names| names[i].clone());
        read_pair(&mut vision, &vision_rows, i, &key, crate::store::Part::Vision, &mut patches)?;
        read_pair(&mut text, &text_rows, i, &key, crate::store::Part::Text { caption: 0 }, &mut tokens)?;
        let caption = options.captions.as_ref().map_or("", |c| c[i].as_str());
        writer.append(&PairActivations {
            key: &key,
            vision: &patches,
            vision_grid: options.vision_grid.unwrap_or_else(|| grid_of(vision_rows.lengths[i])),
            captions: &[CaptionActivations { text: caption, states: &tokens, ids: &[], kinds: &[], spans: &[] }],
            size: None,
            boxes: &[],
            thumbnail: None,
        })?;
        observer.progress("import", i as u64 + 1, pairs as u64);
    }
    writer.finish()
}

/// The lengths that were given, or those that lie in the safetensors file of the states.
fn lengths(name: &'static str, given: &Option<Lengths>, beside: &Loaded) -> Result<Option<Vec<usize>>> {
    match given {
        Some(lengths) => lengths.load(name).map(Some),
        None => beside.companion_lengths(name),
    }
}

fn read_pair(
    from: &mut Loaded,
    rows: &Rows,
    i: usize,
    key: &str,
    part: crate::store::Part,
    out: &mut Vec<f32>,
) -> Result<()> {
    if rows.lengths[i] == 0 {
        return Err(DataError::Empty { what: format!("the {part} set of pair {key:?} (number {i})") });
    }
    let start = rows.starts[i] * rows.d;
    let lost = from.read(start..start + rows.lengths[i] * rows.d, out);
    match lost {
        None => Ok(()),
        Some((at, value)) => Err(DataError::Overflow {
            pair: key.to_string(),
            part,
            token: at / rows.d,
            dimension: at % rows.d,
            value,
            precision: "f32",
            limit: Precision::F32.max(),
        }),
    }
}

fn grid_of(patches: usize) -> [u32; 2] {
    let side = patches.isqrt();
    if side * side == patches { [side as u32; 2] } else { [1, patches as u32] }
}
