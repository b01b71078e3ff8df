//! A table of captions with a header: CSV or TSV.

use std::path::Path;

use csv::{Position, Reader, ReaderBuilder, StringRecord};

use crate::error::{DataError, Result};

pub(super) struct Table<'a> {
    reader: Reader<&'a [u8]>,
    header: StringRecord,
    file: String,
}

impl<'a> Table<'a> {
    /// Reads the header of `text`; `path` only names the file in errors.
    pub(super) fn open(path: &Path, text: &'a str, separator: u8) -> Result<Self> {
        // Quotes are part of CSV; in TSV they are ordinary characters.
        let mut reader = ReaderBuilder::new()
            .delimiter(separator)
            .quoting(separator == b',')
            .flexible(true)
            .from_reader(text.as_bytes());
        let file = path.display().to_string();
        let header = reader.headers().map_err(|e| DataError::dataset(format!("{file}:1"), e.to_string()))?.clone();
        Ok(Self { reader, header, file })
    }

    /// Position of the first column with one of these names.
    pub(super) fn column(&self, names: &[&str]) -> Option<usize> {
        self.header.iter().position(|h| names.contains(&h.trim().to_ascii_lowercase().as_str()))
    }

    /// The names of the columns, for messages.
    pub(super) fn columns(&self) -> String {
        self.header.iter().collect::<Vec<_>>().join(", ")
    }

    /// An error in a line of the file.
    pub(super) fn bad(&self, line: usize, reason: impl Into<String>) -> DataError {
        DataError::dataset(format!("{}:{line}", self.file), reason)
    }

    /// The next row with its line, its fields trimmed by [`field`].
    pub(super) fn next_row(&mut self) -> Result<Option<(usize, StringRecord)>> {
        let mut record = StringRecord::new();
        let line = |position: Option<&Position>| position.map_or(0, Position::line) as usize;
        match self.reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(e) => return Err(self.bad(line(e.position()), e.to_string())),
        }
        let line = line(record.position());
        if record.len() > self.header.len() {
            let (found, expected) = (record.len(), self.header.len());
            let reason = format!("{found} fields, expected {expected}; put captions that hold the separator in quotes");
            return Err(self.bad(line, reason));
        }
        Ok(Some((line, record)))
    }
}

/// A field without the white space around it; empty where the row is too short.
pub(super) fn field(record: &StringRecord, column: usize) -> &str {
    record.get(column).map(str::trim).unwrap_or_default()
}
