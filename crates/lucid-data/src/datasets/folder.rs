//! A folder of images, with captions in a file or beside each image.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::captions::{self, Row};
use super::records::Collect;
use super::sample::IMAGES;
use super::shapeworld::{self, Group};
use super::{DatasetSpec, Source, last};
use crate::dataset::{Dataset, ImageSource, OnBad, PairRecord, Skipped, inside};
use crate::error::{DataError, Result};

/// Caption files looked for in a folder, first found first used; ImageFolder's metadata files last.
const CAPTION_FILES: [&str; 5] = ["captions.jsonl", "captions.csv", "captions.tsv", "metadata.jsonl", "metadata.csv"];
/// Files of groups of lines, used where there is none of the above.
const GROUP_FILES: [&str; 2] = ["captions.txt", "caption.txt"];
const MAX_DEPTH: usize = 16;

/// A folder of images with captions in a file or beside each image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub struct FolderSpec {
    /// The folder; sub-folders are read too.
    pub images: PathBuf,
    /// The caption file; where absent it is looked for in the folder.
    pub captions: Option<PathBuf>,
    /// Reads no captions: the name of a file, in words, stands for one.
    pub uncaptioned: bool,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Path(PathBuf),
    Full(Fields),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    images: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    captions: Option<Captions>,
}

/// A caption file, or whether captions are read at all.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Captions {
    Read(bool),
    File(PathBuf),
}

impl From<Form> for FolderSpec {
    fn from(form: Form) -> Self {
        match form {
            Form::Path(images) => Self { images, captions: None, uncaptioned: false },
            Form::Full(Fields { images, captions }) => match captions {
                Some(Captions::File(file)) => Self { images, captions: Some(file), uncaptioned: false },
                read => Self { images, captions: None, uncaptioned: matches!(read, Some(Captions::Read(false))) },
            },
        }
    }
}

impl From<FolderSpec> for Form {
    fn from(FolderSpec { images, captions, uncaptioned }: FolderSpec) -> Self {
        match captions {
            None if uncaptioned => Self::Full(Fields { images, captions: Some(Captions::Read(false)) }),
            None => Self::Path(images),
            Some(file) => Self::Full(Fields { images, captions: Some(Captions::File(file)) }),
        }
    }
}

impl Source for FolderSpec {
    /// Records come in natural order of the file names (`2.png` before `10.png`), folder by folder.
    fn open(&self, on_bad: OnBad) -> Result<Box<dyn Dataset>> {
        let Self { images, captions, uncaptioned } = self;
        let mut reading = Reading { root: images.clone(), collect: Collect::new(on_bad) };
        match captions {
            Some(file) => reading.with_file(images, file, &list(images, true, 0)?)?,
            None if *uncaptioned => reading.named(&list(images, true, 0)?)?,
            None => reading.folder(images, 0)?,
        }
        let what = || format!("the data set {} (no image with a caption)", images.display());
        reading.collect.finish(DatasetSpec::Folder(self.clone()), what)
    }

    fn portable(&self) -> Self {
        let captions = self.captions.as_deref().map(last);
        Self { images: last(&self.images), captions, uncaptioned: self.uncaptioned }
    }
}

struct Reading {
    root: PathBuf,
    collect: Collect,
}

/// What lies in a folder, in natural order.
pub(crate) struct Listing {
    pub(crate) images: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

/// Lists the images of a folder; with `deep` those of its sub-folders too. Hidden entries are passed over.
pub(crate) fn list(folder: &Path, deep: bool, depth: usize) -> Result<Listing> {
    let io = |e| DataError::io("read", folder, e);
    let mut listing = Listing { images: Vec::new(), folders: Vec::new() };
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let hidden = path.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.'));
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        if hidden {
        } else if path.is_dir() {
            listing.folders.push(path);
        } else if extension.is_some_and(|e| IMAGES.contains(&e.as_str())) {
            listing.images.push(path);
        }
    }
    listing.images.sort_by(|a, b| natural(a, b));
    listing.folders.sort_by(|a, b| natural(a, b));
    if deep && depth < MAX_DEPTH {
        for folder in std::mem::take(&mut listing.folders) {
            listing.images.extend(list(&folder, true, depth + 1)?.images);
        }
    }
    Ok(listing)
}

