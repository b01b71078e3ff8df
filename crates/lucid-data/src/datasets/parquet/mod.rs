//! Parquet files with the images inside, as Hugging Face's `datasets` writes them: a column `image` of `{ bytes, path }` or of plain
//! bytes, and a column of captions, one text or a list a row.
//!
//! One row group is in memory at a time, of its columns only the two that are asked for.

mod cells;

use std::collections::HashSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::parquet::basic::{Repetition, Type as Physical};
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::Row;
use ::parquet::record::reader::TreeBuilder;
use ::parquet::schema::types::{SchemaDescriptor, Type, TypePtr};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::cells::{Cells, bytes_of, field, file_name, path_of, texts};
use super::captions::TEXT_FIELDS;
use super::patterns::{self, Place, one_or_many};
use super::{DatasetSpec, Source, out_of_range};
use crate::dataset::{Dataset, ImageSource, OnBad, PairRecord};
use crate::error::{DataError, Result};

/// Most bytes of the two columns in one row group, unpacked. Hugging Face writes groups of 100 rows.
const MAX_GROUP: i64 = 2 << 30;
/// Values unpacked at once; images are large.
const BATCH: usize = 16;

/// Parquet files with the images inside.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParquetSpec {
    /// Paths with `*` or braces, or a folder.
    #[serde(rename = "parquet", alias = "files", with = "one_or_many")]
    pub files: Vec<String>,
    /// The column of images; `image` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The column of captions, `sentences.raw` for a field of a struct; where absent `caption`, `text` or `captions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
}

impl Source for ParquetSpec {
    /// `{ "parquet": files, "image": …, "caption": … }`, or the same in one object under `parquet` with `files`.
    fn gather(value: Value, mut beside: Map<String, Value>) -> Value {
        match value {
            Value::Object(fields) => beside.extend(fields),
            files => drop(beside.insert("parquet".into(), files)),
        }
        Value::Object(beside)
    }

    fn form(&self, _: &str) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    fn open(&self, _: OnBad) -> Result<Box<dyn Dataset>> {
        let places = patterns::resolve(&self.files, "parquet")?;
        let paths = places.into_iter().map(|place| match place {
            Place::Local(path) => Ok(path),
            Place::Remote(url) => {
                Err(DataError::dataset(url, "Parquet files are read from this machine only; download them first"))
            }
        });
        let paths = paths.collect::<Result<Vec<_>>>()?;
        let names = names(&paths);
        let mut files = Vec::with_capacity(paths.len());
        let mut rows = 0;
        let (mut seen, mut repeated) = (HashSet::new(), HashSet::new());
        for (path, name) in paths.into_iter().zip(names) {
            let file = guarded(&path, || Shard::open(&path, name, rows, self))?;
            guarded(&path, || file.find_repeated(&mut seen, &mut repeated))?;
            rows += file.rows();
            files.push(file);
        }
        if rows == 0 {
            return Err(DataError::Empty { what: format!("the data set {} (no row)", self.files.join(", ")) });
        }
        let spec = DatasetSpec::Parquet(self.portable());
        Ok(Box::new(Parquet { spec, files, rows, repeated, cache: Mutex::new(None) }))
    }

    fn portable(&self) -> Self {
        Self { files: patterns::portable(&self.files), ..self.clone() }
    }
}

/// Rows of all files.
struct Parquet {
    spec: DatasetSpec,
    files: Vec<Shard>,
    rows: usize,
    /// Rows whose image has the name of an earlier one.
    repeated: HashSet<usize>,
    cache: Mutex<Option<Cached>>,
}

/// The row group that was read last.
struct Cached {
    file: usize,
    group: usize,
    cells: Arc<Vec<Cells>>,
}

/// One file.
struct Shard {
    path: PathBuf,
    /// The path below the folder that all files share.
    name: String,
    /// Position of its first row in the data set.
    first: usize,
    /// Rows of its row groups.
    groups: Vec<usize>,
    columns: Columns,
}

/// What is read of every row.
struct Columns {
    image: TypePtr,
    /// The image column with nothing but the names in it.
    paths: Option<TypePtr>,
    caption: TypePtr,
    caption_name: String,
    /// Fields within the caption column.
    inner: Vec<String>,
}

/// `parquet` checks what it reads, but not all of it: a damaged file may break one of its assertions, which is no reason to take the
/// program down.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(DataError::dataset(path.display(), "damaged: its pages are not as its schema says")))
}

fn unreadable(path: &Path, error: impl std::fmt::Display) -> DataError {
    DataError::dataset(path.display(), format!("not a readable Parquet file: {error}"))
}

