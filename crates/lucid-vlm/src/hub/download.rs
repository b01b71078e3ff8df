//! One file of a repository: asked for, fetched where the last call left off, verified, shown in the snapshot.

use crate::error::VlmError;
use crate::hub::cache::{Cache, cancelled, io_error};
use crate::hub::http::{Failed, Http, download_error};
use crate::hub::name::{Repo, is_hex};
use crate::hub::status::refusal;
use lucid_data::progress::Observer;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName};
use reqwest::{Method, StatusCode, Url};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Most bytes of a file whose size the server does not tell.
const MAX_UNSIZED: u64 = 1 << 30;
/// Most bytes of a file that is not of weights; these are read whole.
const MAX_TEXT: u64 = 256 << 20;
const LATER: &str = "try again; if it stays so, the server or a proxy changes files";

/// A file as the hub describes it.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub file: String,
    url: Url,
    /// SHA-256 of the content, or its hash as a git blob.
    pub etag: String,
    pub size: Option<u64>,
}

/// Bytes of the whole download.
pub(super) struct Progress<'a> {
    pub observer: &'a dyn Observer,
    /// Of the files before this one.
    pub before: u64,
    pub total: u64,
}

impl Progress<'_> {
    fn report(&self, of_file: u64) {
        self.observer.progress("download", self.before + of_file, self.total);
    }
}

/// Asks the hub for hash and size of a file.
pub(super) fn describe(
    http: &Http,
    repo: &Repo,
    commit: &str,
    file: &str,
    observer: &dyn Observer,
) -> Result<Remote, VlmError> {
    let parts: Vec<&str> = repo.id.split('/').chain(["resolve", commit]).chain(file.split('/')).collect();
    let url = http.url(&parts);
    let what = format!("{file} of {}", repo.full());
    let answer = http.patiently(&what, observer, |_| {
        let answer = http.send(Method::HEAD, url.clone(), 0)?;
        if let Some(failed) = Http::again(&answer.response) {
            return Err(failed);
        }
        let status = answer.response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(answer);
        }
        Err(Failed::Final(refusal(http, &answer, repo, Some(file))))
    });
    let answer = answer.map_err(|gave_up| *gave_up.error)?;
    if let Some(other) = answer.header("x-repo-commit").filter(|other| *other != commit) {
        return Err(download_error(&what, format!("a file of commit {other}"), &format!("commit {commit}"), LATER));
    }
    // Of a redirect, ETag and Content-Length would be those of its own text.
    let own = |name: HeaderName| {
        let headers = answer.response.status().is_success().then(|| answer.response.headers())?;
        headers.get(name)?.to_str().ok()
    };
    let etag = answer.header("x-linked-etag").or_else(|| own(ETAG)).unwrap_or_default();
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    if !matches!(etag.len(), 40 | 64) || !is_hex(etag) {
        let found = if etag.is_empty() { "no hash".into() } else { format!("the hash {etag:?}") };
        let fix = "check HF_ENDPOINT: a mirror must pass on the hub's X-Linked-Etag or ETag";
        return Err(download_error(&what, found, "a SHA-256, or a SHA-1 as git has it", fix));
    }
    let size = answer.header("x-linked-size").or_else(|| own(CONTENT_LENGTH)).and_then(|size| size.parse().ok());
    if let Some(size) = size.filter(|&size| size > MAX_TEXT && !file.ends_with(".safetensors")) {
        let expected = format!("at most {MAX_TEXT} bytes of such a file");
        return Err(download_error(&what, format!("{size} bytes"), &expected, "name the repository of another model"));
    }
    Ok(Remote { file: file.into(), url, etag: etag.into(), size })
}

fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|data| data.len())
}

/// Whether the content is in the cache already.
pub(super) fn is_here(cache: &Cache, remote: &Remote) -> bool {
    length(&cache.blob(&remote.etag)).is_some_and(|there| remote.size.is_none_or(|size| size == there))
}

/// Brings the content into the cache, unless it is there, and shows it in the snapshot of `commit`.
pub(super) fn fetch(
    http: &Http,
    cache: &Cache,
    repo: &Repo,
    commit: &str,
    remote: &Remote,
    progress: &Progress<'_>,
) -> Result<(), VlmError> {
    let observer = progress.observer;
    if !is_here(cache, remote) {
        let _lock = cache.lock(&remote.etag, observer)?;
        // Another process may have brought it meanwhile.
        if !is_here(cache, remote) {
            let partial = cache.partial(&remote.etag);
            let what = format!("{} of {}", remote.file, repo.full());
            let mut best = length(&partial).unwrap_or(0);
            http.patiently(&what, observer, |progressed| {
                pull(http, repo, remote, &partial, &what, progress, &mut best, progressed)
            })
            .map_err(|gave_up| *gave_up.error)?;
            verify(remote, &partial, &what, observer)?;
            let blob = cache.blob(&remote.etag);
            fs::rename(&partial, &blob).map_err(io_error(&blob, "write"))?;
        }
    }
    cache.publish(commit, &remote.file, &remote.etag)
}