/// Compares paths with runs of digits by their number.
pub(crate) fn natural(a: &Path, b: &Path) -> Ordering {
    let (a, b) = (a.to_string_lossy(), b.to_string_lossy());
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    while let (Some(&p), Some(&q)) = (x.first(), y.first()) {
        if p.is_ascii_digit() && q.is_ascii_digit() {
            let run = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
            let ((n, xs), (m, ys)) = (x.split_at(run(x)), y.split_at(run(y)));
            let zeros = |s: &[u8]| s.iter().take_while(|&&c| c == b'0').count();
            let (n, m) = (&n[zeros(n)..], &m[zeros(m)..]);
            let order = n.len().cmp(&m.len()).then_with(|| n.cmp(m));
            if order != Ordering::Equal {
                return order;
            }
            (x, y) = (xs, ys);
        } else if p != q {
            return p.cmp(&q);
        } else {
            (x, y) = (&x[1..], &y[1..]);
        }
    }
    // Same up to leading zeros: the bytes decide, so the order is total.
    x.len().cmp(&y.len()).then_with(|| a.cmp(&b))
}

impl Reading {
    /// Reads one folder by what it holds, then its sub-folders.
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<()> {
        let present = |names: &[&str]| names.iter().map(|n| folder.join(n)).find(|p| p.is_file());
        if let Some(file) = present(&CAPTION_FILES) {
            // Such a file speaks for the sub-folders too.
            return self.with_file(folder, &file, &list(folder, true, depth)?);
        }
        let listing = list(folder, false, depth)?;
        match present(&GROUP_FILES) {
            Some(file) if !listing.images.is_empty() => self.with_file(folder, &file, &listing)?,
            _ => self.beside(&listing)?,
        }
        if depth < MAX_DEPTH {
            listing.folders.iter().try_for_each(|f| self.folder(f, depth + 1))?;
        }
        Ok(())
    }

    /// No captions: the names of the files, in words.
    fn named(&mut self, listing: &Listing) -> Result<()> {
        for image in &listing.images {
            let stem = image.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let words: Vec<&str> = stem.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
            let caption = if words.is_empty() { "picture".to_owned() } else { words.join(" ") };
            self.take(image, vec![caption], Vec::new(), None, None)?;
        }
        Ok(())
    }

    /// Captions in same-name `.txt` files, one a line.
    fn beside(&mut self, listing: &Listing) -> Result<()> {
        for image in &listing.images {
            let text = image.with_extension("txt");
            let lines = if text.is_file() { captions::read_text(&text)? } else { String::new() };
            let captions = captions::lines(&lines);
            let problem = captions.is_empty().then(|| {
                let state = if text.is_file() { "is empty" } else { "does not exist" };
                DataError::NoCaption {
                    key: self.key(image),
                    reason: format!("{} {state}, and the folder has no captions file", text.display()),
                }
            });
            self.take(image, captions, Vec::new(), None, problem)?;
        }
        Ok(())
    }