/// Paths below the deepest folder that they share: names that differ where the paths do, and tell nothing of this machine.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let mut root = paths.first().and_then(|p| p.parent()).unwrap_or(Path::new(""));
    while !paths.iter().all(|p| p.starts_with(root)) {
        root = root.parent().unwrap_or(Path::new(""));
    }
    paths.iter().map(|p| super::folder::key(root, p)).collect()
}

impl Shard {
    fn open(path: &Path, name: String, first: usize, spec: &ParquetSpec) -> Result<Self> {
        let reader = reader(path)?;
        let metadata = reader.metadata();
        let columns = Columns::find(metadata.file_metadata().schema(), spec)
            .map_err(|reason| DataError::dataset(path.display(), reason))?;
        let mut groups = Vec::with_capacity(metadata.num_row_groups());
        for (g, group) in metadata.row_groups().iter().enumerate() {
            let rows = usize::try_from(group.num_rows()).map_err(|e| unreadable(path, e))?;
            let ours = group.columns().iter().filter(|c| columns.has(c.column_path().parts()));
            let bytes = ours.fold(0i64, |sum, c| sum.saturating_add(c.uncompressed_size().max(0)));
            if bytes > MAX_GROUP {
                let reason = format!(
                    "row group {g} has {bytes} bytes, at most {MAX_GROUP} are read at once; write the file with smaller row groups"
                );
                return Err(DataError::dataset(path.display(), reason));
            }
            groups.push(rows);
        }
        Ok(Self { path: path.into(), name, first, groups, columns })
    }

    fn rows(&self) -> usize {
        self.groups.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Notes the rows whose image bears a name that an earlier row has. Names are a column of their own, so this is cheap.
    fn find_repeated(&self, seen: &mut HashSet<String>, repeated: &mut HashSet<usize>) -> Result<()> {
        let Some(paths) = &self.columns.paths else { return Ok(()) };
        let mut row = self.first;
        for group in 0..self.groups.len() {
            self.scan(group, vec![Arc::clone(paths)], |cells| {
                let name = path_of(field(&cells, 0)).and_then(|p| file_name(&p));
                if name.is_some_and(|n| !seen.insert(n)) {
                    repeated.insert(row);
                }
                row += 1;
            })?;
        }
        Ok(())
    }

    /// Hands every row of a group, with the columns of `fields` alone, to `take`.
    fn scan(&self, group: usize, fields: Vec<TypePtr>, mut take: impl FnMut(Row)) -> Result<()> {
        let bad = |e| unreadable(&self.path, e);
        let projection = Type::group_type_builder("schema").with_fields(fields).build().map_err(bad)?;
        let schema = Arc::new(SchemaDescriptor::new(Arc::new(projection)));
        let reader = reader(&self.path)?;
        let group = reader.get_row_group(group).map_err(bad)?;
        for row in TreeBuilder::new().with_batch_size(BATCH).as_iter(schema, &*group).map_err(bad)? {
            take(row.map_err(bad)?);
        }
        Ok(())
    }

    fn read(&self, group: usize) -> Result<Vec<Cells>> {
        let mut cells = Vec::new();
        let Columns { image, caption, inner, .. } = &self.columns;
        self.scan(group, vec![Arc::clone(image), Arc::clone(caption)], |row| {
            let image = field(&row, 0);
            let mut captions = Vec::new();
            let read = texts(field(&row, 1), inner, &mut captions);
            cells.push(Cells { path: path_of(image), image: bytes_of(image), captions: read.map(|()| captions) });
        })?;
        Ok(cells)
    }
}

fn reader(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|e| DataError::io("read", path, e))?;
    SerializedFileReader::new(file).map_err(|e| unreadable(path, e))
}