/// One attempt to bring the rest of a file. `best` is the most that any attempt had; going beyond it is progress.
fn pull(
    http: &Http,
    repo: &Repo,
    remote: &Remote,
    partial: &Path,
    what: &str,
    progress: &Progress<'_>,
    best: &mut u64,
    progressed: &mut bool,
) -> Result<(), Failed> {
    let limit = remote.size.unwrap_or(MAX_UNSIZED);
    let had = length(partial).filter(|&had| had <= limit).unwrap_or(0);
    if remote.size == Some(had) && had > 0 {
        return Ok(());
    }
    let mut answer = http.send(Method::GET, remote.url.clone(), had)?;
    let status = answer.response.status();
    let mut have = match status {
        StatusCode::PARTIAL_CONTENT => {
            let range = answer.response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            if range.is_none_or(|range| !range.starts_with(&format!("bytes {had}-"))) {
                remove(partial)?;
                return Err(Failed::Again(format!("the range {range:?}, asked for bytes {had}-"), None));
            }
            had
        }
        // The server does not do ranges: from the start again.
        StatusCode::OK => 0,
        StatusCode::RANGE_NOT_SATISFIABLE => {
            remove(partial)?;
            return Err(Failed::Again(format!("the server has no bytes from {had} on"), None));
        }
        // An address that the hub redirects to is signed for a while only: ask for a new one.
        _ if !answer.of_hub => {
            let again = Http::again(&answer.response);
            return Err(again.unwrap_or_else(|| Failed::Again(format!("the storage answers {status}"), None)));
        }
        _ => {
            let again = Http::again(&answer.response);
            return Err(again.unwrap_or_else(|| Failed::Final(refusal(http, &answer, repo, Some(&remote.file)))));
        }
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(have == 0)
        .append(have > 0)
        .open(partial)
        .map_err(io_error(partial, "write"))?;
    let mut chunk = vec![0; CHUNK];
    loop {
        if progress.observer.cancelled() {
            return Err(cancelled().into());
        }
        let read = match answer.response.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) => return Err(Failed::Again(format!("the connection broke after {have} bytes ({e})"), None)),
        };
        if have + read as u64 > limit {
            drop(file);
            remove(partial)?;
            return Err(download_error(what, format!("more than {limit} bytes"), "its size", LATER).into());
        }
        file.write_all(&chunk[..read]).map_err(io_error(partial, "write"))?;
        have += read as u64;
        if have > *best {
            *best = have;
            *progressed = true;
        }
        progress.report(have);
    }
    file.sync_all().map_err(io_error(partial, "write"))?;
    match remote.size {
        Some(size) if have < size => Err(Failed::Again(format!("the answer ended after {have} of {size} bytes"), None)),
        _ => Ok(()),
    }
}

fn remove(partial: &Path) -> Result<(), VlmError> {
    match fs::remove_file(partial) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error(partial, "remove")(e)),
        _ => Ok(()),
    }
}

/// Compares the content with the hash; a wrong file is deleted, so that the next call starts over.
fn verify(remote: &Remote, partial: &Path, what: &str, observer: &dyn Observer) -> Result<(), VlmError> {
    let file = File::open(partial).map_err(io_error(partial, "read"))?;
    let size = length(partial).unwrap_or(0);
    let (kind, found) = if remote.etag.len() == 64 {
        ("SHA-256", hash(Sha256::new(), file, partial, observer)?)
    } else {
        let header = format!("blob {size}\0");
        ("git hash", hash(Sha1::new().chain_update(header), file, partial, observer)?)
    };
    if found == remote.etag {
        return Ok(());
    }
    remove(partial)?;
    let found = format!("{size} bytes with the {kind} {found} (a damaged download, now deleted)");
    Err(download_error(what, found, &format!("the {kind} {}", remote.etag), LATER))
}

fn hash<D: Digest>(mut digest: D, mut file: File, path: &Path, observer: &dyn Observer) -> Result<String, VlmError> {
    let mut chunk = vec![0; CHUNK];
    loop {
        if observer.cancelled() {
            return Err(cancelled());
        }
        match file.read(&mut chunk).map_err(io_error(path, "read"))? {
            0 => break,
            read => digest.update(&chunk[..read]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