    /// Captions in one file for all images of `listing`; names in it are relative to `folder`.
    fn with_file(&mut self, folder: &Path, file: &Path, listing: &Listing) -> Result<()> {
        let grouped = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt")) && !captions::is_table(file)?;
        if grouped {
            return self.with_groups(file, listing);
        }
        let rows = captions::read(file)?;
        let mut by_image: HashMap<PathBuf, Row> = HashMap::new();
        // The file's order is the data set's; images that it does not name come last, in natural order.
        let mut order: Vec<PathBuf> = Vec::new();
        let mut missing = Vec::new();
        let known: HashMap<&Path, ()> = listing.images.iter().map(|p| (p.as_path(), ())).collect();
        for row in rows {
            let place = format!("{}:{}", file.display(), row.line);
            let path: PathBuf = inside(folder, &row.file, &place)?.components().collect();
            if !known.contains_key(path.as_path()) {
                missing.push((path, row, place));
                continue;
            }
            if !by_image.contains_key(&path) {
                order.push(path.clone());
            }
            let entry = by_image.entry(path).or_default();
            entry.captions.extend(row.captions);
            entry.boxes.extend(row.boxes);
        }
        for (path, row, place) in missing {
            let reason = match path.is_file() {
                true => format!("{place} names it, but it is no JPEG, PNG, WebP, GIF or BMP by its name"),
                false => format!("{place} names it, but {} does not exist", path.display()),
            };
            self.take(&path, row.captions, row.boxes, None, Some(DataError::Image { key: row.file, reason }))?;
        }
        order.extend(listing.images.iter().filter(|image| !by_image.contains_key(*image)).cloned());
        for image in &order {
            let Row { captions, boxes, .. } = by_image.remove(image).unwrap_or_default();
            let problem = captions.is_empty().then(|| DataError::NoCaption {
                key: self.key(image),
                reason: format!("{} has no text for it", file.display()),
            });
            self.take(image, captions, boxes, None, problem)?;
        }
        Ok(())
    }

    fn with_groups(&mut self, file: &Path, listing: &Listing) -> Result<()> {
        let groups = shapeworld::read_groups(file)?;
        let n = listing.images.len();
        if groups.len() != n {
            let reason = format!(
                "{} groups of captions, expected {n}, one an image in natural order of the names",
                groups.len()
            );
            return Err(DataError::dataset(file.display(), reason));
        }
        let worlds = match file.with_file_name("world_model.json") {
            path if path.is_file() => Some((shapeworld::read_worlds(&path)?, path)),
            _ => None,
        };
        if let Some((worlds, path)) = worlds.as_ref().filter(|(w, _)| w.len() != n) {
            return Err(DataError::dataset(
                path.display(),
                format!("{} worlds, expected {n}, one an image", worlds.len()),
            ));
        }
        let mut worlds = worlds.map(|(w, _)| w).unwrap_or_default();
        for (i, (image, Group { captions, labelled_false })) in listing.images.iter().zip(groups).enumerate() {
            if captions.is_empty() {
                // The data set itself says that none of them is true; leaving the image out is what it asks for.
                let problem = DataError::NoCaption {
                    key: self.key(image),
                    reason: format!("agreement.txt calls all {labelled_false} captions false"),
                };
                self.collect.skipped.push(Skipped::because(&self.key(image), &problem));
                continue;
            }
            let size = shapeworld::png_size(image);
            let mut boxes = worlds.get_mut(i).map(std::mem::take).unwrap_or_default();
            match size {
                Some(size) => shapeworld::to_pixels(&mut boxes, size),
                None => boxes.clear(),
            }
            self.take(image, captions, boxes, size, None)?;
        }
        Ok(())
    }

    /// Keeps an image, or deals with what is wrong with it.
    fn take(
        &mut self,
        image: &Path,
        captions: Vec<String>,
        boxes: Vec<crate::BoxAnnotation>,
        size: Option<(u32, u32)>,
        problem: Option<DataError>,
    ) -> Result<()> {
        let key = self.key(image);
        match problem {
            None => {
                let image = ImageSource::File(image.to_path_buf());
                self.collect.keep(PairRecord { key, image, captions, boxes, size });
                Ok(())
            }
            Some(problem) => self.collect.bad(&key, problem),
        }
    }

    fn key(&self, image: &Path) -> String {
        key(&self.root, image)
    }
}

/// The name of a file relative to a folder, with `/` between components on every system.
pub(crate) fn key(root: &Path, file: &Path) -> String {
    let relative = file.strip_prefix(root).unwrap_or(file);
    relative.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}
