//! Shards in files: indexed by their headers, read sample by sample.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::group::{Grouper, Parts, Sample};
use super::members::{Stop, walk_file};
use super::{WebdatasetSpec, assemble};
use crate::dataset::{Dataset, OnBad, PairRecord, Skipped};
use crate::datasets::DatasetSpec;
use crate::datasets::records::repeated;
use crate::error::{DataError, Result};

/// Where a member's bytes are in its shard.
#[derive(Debug, Clone, Copy)]
struct Span {
    position: u64,
    length: u64,
}

struct Indexed {
    shard: usize,
    sample: Sample<Span>,
}

/// Local shards.
pub(super) struct Local {
    spec: DatasetSpec,
    field: Option<String>,
    shards: Vec<PathBuf>,
    index: Vec<Indexed>,
    skipped: Vec<Skipped>,
}

impl Local {
    pub(super) fn open(spec: &WebdatasetSpec, shards: Vec<PathBuf>, on_bad: OnBad) -> Result<Self> {
        // Every shard is read on its own; the results are put together in the order of the shards.
        let read: Vec<_> = shards.par_iter().map(|path| index(path, spec.image.as_deref())).collect();
        let (mut entries, mut skipped) = (Vec::new(), Vec::new());
        let mut keys: HashMap<String, usize> = HashMap::new();
        let mut bad = |key: &str, problem: DataError| match on_bad {
            OnBad::Stop => Err(problem),
            OnBad::Skip => {
                skipped.push(Skipped::because(key, &problem));
                Ok(())
            }
        };
        for (shard, read) in read.into_iter().enumerate() {
            let name = shards[shard].display().to_string();
            let (samples, damage) = read?;
            for sample in samples {
                if let Some(problem) = sample.problem(&name) {
                    bad(&sample.base, problem)?;
                    continue;
                }
                let key = sample.image.as_ref().map_or(&sample.base, |(key, _)| key);
                match keys.get(key) {
                    Some(&other) => {
                        let problem = repeated(key, &shards[other].display().to_string(), &name);
                        bad(key, problem)?;
                    }
                    None => {
                        keys.insert(key.clone(), shard);
                        entries.push(Indexed { shard, sample });
                    }
                }
            }
            if let Some(damage) = damage {
                let file = shards[shard].file_name().map(|n| n.to_string_lossy().into_owned());
                bad(&file.unwrap_or_default(), damage)?;
            }
        }
        if entries.is_empty() {
            let what = format!("the data set {} (no image with a caption)", spec.urls.join(", "));
            return Err(DataError::Empty { what });
        }
        let field = spec.caption.clone();
        Ok(Self { spec: spec.spec(), field, shards, index: entries, skipped })
    }
}

type Index = (Vec<Sample<Span>>, Option<DataError>);

/// The samples of one shard by its headers, and what is wrong with the shard after them.
fn index(path: &Path, image: Option<&str>) -> Result<Index> {
    let io = |e| DataError::io("read", path, e);
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let name = path.display().to_string();
    let mut grouper = Grouper::new(image);
    let mut samples = Vec::new();
    let walked = walk_file(file, &name, length, &mut |member| {
        let span = Span { position: member.position, length: member.size };
        samples.extend(super::stream::take(&mut grouper, &name, member, |_| Ok(Some(span)))?);
        Ok(())
    });
    match walked {
        Ok(()) => {
            samples.extend(grouper.finish());
            Ok((samples, None))
        }
        // The last sample before the cut may lack files, so it goes too.
        Err(Stop::Damaged(reason)) => Ok((samples, Some(DataError::dataset(name, reason)))),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Unheard) => Ok((samples, None)),
    }
}

impl Dataset for Local {
    fn len(&self) -> usize {
        self.index.len()
    }

    fn pair(&self, index: usize) -> Result<PairRecord> {
        let Indexed { shard, sample } = crate::datasets::at(&self.index, index)?;
        let path = &self.shards[*shard];
        let io = |e| DataError::io("read", path, e);
        let mut file = File::open(path).map_err(io)?;
        let mut read = |span: Span| {
            // The length was held against its limit when the shard was indexed.
            let mut bytes = vec![0; span.length as usize];
            file.seek(SeekFrom::Start(span.position)).and_then(|_| file.read_exact(&mut bytes)).map_err(io)?;
            Ok(bytes)
        };
        let image = match &sample.image {
            Some((key, span)) => Some((key.clone(), read(*span)?)),
            None => None,
        };
        let Parts { json, txt, caption } = &sample.texts;
        let mut text = |span: &Option<Span>| span.map(&mut read).transpose();
        let texts = Parts { json: text(json)?, txt: text(txt)?, caption: text(caption)? };
        assemble(sample.with(image, texts), &path.display().to_string(), self.field.as_deref())
    }

    fn spec(&self) -> DatasetSpec {
        self.spec.clone()
    }

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}
