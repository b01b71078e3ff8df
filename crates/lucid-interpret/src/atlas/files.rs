//! The atlas folder: published by rename, every file hashed, damaged or newer folders refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

use lucid_data::publish::FolderPublisher;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::Atlas;
use super::format::{AtlasIndex, FORMAT, FORMAT_VERSION, Hit};
use crate::error::{InterpretError, Result};

const INDEX: &str = "atlas.json";
const MAPS: &str = "maps.safetensors";
const HASHES: &str = "hashes.json";
const IMAGES: &str = "images";
/// Name of the tensor.
const HEAT: &str = "heat";
/// No list of hashes is longer; a longer file is not read at all.
const HASHES_LIMIT: u64 = 256 << 20;

/// Length and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileHash {
    bytes: u64,
    blake3: String,
}

/// `hashes.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hashes {
    format: String,
    format_version: u64,
    files: BTreeMap<String, FileHash>,
}

impl Atlas {
    /// Writes the atlas folder, replacing an atlas that is there. Readers see the old one or the new one, never a part.
    ///
    /// # Errors
    /// `E_EXISTS` where something else is there, `E_IO`.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let publisher = FolderPublisher::begin(folder, true, INDEX)?;
        let mut files = BTreeMap::new();
        let mut write = |name: &str, content: &[u8]| -> Result<()> {
            publisher.write(name, content)?;
            let blake3 = blake3::hash(content).to_hex().to_string();
            files.insert(name.to_owned(), FileHash { bytes: content.len() as u64, blake3 });
            Ok(())
        };
        write(INDEX, &to_json(&self.index)?)?;
        write(MAPS, &self.maps()?)?;
        if !self.thumbnails.is_empty() {
            let images = publisher.path(IMAGES);
            fs::create_dir(&images).map_err(|error| InterpretError::io("create", &images, error))?;
            for (name, jpeg) in &self.thumbnails {
                write(name, jpeg)?;
            }
            sync_folder(&images)?;
        }
        let hashes = Hashes { format: FORMAT.into(), format_version: FORMAT_VERSION, files };
        publisher.write(HASHES, &to_json(&hashes)?)?;
        Ok(publisher.publish()?)
    }

    fn maps(&self) -> Result<Vec<u8>> {
        let bytes: Vec<u8> = self.heat.iter().flat_map(|value| value.to_le_bytes()).collect();
        let internal = |error: safetensors::SafeTensorError| InterpretError::Internal(error.to_string());
        let view = TensorView::new(Dtype::F32, vec![self.heat.len()], &bytes).map_err(internal)?;
        safetensors::serialize([(HEAT, view)], None).map_err(internal)
    }

    /// Reads an atlas folder and checks every file of it.
    ///
    /// # Errors
    /// `E_NOT_AN_ATLAS`, `E_VERSION` where it is newer, `E_DAMAGED` where a file is missing or is not what was written.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let hashes = read_hashes(folder)?;
        let mut contents = BTreeMap::new();
        for (name, expected) in &hashes.files {
            contents.insert(name.clone(), read_checked(folder, name, expected)?);
        }
        let mut take = |name: &str| {
            let missing = || InterpretError::damaged(&folder.join(HASHES), format!("it does not list {name}"));
            contents.remove(name).ok_or_else(missing)
        };
        let (index, maps) = (take(INDEX)?, take(MAPS)?);
        let path = folder.join(INDEX);
        let index: AtlasIndex =
            serde_json::from_slice(&index).map_err(|e| InterpretError::damaged(&path, e.to_string()))?;
        let heat = read_heat(&folder.join(MAPS), &maps)?;
        let atlas = Self { index, heat, thumbnails: contents };
        atlas.check(&path)?;
        Ok(atlas)
    }

    /// That every reference inside the atlas leads somewhere: hashes do not say that the writer was right.
    fn check(&self, path: &Path) -> Result<()> {
        let index = &self.index;
        let wrong = |reason: String| Err(InterpretError::damaged(path, reason));
        if index.latents.iter().enumerate().any(|(at, l)| l.latent as usize != at)
            || index.latents.len() != index.model.d_shared
        {
            return wrong(format!("it does not list the latents 0 to {}", index.model.d_shared));
        }
        if index.concepts.iter().enumerate().any(|(at, c)| c.concept as usize != at) {
            return wrong("concepts are not numbered in order".into());
        }
        if let Some(file) =
            index.images.iter().filter_map(|i| i.file.as_ref()).find(|file| !self.thumbnails.contains_key(*file))
        {
            return wrong(format!("the picture {file} is not in the folder"));
        }
        let fits = |hit: &Hit| {
            index.images.get(hit.image).is_some_and(|image| {
                let [rows, columns] = image.grid.map(|side| side as usize);
                let end = rows.checked_mul(columns).and_then(|cells| cells.checked_add(hit.map));
                hit.peak[0] < image.grid[0]
                    && hit.peak[1] < image.grid[1]
                    && end.is_some_and(|end| end <= self.heat.len())
            })
        };
        let all = index.latents.iter().flat_map(|l| &l.images).chain(index.concepts.iter().flat_map(|c| &c.images));
        match all.into_iter().find(|hit| !fits(hit)) {
            Some(hit) => wrong(format!("a picture (image {}, map {}) leads out of the atlas", hit.image, hit.map)),
            None => Ok(()),
        }
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|error| InterpretError::Internal(error.to_string()))?;
    json.push(b'\n');
    Ok(json)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<()> {
    let synced = fs::File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|error| InterpretError::io("sync", path, error))
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> Result<()> {
    Ok(())
}

