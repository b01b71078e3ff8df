//! Values of Parquet rows.

use ::parquet::data_type::ByteArray;
use ::parquet::record::{Field, Row};

/// What a row holds.
pub(super) struct Cells {
    pub(super) path: Option<String>,
    pub(super) image: Option<ByteArray>,
    pub(super) captions: Result<Vec<String>, String>,
}

pub(super) fn field(row: &Row, index: usize) -> &Field {
    row.get_column_iter().nth(index).map_or(&Field::Null, |(_, field)| field)
}

fn part<'a>(row: &'a Row, name: &str) -> &'a Field {
    row.get_column_iter().find(|(n, _)| *n == name).map_or(&Field::Null, |(_, field)| field)
}

pub(super) fn bytes_of(image: &Field) -> Option<ByteArray> {
    match image {
        Field::Bytes(bytes) => Some(bytes.clone()),
        Field::Group(row) => bytes_of(part(row, "bytes")),
        // A column of bytes that calls itself text.
        Field::Str(text) => Some(ByteArray::from(text.as_str())),
        _ => None,
    }
}

pub(super) fn path_of(image: &Field) -> Option<String> {
    let Field::Group(row) = image else { return None };
    match part(row, "path") {
        Field::Str(path) => Some(path.clone()),
        Field::Bytes(path) => std::str::from_utf8(path.data()).ok().map(String::from),
        _ => None,
    }
}

/// The last component of a path as some other machine wrote it.
pub(super) fn file_name(path: &str) -> Option<String> {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    (!matches!(name, "" | "." | "..") && !name.contains('\0')).then(|| name.to_string())
}

/// Appends the texts of a cell, through lists and the fields `inner` of structs.
pub(super) fn texts(cell: &Field, inner: &[String], into: &mut Vec<String>) -> Result<(), String> {
    let mut add = |text: &str| {
        let text = text.trim();
        if !text.is_empty() {
            into.push(text.to_string());
        }
    };
    match cell {
        Field::Null => {}
        Field::Str(text) => add(text),
        Field::Bytes(bytes) => add(std::str::from_utf8(bytes.data()).map_err(|e| format!("no UTF-8: {e}"))?),
        Field::ListInternal(list) => list.elements().iter().try_for_each(|e| texts(e, inner, into))?,
        Field::Group(row) => match inner.split_first() {
            Some((name, rest)) if row.get_column_iter().any(|(n, _)| n == name) => texts(part(row, name), rest, into)?,
            _ => {
                let names = row.get_column_iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
                return Err(format!("a struct with the fields {names}; name one of them, as in `sentences.raw`"));
            }
        },
        _ => return Err("neither a text nor a list of texts".into()),
    }
    Ok(())
}
