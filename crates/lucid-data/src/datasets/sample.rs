//! What a sample of a webdataset or of img2dataset's folders is made of: an image and texts that share its name.

use serde_json::Value;

use super::captions::{self, TEXT_FIELDS};
use crate::dataset::BoxAnnotation;
use crate::error::{DataError, Result};

/// Extensions of images that are read.
pub(crate) const IMAGES: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
/// Longest image file that is taken into memory.
pub(crate) const MAX_IMAGE: u64 = 256 << 20;
/// Longest text file of a sample.
pub(crate) const MAX_TEXT: u64 = 8 << 20;

/// The texts of one sample, as they lie in its files.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// The content of `.json`.
    pub(crate) json: Option<Vec<u8>>,
    /// The content of `.txt`.
    pub(crate) txt: Option<Vec<u8>>,
    /// The content of `.caption`.
    pub(crate) caption: Option<Vec<u8>>,
}

impl Texts {
    /// Captions and boxes. A caption field of the JSON comes before `.txt`, that before `.caption`: img2dataset writes both, and the
    /// JSON keeps line breaks. With `field` only that field of the JSON counts.
    pub(crate) fn read(self, key: &str, field: Option<&str>) -> Result<(Vec<String>, Vec<BoxAnnotation>)> {
        let bad = |file: &str, reason: String| DataError::dataset(key, format!("its .{file} is {reason}"));
        let mut boxes = Vec::new();
        let mut looked = Vec::new();
        if let Some(bytes) = self.json {
            let text = captions::utf8(bytes).map_err(|r| bad("json", r))?;
            let value: Value = serde_json::from_str(&text).map_err(|e| bad("json", format!("no JSON: {e}")))?;
            if let Some(value) = value.get("boxes") {
                boxes = captions::boxes(value).map_err(|reason| DataError::dataset(key, reason))?;
            }
            let names = field.as_ref().map_or(&TEXT_FIELDS[..], std::slice::from_ref);
            if let Some((name, value)) = names.iter().find_map(|n| Some((n, value.get(n)?))) {
                let found = captions::texts(value).ok_or_else(|| {
                    DataError::dataset(key, format!("`{name}` of its .json is neither a text nor a list of texts"))
                })?;
                if !found.is_empty() {
                    return Ok((found, boxes));
                }
                looked.push(format!("`{name}` of its .json is empty"));
            } else {
                let has = value.as_object().map(|o| o.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
                let has = has.unwrap_or_else(|| "no object".into());
                looked.push(format!("its .json has {has}, expected {}", names.join(" or ")));
            }
        } else if let Some(field) = field {
            looked.push(format!("it has no .json with the field {field}"));
        }
        if field.is_none() {
            for (name, bytes) in [("txt", self.txt), ("caption", self.caption)] {
                let Some(bytes) = bytes else { continue };
                let found = captions::lines(&captions::utf8(bytes).map_err(|r| bad(name, r))?);
                if !found.is_empty() {
                    return Ok((found, boxes));
                }
                looked.push(format!("its .{name} is empty"));
            }
        }
        if looked.is_empty() {
            looked.push("it has no .json, .txt or .caption".into());
        }
        Err(DataError::NoCaption { key: key.into(), reason: looked.join("; ") })
    }
}
