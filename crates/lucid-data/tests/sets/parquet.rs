//! Parquet files as Hugging Face's `datasets` writes them, for data that the committed fixtures do not hold.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::Record;

const SCHEMA: &str = "message schema {
    OPTIONAL group image { OPTIONAL BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }
    OPTIONAL group captions (LIST) { REPEATED group list { OPTIONAL BYTE_ARRAY element (UTF8); } }
}";

/// Writes records in row groups of `rows`; paths are those of a machine far away.
pub fn write(path: &Path, records: &[Record], rows: usize) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(super::create(path), schema, Arc::new(properties)).unwrap();
    for chunk in records.chunks(rows) {
        let mut group = writer.next_row_group().unwrap();
        let bytes: Vec<ByteArray> = chunk.iter().map(|r| r.bytes.clone().into()).collect();
        let paths: Vec<ByteArray> = chunk.iter().map(|r| format!("/data/far/away/{}", r.key).as_str().into()).collect();
        let captions: Vec<ByteArray> = chunk.iter().flat_map(|r| &r.captions).map(|c| c.as_str().into()).collect();
        let repetition: Vec<i16> = chunk.iter().flat_map(|r| (0..r.captions.len()).map(|i| i16::from(i > 0))).collect();
        let two = vec![2; chunk.len()];
        for (values, definition, repetition) in
            [(bytes, &two, None), (paths, &two, None), (captions.clone(), &vec![3; captions.len()], Some(&repetition))]
        {
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, Some(definition), repetition.map(Vec::as_slice))
                .unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}
