//! Backbones by name: `google/siglip-base-patch16-224` from the Hugging Face hub, through its cache.
//!
//! The cache is that of `huggingface_hub`, in the same place under the same variables, so a model that Python has downloaded is used
//! as it is, and the other way round. Every file is checked against the hash the hub gives; only safetensors and JSON or text are
//! fetched, never a pickle.

mod cache;
mod download;
mod files;
mod http;
mod name;
mod settings;
mod status;

pub use name::MINI;
pub use settings::{ENDPOINT, HubSettings};

use crate::backbone::Backbone;
use crate::error::VlmError;
use cache::{Cache, io_error};
use download::{Progress, describe, fetch, is_here};
use http::{Failed, GaveUp, Http, download_error};
use lucid_data::progress::Observer;
use name::{Name, Repo, is_commit};
use serde::Deserialize;
use status::refusal;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Where a backbone's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedBackbone {
    /// The folder with its files.
    pub folder: PathBuf,
    /// What it is called in what is made with it: `owner/name@commit`, or the name of the folder.
    pub id: String,
    /// The commit; `None` for a folder of one's own.
    pub revision: Option<String>,
}

/// What a repository holds at a commit.
struct Listing {
    commit: String,
    files: BTreeSet<String>,
}

/// Loads a backbone by name: `mini`, a folder, or `owner/name[@revision]` of the hub, downloaded where it is not in the cache.
///
/// # Errors
/// Those of [`resolve`] and of [`Backbone::load`].
pub fn load(name: &str, observer: &dyn Observer) -> Result<Backbone, VlmError> {
    if name == MINI {
        return Backbone::mini();
    }
    let resolved = resolve(name, observer)?;
    let backbone = Backbone::load(&resolved.folder)?;
    Ok(if resolved.revision.is_some() { backbone.with_id(resolved.id) } else { backbone })
}

/// Finds the folder of a backbone; a name of the hub is downloaded where it is not in the cache. The hub is asked for the newest
/// commit of a branch each time, unless `HF_HUB_OFFLINE` is set.
///
/// # Errors
/// `E_BACKBONE` for a name that leads to no backbone that can be used, `E_DOWNLOAD`, `E_IO`, `E_CANCELLED` (what has arrived is
/// kept), `E_OPTION` for an environment variable that makes no sense.
pub fn resolve(name: &str, observer: &dyn Observer) -> Result<ResolvedBackbone, VlmError> {
    match Name::parse(name)? {
        Name::Repo(repo) => resolve_repo(&repo, &HubSettings::from_env()?, observer),
        other => local(name, other),
    }
}

/// [`resolve`] with settings of one's own.
///
/// # Errors
/// As there.
pub fn resolve_with(name: &str, settings: &HubSettings, observer: &dyn Observer) -> Result<ResolvedBackbone, VlmError> {
    match Name::parse(name)? {
        Name::Repo(repo) => resolve_repo(&repo, settings, observer),
        other => local(name, other),
    }
}

