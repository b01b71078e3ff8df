//! Writes one shard: patches go straight to the file, everything smaller is kept until the shard is closed.

use std::fmt::Write as _;

use super::memory::extend_or;
use super::precision::Encoded;
use super::{KIND_CONTENT, PairActivations, Precision, UNKNOWN_TOKEN};
use crate::error::{DataError, Result};
use crate::publish::PublishedFile;

/// Bytes before the data: the 8-byte length and the header, padded with spaces. Its size does not depend on the
/// content, so patches can be written before the header is known; a multiple of 64 keeps them aligned.
const DATA_START: usize = 2048;

pub(super) struct ShardWriter {
    file: PublishedFile,
    precision: Precision,
    d_vision: usize,
    d_text: usize,
    text: Vec<u8>,
    vision_scales: Vec<u8>,
    text_scales: Vec<u8>,
    ids: Vec<u32>,
    kinds: Vec<u8>,
    spans: Vec<[u32; 2]>,
    thumbnails: Vec<u8>,
    vision_offsets: Vec<i64>,
    text_offsets: Vec<i64>,
    caption_offsets: Vec<i64>,
    thumbnail_offsets: Vec<i64>,
}

impl ShardWriter {
    pub(super) fn new(mut file: PublishedFile, precision: Precision, d_vision: usize, d_text: usize) -> Result<Self> {
        file.write(&[0; DATA_START])?;
        Ok(Self {
            file,
            precision,
            d_vision,
            d_text,
            text: Vec::new(),
            vision_scales: Vec::new(),
            text_scales: Vec::new(),
            ids: Vec::new(),
            kinds: Vec::new(),
            spans: Vec::new(),
            thumbnails: Vec::new(),
            vision_offsets: vec![0],
            text_offsets: vec![0],
            caption_offsets: vec![0],
            thumbnail_offsets: vec![0],
        })
    }

    pub(super) fn pairs(&self) -> usize {
        self.vision_offsets.len() - 1
    }

    /// Adds a pair; `vision` and `captions` are the encoded states.
    pub(super) fn append(&mut self, pair: &PairActivations, vision: Encoded, captions: &[Encoded]) -> Result<()> {
        self.file.write(vision.states)?;
        self.vision_scales.extend_from_slice(vision.scales);
        let rows = vision.states.len() / (self.d_vision * self.precision.bytes());
        push_after(&mut self.vision_offsets, rows);
        for (caption, states) in pair.captions.iter().zip(captions) {
            let tokens = states.states.len() / (self.d_text * self.precision.bytes());
            self.text.extend_from_slice(states.states);
            self.text_scales.extend_from_slice(states.scales);
            push_after(&mut self.text_offsets, tokens);
            extend_or(&mut self.ids, caption.ids, tokens, UNKNOWN_TOKEN);
            extend_or(&mut self.kinds, caption.kinds, tokens, KIND_CONTENT);
            extend_or(&mut self.spans, caption.spans, tokens, [0, 0]);
        }
        push_after(&mut self.caption_offsets, pair.captions.len());
        let thumbnail = pair.thumbnail.unwrap_or_default();
        self.thumbnails.extend_from_slice(thumbnail);
        push_after(&mut self.thumbnail_offsets, thumbnail.len());
        Ok(())
    }

    /// Writes what was kept back and the header, and brings the file to the disk.
    pub(super) fn close(mut self) -> Result<()> {
        let states = self.precision.safetensors();
        let vision_rows = self.vision_offsets.last().copied().unwrap_or(0) as usize;
        let m = self.ids.len();
        let mut header = Header::default();
        header.tensor(
            "vision",
            states,
            &[vision_rows, self.d_vision],
            vision_rows * self.d_vision * self.precision.bytes(),
        );
        header.tensor("text", states, &[m, self.d_text], self.text.len());
        self.file.write(&self.text)?;
        if self.precision.has_scales() {
            header.tensor("vision_scale", "F32", &[vision_rows], self.vision_scales.len());
            self.file.write(&self.vision_scales)?;
            header.tensor("text_scale", "F32", &[m], self.text_scales.len());
            self.file.write(&self.text_scales)?;
        }
        for (name, offsets) in [
            ("vision_offsets", &self.vision_offsets),
            ("text_offsets", &self.text_offsets),
            ("caption_offsets", &self.caption_offsets),
            ("thumbnail_offsets", &self.thumbnail_offsets),
        ] {
            header.tensor(name, "I64", &[offsets.len()], 8 * offsets.len());
            self.file.write(&offsets.iter().flat_map(|o| o.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        header.tensor("token_ids", "U32", &[m], 4 * m);
        self.file.write(&self.ids.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>())?;
        header.tensor("token_spans", "U32", &[m, 2], 8 * m);
        self.file.write(&self.spans.iter().flatten().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>())?;
        header.tensor("token_kinds", "U8", &[m], m);
        self.file.write(&self.kinds)?;
        header.tensor("thumbnails", "U8", &[self.thumbnails.len()], self.thumbnails.len());
        self.file.write(&self.thumbnails)?;
        self.file.write_at_start(&header.bytes()?)?;
        self.file.close()
    }
}

fn push_after(offsets: &mut Vec<i64>, n: usize) {
    let last = offsets.last().copied().unwrap_or(0);
    offsets.push(last + n as i64);
}

/// A safetensors header whose tensors follow each other in the order given.
#[derive(Default)]
struct Header {
    json: String,
    end: usize,
}

impl Header {
    fn tensor(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: usize) {
        let separator = if self.json.is_empty() { '{' } else { ',' };
        let start = self.end;
        self.end += bytes;
        // Writing to a String cannot fail.
        let _ = write!(
            self.json,
            "{separator}\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{}]}}",
            self.end
        );
    }

    fn bytes(mut self) -> Result<Vec<u8>> {
        self.json.push('}');
        let room = DATA_START - 8;
        if self.json.len() > room {
            return Err(DataError::shape(
                "shard header",
                format!("{} bytes", self.json.len()),
                format!("at most {room}"),
            ));
        }
        let mut bytes = (room as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(self.json.as_bytes());
        bytes.resize(DATA_START, b' ');
        Ok(bytes)
    }
}
