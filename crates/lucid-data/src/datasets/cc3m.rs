//! Pictures that img2dataset has downloaded: its folders with a text beside each picture, or a table of captions and addresses with
//! the folder of the pictures. Nothing is ever downloaded here.
//!
//! A row of the table finds its picture by its number or by its address, for the whole table alike:
//! *by row*, where all names are numbers (`000000042.jpg`, the name that img2dataset gives): the row's number from 0, the header not
//! counted; *by address*, otherwise: the last component of the address's path.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::captions::{TEXT_FIELDS, read_text};
use super::folder::{key, list};
use super::records::{Collect, repeated};
use super::sample::{MAX_TEXT, Texts};
use super::{DatasetSpec, Source, last};
use crate::dataset::{Dataset, ImageSource, OnBad, PairRecord};
use crate::error::{DataError, Result};

const URL_FIELDS: [&str; 3] = ["url", "image_url", "link"];

/// Pictures that img2dataset has downloaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cc3mSpec {
    /// Folder of the pictures; sub-folders (`00000/`) are read too.
    pub images: PathBuf,
    /// `caption`, tab, `url` a line; where absent every picture has its `.json` or `.txt` beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<PathBuf>,
}

impl Source for Cc3mSpec {
    fn open(&self, on_bad: OnBad) -> Result<Box<dyn Dataset>> {
        let pictures = list(&self.images, true, 0)?.images;
        let mut collect = Collect::new(on_bad);
        match &self.captions {
            None => self.beside(&pictures, &mut collect)?,
            Some(table) => self.by_table(&pictures, table, &mut collect)?,
        }
        let what = || format!("the data set {} (no image with a caption)", self.images.display());
        collect.finish(DatasetSpec::Cc3m(self.clone()), what)
    }

    fn portable(&self) -> Self {
        Self { images: last(&self.images), captions: self.captions.as_deref().map(last) }
    }
}

impl Cc3mSpec {
    /// img2dataset's folders: `00000/000000042.jpg` with `.json` and `.txt`.
    fn beside(&self, pictures: &[PathBuf], collect: &mut Collect) -> Result<()> {
        for picture in pictures {
            let key = key(&self.images, picture);
            let read = |extension| text(&picture.with_extension(extension));
            let texts = || Ok(Texts { json: read("json")?, txt: read("txt")?, caption: read("caption")? });
            match texts().and_then(|texts| texts.read(&key, None)) {
                Ok((captions, boxes)) => {
                    let image = ImageSource::File(picture.clone());
                    collect.keep(PairRecord { key, image, captions, boxes, size: None });
                }
                Err(problem) => collect.bad(&key, problem)?,
            }
        }
        Ok(())
    }

    fn by_table(&self, pictures: &[PathBuf], table: &Path, collect: &mut Collect) -> Result<()> {
        let rows = read_table(table)?;
        let names: Vec<_> = pictures.iter().map(|p| name(p)).collect();
        let numbered =
            names.iter().all(|n| stem(n).parse::<u64>().is_ok() && stem(n).bytes().all(|b| b.is_ascii_digit()));
        let by_name: HashMap<&str, usize> = names.iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
        if numbered && rows.iter().any(|row| by_name.contains_key(url_name(&row.url))) {
            let reason = format!(
                "the pictures in {} are named by numbers, and by the addresses of the table too, so that it is open whether a number is \
                 that of a row; use the `folder` data set with a table of `file` and `caption`",
                self.images.display()
            );
            return Err(DataError::dataset(table.display(), reason));
        }
        let mut pictures_of: HashMap<String, Option<usize>> = HashMap::new();
        for (i, name) in names.iter().enumerate() {
            let id = if numbered { number(stem(name)) } else { name.clone() };
            if let Some(other) = pictures_of.insert(id, Some(i)).flatten() {
                let (first, second) = (pictures[other].display().to_string(), pictures[i].display().to_string());
                collect.bad(&key(&self.images, &pictures[i]), repeated(name, &first, &second))?;
            }
        }
        for (n, Row { caption, url, line }) in rows.into_iter().enumerate() {
            let place = format!("{}:{line}", table.display());
            let id = if numbered { n.to_string() } else { url_name(&url).to_string() };
            let problem = match pictures_of.get_mut(&id).map(Option::take) {
                None => {
                    let rule = if numbered { "the row's number" } else { "the last part of the address" };
                    let reason =
                        format!("{place} names it, but no picture in {} has {rule}, {id}", self.images.display());
                    DataError::Image { key: id.clone(), reason }
                }
                Some(None) => DataError::dataset(&id, format!("{place} names a picture that an earlier row has named")),
                Some(Some(i)) => {
                    let (key, image) = (key(&self.images, &pictures[i]), ImageSource::File(pictures[i].clone()));
                    if caption.is_empty() {
                        let problem = DataError::NoCaption { key: key.clone(), reason: format!("{place} has no text") };
                        collect.bad(&key, problem)?;
                    } else {
                        collect.keep(PairRecord { key, image, captions: vec![caption], boxes: Vec::new(), size: None });
                    }
                    continue;
                }
            };
            collect.bad(&id, problem)?;
        }
        let mut left: Vec<usize> = pictures_of.into_values().flatten().collect();
        left.sort_unstable();
        for i in left {
            let key = key(&self.images, &pictures[i]);
            let reason = format!("no row of {} belongs to it", table.display());
            collect.bad(&key, DataError::NoCaption { key: key.clone(), reason })?;
        }
        Ok(())
    }
}

/// The content of a text beside a picture, where there is one.
fn text(path: &Path) -> Result<Option<Vec<u8>>> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(_) => return Ok(None),
    };
    if length > MAX_TEXT {
        return Err(DataError::dataset(path.display(), format!("{length} bytes, at most {MAX_TEXT} are read")));
    }
    std::fs::read(path).map(Some).map_err(|e| DataError::io("read", path, e))
}

fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// `000000042` → `42`.
fn number(digits: &str) -> String {
    match digits.trim_start_matches('0') {
        "" => "0".into(),
        n => n.into(),
    }
}

/// The last component of an address's path.
fn url_name(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

struct Row {
    caption: String,
    url: String,
    line: usize,
}

/// A table with a header that names `caption` and `url`, or CC3M's own: no header, caption first.
fn read_table(path: &Path) -> Result<Vec<Row>> {
    let text = read_text(path)?;
    let mut rows = Vec::new();
    let (mut caption, mut url) = (0, 1);
    for (i, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
        if i == 0 {
            let column = |names: &[&str]| fields.iter().position(|f| names.contains(&f.to_ascii_lowercase().as_str()));
            if let (Some(c), Some(u)) = (column(&TEXT_FIELDS), column(&URL_FIELDS)) {
                (caption, url) = (c, u);
                continue;
            }
        }
        if line.trim().is_empty() {
            continue;
        }
        let (Some(c), Some(u)) = (fields.get(caption), fields.get(url)) else {
            let reason = format!("{} fields, expected a caption, a tab and an address", fields.len());
            return Err(DataError::dataset(format!("{}:{}", path.display(), i + 1), reason));
        };
        if !u.contains("://") {
            let reason = format!(
                "{u:?} is no address; expected a caption, a tab and an address, or a header line that names `caption` and `url`"
            );
            return Err(DataError::dataset(format!("{}:{}", path.display(), i + 1), reason));
        }
        rows.push(Row { caption: c.to_string(), url: u.to_string(), line: i + 1 });
    }
    Ok(rows)
}
