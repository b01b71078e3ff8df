//! Caption files of a folder: JSON Lines, CSV, TSV, or groups of lines.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::table::{Table, field};
use crate::dataset::BoxAnnotation;
use crate::error::{DataError, Result};

/// What a caption file says about one image; a file may speak of an image several times.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Row {
    /// File name as written, with the folder's separators.
    pub(crate) file: String,
    /// Captions, trimmed, without empty ones.
    pub(crate) captions: Vec<String>,
    pub(crate) boxes: Vec<BoxAnnotation>,
    /// Line of the file, for messages.
    pub(crate) line: usize,
}

/// Field names that name the image, and those that hold the caption.
pub(crate) const FILE_FIELDS: [&str; 4] = ["file", "image", "file_name", "filename"];
pub(crate) const TEXT_FIELDS: [&str; 3] = ["caption", "text", "captions"];

/// Reads a caption file by its extension.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>> {
    let text = read_text(path)?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "jsonl" | "ndjson" => read_jsonl(path, &text),
        "csv" => read_table(path, &text, b','),
        "tsv" => read_table(path, &text, b'\t'),
        // Flickr8k's captions.txt is a CSV with a header.
        "txt" if has_header(&text, ',') => read_table(path, &text, b','),
        "txt" if has_header(&text, '\t') => read_table(path, &text, b'\t'),
        _ => Err(DataError::dataset(
            path.display(),
            format!(
                "captions in a .{extension} file; expected .jsonl, .csv or .tsv with the fields `file` and `caption`"
            ),
        )),
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| DataError::io("read", path, e))?;
    utf8(bytes).map_err(|reason| DataError::dataset(path.display(), reason))
}

/// Bytes as text without a byte order mark, or what is wrong with them.
pub(crate) fn utf8(bytes: Vec<u8>) -> std::result::Result<String, String> {
    let mut text = String::from_utf8(bytes)
        .map_err(|e| format!("not UTF-8 at byte {}; save it as UTF-8", e.utf8_error().valid_up_to()))?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// True where a `.txt` file is a table with a header.
pub(crate) fn is_table(path: &Path) -> Result<bool> {
    let text = read_text(path)?;
    Ok(has_header(&text, ',') || has_header(&text, '\t'))
}

fn has_header(text: &str, separator: char) -> bool {
    let first: Vec<&str> = text.lines().next().unwrap_or_default().split(separator).map(str::trim).collect();
    first.iter().any(|f| FILE_FIELDS.contains(f)) && first.iter().any(|f| TEXT_FIELDS.contains(f))
}

/// A caption field: one text or several.
pub(crate) fn texts(value: &Value) -> Option<Vec<String>> {
    let one = |v: &Value| v.as_str().map(|s| s.trim().to_string());
    let list = match value {
        Value::Array(items) => items.iter().map(one).collect::<Option<Vec<_>>>()?,
        Value::Null => Vec::new(),
        other => vec![one(other)?],
    };
    Some(list.into_iter().filter(|t| !t.is_empty()).collect())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum BoxForm {
    Corner([f64; 4]),
    Full(BoxAnnotation),
}

/// A field with boxes, or what is wrong with it.
pub(crate) fn boxes(value: &Value) -> std::result::Result<Vec<BoxAnnotation>, String> {
    let boxes = Vec::<BoxForm>::deserialize(value).map_err(|_| {
        "`boxes` holds something other than [x, y, width, height] or { x, y, width, height, category }".to_string()
    })?;
    let boxes = boxes.into_iter().map(|b| match b {
        BoxForm::Corner([x, y, width, height]) => BoxAnnotation { x, y, width, height, ..Default::default() },
        BoxForm::Full(b) => b,
    });
    boxes
        .map(|b| match b.width > 0.0 && b.height > 0.0 {
            true => Ok(b),
            false => Err(format!("the box [{}, {}, {}, {}] has no area", b.x, b.y, b.width, b.height)),
        })
        .collect()
}

/// The captions of a text: one a line, trimmed, without empty ones.
pub(crate) fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect()
}

fn read_jsonl(path: &Path, text: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let bad = |reason: String| DataError::dataset(format!("{}:{}", path.display(), i + 1), reason);
        let value: Value = serde_json::from_str(line).map_err(|e| bad(format!("not a JSON object: {e}")))?;
        let field = |names: &[&str]| names.iter().find_map(|n| value.get(n));
        let file = field(&FILE_FIELDS).and_then(Value::as_str);
        let Some(file) = file else { return Err(bad("no field `file` with the image's file name".into())) };
        let captions = match field(&TEXT_FIELDS) {
            Some(v) => texts(v).ok_or_else(|| bad("`caption` is neither a text nor a list of texts".into()))?,
            None => Vec::new(),
        };
        let boxes = value.get("boxes").map_or(Ok(Vec::new()), boxes).map_err(bad)?;
        rows.push(Row { file: file.to_string(), captions, boxes, line: i + 1 });
    }
    Ok(rows)
}

fn read_table(path: &Path, text: &str, separator: u8) -> Result<Vec<Row>> {
    let mut table = Table::open(path, text, separator)?;
    let (Some(file), Some(caption)) = (table.column(&FILE_FIELDS), table.column(&TEXT_FIELDS)) else {
        let found = table.columns();
        return Err(table.bad(1, format!("the header has the fields {found}; expected `file` and `caption`")));
    };
    let mut rows = Vec::new();
    while let Some((line, record)) = table.next_row()? {
        let (name, text) = (field(&record, file), field(&record, caption));
        if name.is_empty() {
            return Err(table.bad(line, "no image name"));
        }
        let captions = if text.is_empty() { Vec::new() } else { vec![text.to_string()] };
        rows.push(Row { file: name.into(), captions, boxes: Vec::new(), line });
    }
    Ok(rows)
}
