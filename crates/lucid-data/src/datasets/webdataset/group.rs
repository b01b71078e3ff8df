//! Members of a shard to samples.

use std::collections::HashSet;
use std::path::{Component, Path};

use crate::dataset::inside;
use crate::datasets::sample::{IMAGES, MAX_IMAGE, MAX_TEXT, Texts};
use crate::error::DataError;

/// What a member is to its sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Image,
    Json,
    Txt,
    Caption,
}

impl Role {
    /// The most bytes such a member may have.
    pub(super) fn limit(self) -> u64 {
        if self == Self::Image { MAX_IMAGE } else { MAX_TEXT }
    }
}

/// The texts of a sample, as bytes or as places in the shard.
#[derive(Debug)]
pub(super) struct Parts<P> {
    pub(super) json: Option<P>,
    pub(super) txt: Option<P>,
    pub(super) caption: Option<P>,
}

impl Parts<Vec<u8>> {
    pub(super) fn into_texts(self) -> Texts {
        Texts { json: self.json, txt: self.txt, caption: self.caption }
    }
}

/// The members of one sample that are of use; `P` is their content or their place.
#[derive(Debug)]
pub(super) struct Sample<P> {
    /// Name up to the first dot of its last component.
    pub(super) base: String,
    /// Key (the image's name) and image.
    pub(super) image: Option<(String, P)>,
    pub(super) texts: Parts<P>,
    /// Extensions of other members, for messages.
    others: Vec<String>,
    /// The first thing that is wrong with it.
    fault: Option<String>,
}

impl<P> Sample<P> {
    fn new(base: String) -> Self {
        let texts = Parts { json: None, txt: None, caption: None };
        Self { base, image: None, texts, others: Vec::new(), fault: None }
    }

    /// The same sample with its files as something else.
    pub(super) fn with<Q>(&self, image: Option<(String, Q)>, texts: Parts<Q>) -> Sample<Q> {
        Sample { base: self.base.clone(), image, texts, others: self.others.clone(), fault: self.fault.clone() }
    }

    /// What can be said against a sample without looking into its files.
    pub(super) fn problem(&self, shard: &str) -> Option<DataError> {
        if let Some(fault) = &self.fault {
            return Some(DataError::dataset(format!("{shard}: {}", self.base), fault.clone()));
        }
        let others = if self.others.is_empty() { "none".into() } else { self.others.join(", ") };
        let Some((key, _)) = &self.image else {
            let reason = format!("{shard} has no image for it ({}); its other files: {others}", IMAGES.join(", "));
            return Some(DataError::Image { key: self.base.clone(), reason });
        };
        if self.texts.json.is_none() && self.texts.txt.is_none() && self.texts.caption.is_none() {
            let reason = format!("{shard} has no .json, .txt or .caption for it; its other files: {others}");
            return Some(DataError::NoCaption { key: key.clone(), reason });
        }
        None
    }

    /// Samples without anything of use (`README.md`) are passed over.
    fn of_use(&self) -> bool {
        let Parts { json, txt, caption } = &self.texts;
        self.fault.is_some() || self.image.is_some() || json.is_some() || txt.is_some() || caption.is_some()
    }
}

/// Which sample a member belongs to, and as what.
#[derive(Debug)]
pub(super) struct Named {
    base: String,
    key: String,
    extension: String,
    pub(super) role: Option<Role>,
}

/// Sorts members into samples.
pub(super) struct Grouper<P> {
    image: Option<String>,
    current: Option<Sample<P>>,
    bases: HashSet<String>,
}

impl<P> Grouper<P> {
    /// `image` is the only extension of images, where there is one.
    pub(super) fn new(image: Option<&str>) -> Self {
        Self { image: image.map(str::to_ascii_lowercase), current: None, bases: HashSet::new() }
    }

    /// The place of a member by its name; `None` where it is hidden (`.DS_Store`, `._x.jpg`).
    pub(super) fn name(&self, name: &str, shard: &str) -> Result<Option<Named>, String> {
        inside(Path::new(""), name, &shard).map_err(|_| {
            format!("the member name {name:?} leads out of the shard; expected a relative path without `..`")
        })?;
        let parts = Path::new(name).components().filter(|c| matches!(c, Component::Normal(_)));
        let key = parts.map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
        let (folder, file) = key.rsplit_once('/').map_or(("", key.as_str()), |(d, f)| (&key[..d.len() + 1], f));
        let (stem, extension) = file.split_once('.').unwrap_or((file, ""));
        if stem.is_empty() {
            return Ok(None);
        }
        let extension = extension.to_ascii_lowercase();
        let role = match (extension.as_str(), &self.image) {
            ("json", _) => Some(Role::Json),
            ("txt", _) => Some(Role::Txt),
            ("caption", _) => Some(Role::Caption),
            (e, Some(only)) => (e == only).then_some(Role::Image),
            (e, None) => IMAGES.contains(&e).then_some(Role::Image),
        };
        Ok(Some(Named { base: format!("{folder}{stem}"), extension, role, key }))
    }

    /// Adds a member, or what is wrong with it, and gives the sample before it where that is complete.
    pub(super) fn push(&mut self, named: Named, part: Result<Option<P>, String>) -> Option<Sample<P>> {
        let Named { base, key, extension, role } = named;
        let finished = self.turn_to(base);
        let sample = self.current.as_mut()?;
        let fault = match (role, part) {
            (_, Err(fault)) => Some(fault),
            (None, _) | (_, Ok(None)) => {
                sample.others.push(extension);
                sample.others.truncate(8);
                None
            }
            (Some(Role::Image), Ok(Some(part))) => match &sample.image {
                Some((other, _)) if *other == key => Some(format!("the sample has two members {key:?}")),
                Some((other, _)) => Some(format!(
                    "the images {other:?} and {key:?} are of one sample; say with `image` which extension counts"
                )),
                None => {
                    sample.image = Some((key, part));
                    None
                }
            },
            (Some(role), Ok(Some(part))) => {
                let slot = match role {
                    Role::Json => &mut sample.texts.json,
                    Role::Txt => &mut sample.texts.txt,
                    Role::Caption | Role::Image => &mut sample.texts.caption,
                };
                slot.replace(part).map(|_| format!("the sample has two members {key:?}"))
            }
        };
        sample.fault = sample.fault.take().or(fault);
        finished
    }

    /// A member whose name is refused: a sample of its own.
    pub(super) fn refuse(&mut self, name: &str, fault: String) -> Option<Sample<P>> {
        let named = Named { base: name.into(), key: name.into(), extension: String::new(), role: None };
        self.push(named, Err(fault))
    }

    fn turn_to(&mut self, base: String) -> Option<Sample<P>> {
        if self.current.as_ref().is_some_and(|s| s.base == base) {
            return None;
        }
        let mut next = Sample::new(base.clone());
        if !self.bases.insert(base) {
            next.fault = Some(
                "the name stands for two samples of this shard, or its files do not follow each other; names must differ, and \
                 `tar --sort=name` keeps a sample's files together"
                    .into(),
            );
        }
        self.current.replace(next).filter(Sample::of_use)
    }

    /// The last sample.
    pub(super) fn finish(self) -> Option<Sample<P>> {
        self.current.filter(Sample::of_use)
    }
}
