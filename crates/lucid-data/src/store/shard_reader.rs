//! One memory-mapped shard: checked when it is opened, then read by position without further checks.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::precision::Encoded;
use super::{KIND_EOS, Manifest, PairInfo, Precision, ShardEntry};
use crate::error::{DataError, Result};

/// A header longer than this is not believed; ours take 2 KiB.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Below this many bytes the hint costs more than the faults it saves.
#[cfg(target_os = "linux")]
const FETCH_FROM: usize = 1 << 16;

pub(super) struct ShardReader {
    map: Mmap,
    precision: Precision,
    d_vision: usize,
    d_text: usize,
    vision: Range<usize>,
    text: Range<usize>,
    /// Empty where the precision has no scales.
    vision_scales: Range<usize>,
    text_scales: Range<usize>,
    kinds: Range<usize>,
    thumbnails: Range<usize>,
    ids: Words,
    spans: Words,
    vision_offsets: Vec<usize>,
    text_offsets: Vec<usize>,
    caption_offsets: Vec<usize>,
    thumbnail_offsets: Vec<usize>,
}

/// Numbers of 32 bits in the file, or a copy of them where they cannot be used in place.
enum Words {
    Mapped(Range<usize>),
    Copied(Vec<u32>),
}

impl Words {
    fn new(map: &Mmap, range: Range<usize>) -> Self {
        let bytes = &map[range.clone()];
        if cfg!(target_endian = "little") && bytemuck::try_cast_slice::<u8, u32>(bytes).is_ok() {
            return Self::Mapped(range);
        }
        Self::Copied(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn get<'a>(&'a self, map: &'a Mmap) -> &'a [u32] {
        match self {
            Self::Mapped(range) => bytemuck::cast_slice(&map[range.clone()]),
            Self::Copied(words) => words,
        }
    }
}

impl ShardReader {
    /// Maps the shard and checks its length, header, shapes and offsets; its values are compared by `verify` alone.
    pub(super) fn open(store: &Path, manifest: &Manifest, entry: &ShardEntry, infos: &[PairInfo]) -> Result<Self> {
        let path = store.join(&entry.name);
        let damaged = |found: String, expected: String| DataError::damaged(store, &entry.name, found, expected);
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged("no such file".into(), format!("{} bytes", entry.bytes)));
            }
            other => other.map_err(|e| DataError::io("read", &path, e))?,
        };
        let length = file.metadata().map_err(|e| DataError::io("read", &path, e))?.len();
        if length != entry.bytes || length < 8 {
            return Err(damaged(format!("{length} bytes"), format!("{} bytes", entry.bytes)));
        }
        // SAFETY: the map is read-only and lives as long as the reader. A published shard is never changed in place by
        // this crate (replacing a store swaps folders and leaves the old file alive under the map). Another program that
        // shortens the file while it is mapped breaks the contract stated on `StoreReader`.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| DataError::io("map", &path, e))?;
        let mut head = [0u8; 8];
        head.copy_from_slice(&map[..8]);
        let header = u64::from_le_bytes(head);
        if header > MAX_HEADER_BYTES || header > length - 8 {
            return Err(damaged(
                format!("a header of {header} bytes"),
                "a header within the file, at most 16 MiB".into(),
            ));
        }
        let tensors =
            SafeTensors::deserialize(&map).map_err(|e| damaged(e.to_string(), "a safetensors file".into()))?;
        let base = map.as_ptr() as usize;
        let find = |name: &str, dtype: Dtype, tail: &[usize]| -> Result<(Range<usize>, usize)> {
            let wrong = |found: String| {
                damaged(
                    found,
                    format!(
                        "{name} of type {dtype:?} and shape [n{}]",
                        tail.iter().map(|d| format!(", {d}")).collect::<String>()
                    ),
                )
            };
            let tensor = tensors.tensor(name).map_err(|e| wrong(e.to_string()))?;
            let shape = tensor.shape();
            if tensor.dtype() != dtype || shape.len() != 1 + tail.len() || shape[1..] != *tail {
                return Err(wrong(format!("{:?} {shape:?}", tensor.dtype())));
            }
            let start = tensor.data().as_ptr() as usize - base;
            Ok((start..start + tensor.data().len(), shape[0]))
        };
        let states = manifest.precision.dtype();
        let (vision, patches) = find("vision", states, &[manifest.d_vision])?;
        let (text, tokens) = find("text", states, &[manifest.d_text])?;
        let scales = |name: &str, rows: usize| -> Result<Range<usize>> {
            if !manifest.precision.has_scales() {
                return Ok(0..0);
            }
            match find(name, Dtype::F32, &[])? {
                (range, n) if n == rows => Ok(range),
                (_, n) => Err(damaged(format!("{name} with {n} entries"), format!("{rows}, one a row"))),
            }
        };
        let (vision_scales, text_scales) = (scales("vision_scale", patches)?, scales("text_scale", tokens)?);
        let (ids, n_ids) = find("token_ids", Dtype::U32, &[])?;
        let (spans, n_spans) = find("token_spans", Dtype::U32, &[2])?;
        let (kinds, n_kinds) = find("token_kinds", Dtype::U8, &[])?;
        let (thumbnails, thumbnail_bytes) = find("thumbnails", Dtype::U8, &[])?;
        if [n_ids, n_spans, n_kinds] != [tokens; 3] {
            return Err(damaged(format!("{n_ids} ids, {n_spans} spans, {n_kinds} kinds"), format!("{tokens} of each")));
        }
        let offsets = |name: &str, count: usize, end: usize, may_be_empty: bool| -> Result<Vec<usize>> {
            let (range, n) = find(name, Dtype::I64, &[])?;
            let wrong = |found: String| {
                damaged(format!("{name} {found}"), format!("{} rising offsets from 0 to {end}", count + 1))
            };
            if Some(n) != count.checked_add(1) {
                return Err(wrong(format!("with {n} entries")));
            }
            let mut list = Vec::with_capacity(n);
            for bytes in map[range].chunks_exact(8) {
                let mut word = [0u8; 8];
                word.copy_from_slice(bytes);
                let value = usize::try_from(i64::from_le_bytes(word)).map_err(|_| wrong("below 0".into()))?;
                let rises = list.last().map_or(value == 0, |&last| value > last || (may_be_empty && value == last));
                if !rises {
                    return Err(wrong(format!("that do not rise at {}", list.len())));
                }
                list.push(value);
            }
            if list.last() != Some(&end) {
                return Err(wrong(format!("that end at {:?}", list.last())));
            }
            Ok(list)
        };
        let captions = infos.iter().map(|i| i.captions.len()).sum();
        let reader = Self {
            precision: manifest.precision,
            d_vision: manifest.d_vision,
            d_text: manifest.d_text,
            vision_offsets: offsets("vision_offsets", entry.pairs, patches, false)?,
            caption_offsets: offsets("caption_offsets", entry.pairs, captions, false)?,
            text_offsets: offsets("text_offsets", captions, tokens, false)?,
            thumbnail_offsets: offsets("thumbnail_offsets", entry.pairs, thumbnail_bytes, true)?,
            vision,
            text,
            vision_scales,
            text_scales,
            kinds,
            thumbnails,
            ids: Words::new(&map, ids),
            spans: Words::new(&map, spans),
            map,
        };
        for (i, info) in infos.iter().enumerate() {
            reader.check_pair(i, info).map_err(|found| damaged(found, "what pairs.jsonl says".into()))?;
        }
        Ok(reader)
    }

    /// Compares a pair with its line in `pairs.jsonl`, so that grids and spans can be used without checks later.
    fn check_pair(&self, i: usize, info: &PairInfo) -> Result<(), String> {
        let key = &info.key;
        if info.captions.len() != self.captions(i) {
            return Err(format!("{} captions of {key:?}", self.captions(i)));
        }
        if u64::from(info.vision_grid[0]) * u64::from(info.vision_grid[1]) != self.vision_len(i) as u64 {
            return Err(format!("{} patches of {key:?}", self.vision_len(i)));
        }
        for (c, text) in info.captions.iter().enumerate() {
            let inside = |&[start, end]: &[u32; 2]| {
                start <= end && text.is_char_boundary(start as usize) && text.is_char_boundary(end as usize)
            };
            if let Some(span) = self.spans(i, c).iter().find(|s| !inside(s)) {
                return Err(format!("token span {span:?} in caption {c} of {key:?}"));
            }
            if self.kinds(i, c).iter().any(|&k| k > KIND_EOS) {
                return Err(format!("an unknown token kind in caption {c} of {key:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn vision_len(&self, i: usize) -> usize {
        self.vision_offsets[i + 1] - self.vision_offsets[i]
    }

    pub(super) fn captions(&self, i: usize) -> usize {
        self.caption_offsets[i + 1] - self.caption_offsets[i]
    }

    pub(super) fn text_rows(&self, i: usize, caption: usize) -> Range<usize> {
        assert!(caption < self.captions(i), "caption {caption} is out of range: the pair has {}", self.captions(i));
        let c = self.caption_offsets[i] + caption;
        self.text_offsets[c]..self.text_offsets[c + 1]
    }

    /// The patches of a pair as they are stored.
    pub(super) fn vision(&self, i: usize) -> Encoded<'_> {
        let rows = self.vision_offsets[i]..self.vision_offsets[i + 1];
        self.encoded(&self.vision, &self.vision_scales, rows, self.d_vision)
    }

    /// The tokens of a caption as they are stored.
    pub(super) fn text(&self, i: usize, caption: usize) -> Encoded<'_> {
        self.encoded(&self.text, &self.text_scales, self.text_rows(i, caption), self.d_text)
    }

    fn encoded(&self, states: &Range<usize>, scales: &Range<usize>, rows: Range<usize>, width: usize) -> Encoded<'_> {
        let row = width * self.precision.bytes();
        let scale = if self.precision.has_scales() { 4 } else { 0 };
        self.fetch(states.start + rows.start * row, rows.len() * row);
        Encoded {
            states: &self.map[states.clone()][rows.start * row..rows.end * row],
            scales: &self.map[scales.clone()][rows.start * scale..rows.end * scale],
        }
    }

    /// Tells the kernel which bytes are about to be read, so that it brings and maps them at once instead of page by page.
    fn fetch(&self, start: usize, length: usize) {
        #[cfg(target_os = "linux")]
        if length >= FETCH_FROM {
            // Only a hint: kernels before 5.14 refuse it, and reading then works as without.
            let _ = self.map.advise_range(memmap2::Advice::PopulateRead, start, length);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (start, length);
    }

    pub(super) fn ids(&self, i: usize, caption: usize) -> &[u32] {
        &self.ids.get(&self.map)[self.text_rows(i, caption)]
    }

    pub(super) fn kinds(&self, i: usize, caption: usize) -> &[u8] {
        &self.map[self.kinds.clone()][self.text_rows(i, caption)]
    }

    pub(super) fn spans(&self, i: usize, caption: usize) -> &[[u32; 2]] {
        &self.spans.get(&self.map).as_chunks::<2>().0[self.text_rows(i, caption)]
    }

    pub(super) fn thumbnail(&self, i: usize) -> Option<&[u8]> {
        let range = self.thumbnail_offsets[i]..self.thumbnail_offsets[i + 1];
        (!range.is_empty()).then(|| &self.map[self.thumbnails.clone()][range])
    }
}
