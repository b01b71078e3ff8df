//! Flickr8k, Flickr30k, and other sets with the same caption files: the token file, a table, or Karpathy's JSON.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::captions::{FILE_FIELDS, read_text};
use super::coco::read_json;
use super::records::Collect;
use super::table::{self, Table};
use super::{DatasetSpec, Source, last};
use crate::dataset::{Dataset, ImageSource, OnBad, PairRecord, inside};
use crate::error::{DataError, Result};

/// Flickr8k, Flickr30k, and whatever comes with Karpathy's JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlickrSpec {
    /// Folder of the photos.
    pub images: PathBuf,
    /// `results_20130124.token`, `captions.txt`, `results.csv`, `dataset_flickr30k.json` …
    pub captions: PathBuf,
    /// Only images of these splits of Karpathy's JSON: `train`, `val`, `test`, `restval`, several joined by `+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

/// One image of a caption file.
struct Entry {
    /// Names under which it may lie in the folder, the likeliest first.
    names: Vec<String>,
    captions: Vec<String>,
    place: String,
}

impl Source for FlickrSpec {
    fn open(&self, on_bad: OnBad) -> Result<Box<dyn Dataset>> {
        let Self { images, captions, split } = self;
        let karpathy = captions.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        let entries = match (karpathy, split) {
            (true, split) => read_karpathy(captions, split.as_deref())?,
            (false, None) => read_lines(captions)?,
            (false, Some(split)) => {
                let reason = format!("split {split:?} was asked for, which only Karpathy's JSON knows");
                return Err(DataError::dataset(captions.display(), reason));
            }
        };
        if !images.is_dir() {
            return Err(DataError::io("read", images, std::io::ErrorKind::NotFound.into()));
        }
        let mut collect = Collect::new(on_bad);
        for Entry { names, captions, place } in entries {
            let paths = names.into_iter().map(|name| Ok((inside(images, &name, &place)?, name)));
            let mut paths = match paths.collect::<Result<Vec<_>>>() {
                Ok(paths) => paths,
                Err(problem) => {
                    collect.bad(&place, problem)?;
                    continue;
                }
            };
            let found = paths.iter().position(|(path, _)| path.is_file());
            let (path, key) = paths.swap_remove(found.unwrap_or(0));
            if !collect.first(&key, place.clone())? {
                continue;
            }
            let problem = if captions.is_empty() {
                DataError::NoCaption { key: key.clone(), reason: format!("{place} has no text for it") }
            } else if found.is_none() {
                let reason = format!("{place} names it, but {} does not exist", path.display());
                DataError::Image { key: key.clone(), reason }
            } else {
                let image = ImageSource::File(path);
                collect.keep(PairRecord { key, image, captions, boxes: Vec::new(), size: None });
                continue;
            };
            collect.bad(&key, problem)?;
        }
        collect.finish(DatasetSpec::Flickr(self.clone()), || match split {
            Some(split) => format!("the split {split:?} of {}", captions.display()),
            None => format!("the data set {}", captions.display()),
        })
    }

    fn portable(&self) -> Self {
        Self { images: last(&self.images), captions: last(&self.captions), split: self.split.clone() }
    }
}

#[derive(Deserialize)]
struct Karpathy {
    images: Vec<KarpathyImage>,
}