impl Columns {
    fn find(schema: &Type, spec: &ParquetSpec) -> Result<Self, String> {
        let all = || schema.get_fields().iter().map(|f| f.name()).collect::<Vec<_>>().join(", ");
        let column = |name: &str| schema.get_fields().iter().find(|f| f.name() == name).cloned();
        let name = spec.image.as_deref().unwrap_or("image");
        let image = column(name)
            .ok_or_else(|| format!("no column {name:?} for the images; it has {}; say which with `image`", all()))?;
        let wrong = || {
            format!(
                "the column {name:?} is neither bytes nor a struct with `bytes`; say with `image` which one holds images"
            )
        };
        let text = |f: &TypePtr| f.is_primitive() && f.get_physical_type() == Physical::BYTE_ARRAY;
        let once = image.get_basic_info().repetition() != Repetition::REPEATED;
        let (image, paths) = match image.is_primitive() {
            true if text(&image) && once => (image, None),
            false if once => {
                let part = |n: &str| image.get_fields().iter().find(|f| f.name() == n && text(f)).cloned();
                let only = |fields| {
                    let builder = Type::group_type_builder(name).with_repetition(image.get_basic_info().repetition());
                    builder.with_fields(fields).build().map(Arc::new).map_err(|e| e.to_string())
                };
                let (bytes, path) = (part("bytes").ok_or_else(wrong)?, part("path"));
                let paths = path.clone().map(|p| only(vec![p])).transpose()?;
                (only([bytes].into_iter().chain(path).collect())?, paths)
            }
            _ => return Err(wrong()),
        };
        let (caption_name, caption, inner) = match &spec.caption {
            Some(wanted) => {
                let (root, inner) = match (column(wanted), wanted.split_once('.')) {
                    (None, Some((root, inner))) => (root, inner.split('.').map(String::from).collect()),
                    _ => (wanted.as_str(), Vec::new()),
                };
                let found =
                    column(root).ok_or_else(|| format!("no column {root:?} for the captions; it has {}", all()))?;
                (wanted.clone(), found, inner)
            }
            None => {
                let found = TEXT_FIELDS.iter().find_map(|n| Some((n.to_string(), column(n)?, Vec::new())));
                found.ok_or_else(|| {
                    format!(
                        "none of the columns {} for the captions; it has {}; say which with `caption`",
                        TEXT_FIELDS.join(", "),
                        all()
                    )
                })?
            }
        };
        if caption.is_primitive() && !text(&caption) {
            return Err(format!("the column {caption_name:?} holds no texts; it has {}", all()));
        }
        Ok(Self { image, paths, caption, caption_name, inner })
    }

    /// True where a leaf of the file belongs to what is read.
    fn has(&self, path: &[String]) -> bool {
        let root = path.first().map_or("", String::as_str);
        let of_image = root == self.image.name()
            && (path.len() == 1
                || self.image.is_group() && self.image.get_fields().iter().any(|f| f.name() == path[1]));
        of_image || root == self.caption.name()
    }
}

impl Parquet {
    /// The row group with its first row in the data set; the last one read is kept.
    fn group(&self, file: usize, group: usize) -> Result<Arc<Vec<Cells>>> {
        // The lock is held while reading, so that neighbours wait for the group instead of reading it too.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cache.as_ref().filter(|c| (c.file, c.group) == (file, group)) {
            return Ok(Arc::clone(&cached.cells));
        }
        // Two groups are never in memory at once.
        *cache = None;
        let shard = &self.files[file];
        let cells = Arc::new(guarded(&shard.path, || shard.read(group))?);
        *cache = Some(Cached { file, group, cells: Arc::clone(&cells) });
        Ok(cells)
    }
}

impl Dataset for Parquet {
    fn len(&self) -> usize {
        self.rows
    }

    fn pair(&self, index: usize) -> Result<PairRecord> {
        if index >= self.rows {
            return Err(out_of_range(index, self.rows));
        }
        let file = self.files.partition_point(|f| f.first <= index) - 1;
        let shard = &self.files[file];
        let row = index - shard.first;
        let (mut group, mut within) = (0, row);
        while within >= shard.groups[group] {
            (group, within) = (group + 1, within - shard.groups[group]);
        }
        let place = format!("{}#{row}", shard.name);
        let cells = self.group(file, group)?;
        let Some(Cells { path, image, captions }) = cells.get(within) else {
            return Err(DataError::dataset(
                place,
                format!("row group {group} has {} rows, fewer than it says", cells.len()),
            ));
        };
        let named = path.as_deref().and_then(file_name).filter(|_| !self.repeated.contains(&index));
        let key = named.unwrap_or_else(|| place.clone());
        let Some(image) = image else {
            let reason = match path {
                Some(_) => format!("{place} has its path only; embed the bytes before writing the file"),
                None => format!("{place} has null for it"),
            };
            return Err(DataError::Image { key, reason });
        };
        let column = &shard.columns.caption_name;
        let captions = captions.as_ref().map_err(|reason| {
            DataError::dataset(&place, format!("the column {column:?} holds something else than captions: {reason}"))
        })?;
        if captions.is_empty() {
            return Err(DataError::NoCaption { key, reason: format!("{column} of {place} is null or empty") });
        }
        let image = ImageSource::Encoded(image.data().to_vec());
        Ok(PairRecord { key, image, captions: captions.clone(), boxes: Vec::new(), size: None })
    }

    fn spec(&self) -> DatasetSpec {
        self.spec.clone()
    }
}