fn read_hashes(folder: &Path) -> Result<Hashes> {
    let path = folder.join(HASHES);
    let length = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let reason = if folder.join(INDEX).is_file() {
                "has lost its hashes.json"
            } else {
                "is not an atlas: it has no hashes.json"
            };
            return Err(InterpretError::NotAnAtlas { path: folder.to_owned(), reason: reason.into() });
        }
        Err(error) => return Err(InterpretError::io("read", &path, error)),
    };
    if length > HASHES_LIMIT {
        return Err(InterpretError::damaged(
            &path,
            format!("it has {length} bytes; at most {HASHES_LIMIT} were expected"),
        ));
    }
    let bytes = fs::read(&path).map_err(|error| InterpretError::io("read", &path, error))?;
    let damaged = |error: serde_json::Error| InterpretError::damaged(&path, error.to_string());
    // The version comes first: a newer format may have another shape.
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(damaged)?;
    if value["format"].as_str() != Some(FORMAT) {
        let reason = format!("is not an atlas: its hashes.json says format {}", value["format"]);
        return Err(InterpretError::NotAnAtlas { path: folder.to_owned(), reason });
    }
    match value["formatVersion"].as_u64() {
        Some(found) if found > FORMAT_VERSION => {
            return Err(InterpretError::Version { path, found, expected: FORMAT_VERSION });
        }
        Some(_) => {}
        None => return Err(InterpretError::damaged(&path, "it has no formatVersion")),
    }
    serde_json::from_value(value).map_err(damaged)
}

fn read_checked(folder: &Path, name: &str, expected: &FileHash) -> Result<Vec<u8>> {
    let relative = Path::new(name);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) || name.is_empty() {
        return Err(InterpretError::damaged(
            &folder.join(HASHES),
            format!("the file name {name:?} leads out of the atlas"),
        ));
    }
    let path = folder.join(relative);
    let length = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(InterpretError::damaged(&path, "the file is missing"));
        }
        Err(error) => return Err(InterpretError::io("read", &path, error)),
    };
    if length != expected.bytes {
        return Err(InterpretError::damaged(&path, format!("it has {length} bytes; {} were written", expected.bytes)));
    }
    let bytes = fs::read(&path).map_err(|error| InterpretError::io("read", &path, error))?;
    let hash = blake3::hash(&bytes).to_hex().to_string();
    if hash != expected.blake3 {
        return Err(InterpretError::damaged(&path, format!("its BLAKE3 is {hash}; {} was written", expected.blake3)));
    }
    Ok(bytes)
}

fn read_heat(path: &Path, bytes: &[u8]) -> Result<Vec<f32>> {
    let damaged = |reason: String| InterpretError::damaged(path, reason);
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(error.to_string()))?;
    let heat = tensors.tensor(HEAT).map_err(|error| damaged(error.to_string()))?;
    if heat.dtype() != Dtype::F32 || heat.shape().len() != 1 {
        return Err(damaged(format!(
            "'{HEAT}' is {:?} of shape {:?}; expected one dimension of F32",
            heat.dtype(),
            heat.shape()
        )));
    }
    Ok(heat.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