fn local(name: &str, parsed: Name) -> Result<ResolvedBackbone, VlmError> {
    let Name::Folder(folder) = parsed else {
        return Err(VlmError::Name {
            name: name.into(),
            found: "it is embedded and has no folder".into(),
            expected: "a folder or a name on the hub".into(),
            fix: "use `hub::load`, which knows it".into(),
        });
    };
    let real = folder.canonicalize().map_err(io_error(&folder, "open"))?;
    let id = real.file_name().map_or_else(|| name.to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(ResolvedBackbone { folder, id, revision: None })
}

fn found(cache: &Cache, repo: &Repo, commit: String) -> ResolvedBackbone {
    let id = format!("{}@{commit}", repo.id);
    ResolvedBackbone { folder: cache.snapshot(&commit), id, revision: Some(commit) }
}

fn resolve_repo(repo: &Repo, settings: &HubSettings, observer: &dyn Observer) -> Result<ResolvedBackbone, VlmError> {
    let cache = Cache::new(&settings.cache, repo);
    // A commit never changes, so one that is complete needs no request.
    if settings.offline || is_commit(&repo.revision) {
        match cache.complete(repo) {
            Ok(commit) => return Ok(found(&cache, repo, commit)),
            Err(missing) if settings.offline => {
                return Err(VlmError::Name {
                    name: repo.full(),
                    found: format!("{}, and HF_HUB_OFFLINE forbids to download", missing.0),
                    expected: "a complete snapshot in the cache".into(),
                    fix:
                        "run once without HF_HUB_OFFLINE, or copy the repository's folder from another machine's cache"
                            .into(),
                });
            }
            Err(_) => {}
        }
    }
    let http = Http::new(settings)?;
    let listing = match list(&http, repo, observer) {
        Ok(listing) => listing,
        Err(GaveUp { error, unreachable }) => {
            let Some(commit) = unreachable.then(|| cache.complete(repo).ok()).flatten() else { return Err(*error) };
            let text = format!("{error}; the commit {commit} of {} in the cache is used", repo.id);
            observer.warning("W_HUB", &text);
            return Ok(found(&cache, repo, commit));
        }
    };
    download(&http, &cache, repo, &listing, observer)?;
    cache.note_commit(&repo.revision, &listing.commit)?;
    Ok(found(&cache, repo, listing.commit))
}

/// Asks which commit a revision is and what files it has.
fn list(http: &Http, repo: &Repo, observer: &dyn Observer) -> Result<Listing, GaveUp> {
    #[derive(Deserialize)]
    struct Sibling {
        rfilename: String,
    }
    #[derive(Deserialize)]
    struct Info {
        sha: String,
        #[serde(default)]
        siblings: Vec<Sibling>,
    }
    let parts: Vec<&str> =
        ["api", "models"].into_iter().chain(repo.id.split('/')).chain(["revision", &repo.revision]).collect();
    let url = http.url(&parts);
    let json = http.patiently(&repo.full(), observer, |_| match http.json(&url)? {
        Ok(json) => Ok(json),
        Err(answer) => {
            let again = Http::again(&answer.response);
            Err(again.unwrap_or_else(|| Failed::Final(refusal(http, &answer, repo, None))))
        }
    })?;
    let bad = |found: String| GaveUp {
        error: download_error(
            url.as_str(),
            found,
            "a listing of a repository",
            "check HF_ENDPOINT: it must be the address of a Hugging Face hub",
        )
        .into(),
        unreachable: false,
    };
    let info: Info = serde_json::from_value(json).map_err(|e| bad(format!("JSON of another form ({e})")))?;
    if !is_commit(&info.sha) {
        return Err(bad(format!("the commit {:?}", info.sha)));
    }
    let files: BTreeSet<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
    match files.iter().find(|file| !files::is_plain(file)) {
        // Whoever lists such a name is not to be trusted with the others either.
        Some(file) => Err(bad(format!("the file name {file:?}, which could lead out of the cache"))),
        None => Ok(Listing { commit: info.sha, files }),
    }
}

/// Brings whatever the snapshot lacks.
fn download(
    http: &Http,
    cache: &Cache,
    repo: &Repo,
    listing: &Listing,
    observer: &dyn Observer,
) -> Result<(), VlmError> {
    let choice = files::choose(&listing.files, repo)?;
    let mut wanted = choice.files;
    if let Some(index) = &choice.index {
        bring(http, cache, repo, &listing.commit, std::slice::from_ref(index), observer)?;
        let path = cache.snapshot(&listing.commit).join(index);
        let shards = files::shards(&std::fs::read(&path).map_err(io_error(&path, "read"))?, index)?;
        if let Some(shard) = shards.iter().find(|shard| !listing.files.contains(*shard)) {
            return Err(VlmError::Name {
                name: repo.full(),
                found: format!("{index} names {shard}, which the repository does not hold"),
                expected: "every shard of the weights".into(),
                fix: "the upload is incomplete: choose another revision".into(),
            });
        }
        wanted.extend(shards);
    }
    bring(http, cache, repo, &listing.commit, &wanted, observer)?;
    if !listing.files.contains(files::PREPROCESSOR) {
        cache.note_absent(&listing.commit, files::PREPROCESSOR)?;
    }
    Ok(())
}

/// Brings those of some files that the snapshot lacks; each is asked for first, so that the size of the whole is known.
fn bring(
    http: &Http,
    cache: &Cache,
    repo: &Repo,
    commit: &str,
    wanted: &[String],
    observer: &dyn Observer,
) -> Result<(), VlmError> {
    let snapshot = cache.snapshot(commit);
    let lacking = wanted.iter().filter(|file| !snapshot.join(file).is_file());
    let remotes =
        lacking.map(|file| describe(http, repo, commit, file, observer)).collect::<Result<Vec<_>, VlmError>>()?;
    let new = |remote: &download::Remote| if is_here(cache, remote) { 0 } else { remote.size.unwrap_or(0) };
    let mut progress = Progress { observer, before: 0, total: remotes.iter().map(new).sum() };
    for remote in &remotes {
        let bytes = new(remote);
        fetch(http, cache, repo, commit, remote, &progress)?;
        progress.before += bytes;
    }
    Ok(())
}