#[derive(Deserialize)]
struct KarpathyImage {
    filename: String,
    /// Folder of COCO's photos.
    filepath: Option<String>,
    split: Option<String>,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

fn read_karpathy(path: &Path, split: Option<&str>) -> Result<Vec<Entry>> {
    let file: Karpathy = read_json(path, "Karpathy's")?;
    let wanted: Option<Vec<&str>> = split.map(|s| s.split('+').map(str::trim).collect());
    let mut entries = Vec::with_capacity(file.images.len());
    for (i, image) in file.images.into_iter().enumerate() {
        let KarpathyImage { filename, filepath, split, sentences } = image;
        if wanted.as_ref().is_some_and(|w| !w.contains(&split.as_deref().unwrap_or_default())) {
            continue;
        }
        let in_folder = filepath.filter(|p| !p.is_empty()).map(|p| format!("{}/{filename}", p.trim_end_matches('/')));
        let names = in_folder.into_iter().chain([filename]).collect();
        let captions = sentences.iter().map(|s| s.raw.trim().to_string()).filter(|c| !c.is_empty()).collect();
        entries.push(Entry { names, captions, place: format!("{} images[{i}]", path.display()) });
    }
    Ok(entries)
}

/// A line that names an image and gives one caption of it.
struct Line {
    file: String,
    /// The number after `#`, or the line's place among those of the image.
    order: usize,
    caption: String,
    line: usize,
}

/// The token file (`1000092795.jpg#0`, tab, caption) or a table with a header, separated by commas or `|`.
fn read_lines(path: &Path) -> Result<Vec<Entry>> {
    let text = read_text(path)?;
    let first = text.lines().next().unwrap_or_default();
    let lines = match (first.contains('|'), first.split_once('\t')) {
        (true, _) => read_table(path, &text, b'|')?,
        (false, Some((name, _))) if name.contains('#') => read_tokens(path, &text)?,
        (false, Some(_)) => read_table(path, &text, b'\t')?,
        (false, None) => read_table(path, &text, b',')?,
    };
    let mut entries: Vec<(Entry, Vec<(usize, String)>)> = Vec::new();
    let mut by_file: HashMap<String, usize> = HashMap::new();
    for Line { file, order, caption, line } in lines {
        let at = *by_file.entry(file.clone()).or_insert_with(|| {
            let place = format!("{}:{line}", path.display());
            entries.push((Entry { names: vec![file], captions: Vec::new(), place }, Vec::new()));
            entries.len() - 1
        });
        entries[at].1.push((order, caption));
    }
    let finished = entries.into_iter().map(|(mut entry, mut captions)| {
        captions.sort_by_key(|(order, _)| *order);
        entry.captions = captions.into_iter().map(|(_, c)| c).filter(|c| !c.is_empty()).collect();
        entry
    });
    Ok(finished.collect())
}

fn read_tokens(path: &Path, text: &str) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let parts = line.split_once('\t').and_then(|(name, caption)| Some((name.rsplit_once('#')?, caption)));
        let Some(((file, number), caption)) = parts else {
            let reason = "expected a line like 1000092795.jpg#0, tab, caption";
            return Err(DataError::dataset(format!("{}:{}", path.display(), i + 1), reason));
        };
        let order = number.trim().parse().map_err(|_| {
            let reason =
                format!("{number:?} after # is no number; expected a line like 1000092795.jpg#0, tab, caption");
            DataError::dataset(format!("{}:{}", path.display(), i + 1), reason)
        })?;
        lines.push(Line { file: file.trim().into(), order, caption: caption.trim().into(), line: i + 1 });
    }
    Ok(lines)
}

fn read_table(path: &Path, text: &str, separator: u8) -> Result<Vec<Line>> {
    const FILES: [&str; 1] = ["image_name"];
    const TEXTS: [&str; 4] = ["caption", "comment", "text", "captions"];
    const NUMBERS: [&str; 2] = ["comment_number", "caption_number"];
    let mut table = Table::open(path, text, separator)?;
    let file = table.column(&FILE_FIELDS).or_else(|| table.column(&FILES));
    let (Some(file), Some(caption)) = (file, table.column(&TEXTS)) else {
        let found = table.columns();
        let reason = format!(
            "neither Flickr's token file (1000092795.jpg#0, tab, caption) nor a table with a header such as image,caption; the first \
             line is {found:?}"
        );
        return Err(table.bad(1, reason));
    };
    let number = table.column(&NUMBERS);
    let mut lines = Vec::new();
    while let Some((line, record)) = table.next_row()? {
        let field = |column: usize| table::field(&record, column);
        if field(file).is_empty() {
            return Err(table.bad(line, "no image name"));
        }
        // `image.jpg#0` stands in some tables too.
        let (name, hash) = match field(file).rsplit_once('#') {
            Some((name, n)) => (name, n.parse().ok()),
            None => (field(file), None),
        };
        // One line of Flickr30k's results.csv has lost its number; it keeps its place by the order of lines.
        let order = hash.or_else(|| number.and_then(|n| field(n).parse().ok())).unwrap_or(usize::MAX);
        lines.push(Line { file: name.into(), order, caption: field(caption).into(), line });
    }
    Ok(lines)
}
