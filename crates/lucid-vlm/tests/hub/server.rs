//! A small Hugging Face hub on the loopback: the protocol of listing, HEAD and GET, from memory, with faults on demand.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it arrived; header names in lower case.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

/// What goes wrong with a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status with these headers instead of an answer.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection closes after so many bytes of the content.
    Cut(usize),
    /// So many bytes, then nothing more for a while.
    Hang(usize),
    /// Ranges are ignored.
    NoRange,
    /// Content of the right size that is not the file's.
    Wrong,
    /// More content than was said.
    TooLong,
}

#[derive(Default)]
struct State {
    /// By `owner/name`, then by commit.
    repos: BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<u8>>>>,
    /// By `owner/name`, then by branch or tag.
    revisions: BTreeMap<String, BTreeMap<String, String>>,
    /// Files of this many bytes or more are served by another server, as LFS files are.
    lfs_from: Option<(usize, String)>,
    /// Contents by hash, for a server that is such another.
    stored: BTreeMap<String, Vec<u8>>,
    faults: Vec<(String, String, usize, Fault)>,
    log: Vec<Request>,
}

#[derive(Clone)]
pub struct Server {
    pub address: String,
    state: Arc<Mutex<State>>,
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

pub fn git_hash(bytes: &[u8]) -> String {
    let digest = Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize();
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { address, state: Arc::default() };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                // A client that goes away ends its thread with an error, which is what some tests want.
                std::thread::spawn(move || serving.answer(stream).ok());
            }
        });
        server
    }

    pub fn add(&self, repo: &str, revision: &str, commit: &str, files: &[(&str, &[u8])]) {
        let mut state = self.state.lock().unwrap();
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
        state.repos.entry(repo.into()).or_default().insert(commit.into(), files);
        state.revisions.entry(repo.into()).or_default().insert(revision.into(), commit.into());
    }

    /// The next `times` requests of this method whose path holds `path` go wrong.
    pub fn fault(&self, method: &str, path: &str, times: usize, fault: Fault) {
        self.state.lock().unwrap().faults.push((method.into(), path.into(), times, fault));
    }

    pub fn store_large_files_at(&self, other: &Server, from: usize) {
        let mut state = self.state.lock().unwrap();
        let contents = state.repos.values().flat_map(|commits| commits.values()).flat_map(|files| files.values());
        other.state.lock().unwrap().stored.extend(contents.map(|bytes| (sha256(bytes), bytes.clone())));
        state.lfs_from = Some((from, other.address.clone()));
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let range = headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let mut state = self.state.lock().unwrap();
        state.log.push(Request { method: method.clone(), path: path.clone(), headers });
        let fault = state.faults.iter_mut().find(|(m, p, n, _)| *n > 0 && *m == method && path.contains(p.as_str()));
        let fault = fault.map(|fault| {
            fault.2 -= 1;
            fault.3.clone()
        });
        if let Some(Fault::Status(status, more)) = fault {
            return respond(stream, &method, status, &more, b"", None);
        }
        let parts: Vec<String> = path.trim_start_matches('/').split('/').map(|p| p.replace("%2F", "/")).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match &parts[..] {
            ["api", "models", owner, name, "revision", revision] => {
                let repo = format!("{owner}/{name}");
                let Some(commits) = state.repos.get(&repo) else {
                    let code = vec![("X-Error-Code", "RepoNotFound".into())];
                    return respond(stream, &method, 404, &code, b"", None);
                };
                let commit = state.revisions[&repo].get(*revision).cloned().unwrap_or_else(|| revision.to_string());
                let Some(files) = commits.get(&commit) else {
                    let code = vec![("X-Error-Code", "RevisionNotFound".into())];
                    return respond(stream, &method, 404, &code, b"", None);
                };
                let siblings: Vec<_> = files.keys().map(|f| serde_json::json!({ "rfilename": f })).collect();
                let json = serde_json::json!({ "id": repo, "sha": commit, "siblings": siblings }).to_string();
                respond(stream, &method, 200, &[], json.as_bytes(), None)
            }
            [owner, name, "resolve", commit, file @ ..] => {
                let files = state.repos.get(&format!("{owner}/{name}")).and_then(|commits| commits.get(*commit));
                let Some(bytes) = files.and_then(|files| files.get(&file.join("/"))) else {
                    let code = vec![("X-Error-Code", "EntryNotFound".into())];
                    return respond(stream, &method, 404, &code, b"", None);
                };
                let bytes = bytes.clone();
                let mut more = vec![("X-Repo-Commit", commit.to_string())];
                if let Some((_, storage)) = state.lfs_from.as_ref().filter(|(from, _)| bytes.len() >= *from) {
                    let hash = sha256(&bytes);
                    more.push(("Location", format!("{storage}/stored/{hash}")));
                    more.push(("X-Linked-Etag", format!("\"{hash}\"")));
                    more.push(("X-Linked-Size", bytes.len().to_string()));
                    return respond(stream, &method, 302, &more, b"Found. Redirecting", None);
                }
                more.push(("ETag", format!("\"{}\"", git_hash(&bytes))));
                drop(state);
                content(stream, &method, more, &bytes, range, fault)
            }
            ["stored", hash] => match state.stored.get(*hash).cloned() {
                Some(bytes) => {
                    drop(state);
                    content(stream, &method, vec![], &bytes, range, fault)
                }
                None => respond(stream, &method, 403, &[], b"", None),
            },
            _ => respond(stream, &method, 404, &[], b"", None),
        }
    }
}

/// A file, or the rest of it from a range on.
fn content(
    stream: TcpStream,
    method: &str,
    mut more: Vec<(&'static str, String)>,
    bytes: &[u8],
    range: Option<usize>,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let from = range.filter(|_| !matches!(fault, Some(Fault::NoRange)));
    if from.is_some_and(|from| from >= bytes.len()) {
        return respond(stream, method, 416, &more, b"", None);
    }
    let mut body = bytes[from.unwrap_or(0)..].to_vec();
    if let Some(from) = from {
        more.push(("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())));
    }
    match fault {
        Some(Fault::Wrong) => body[0] ^= 1,
        Some(Fault::TooLong) => body.push(0),
        _ => {}
    }
    let stop = match fault {
        Some(Fault::Cut(after)) => Some((after, Duration::ZERO)),
        Some(Fault::Hang(after)) => Some((after, Duration::from_secs(20))),
        _ => None,
    };
    respond(stream, method, if from.is_some() { 206 } else { 200 }, &more, &body, stop)
}

fn respond(
    mut stream: TcpStream,
    method: &str,
    status: u16,
    more: &[(&str, String)],
    body: &[u8],
    stop: Option<(usize, Duration)>,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in more {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if method == "HEAD" {
        return Ok(());
    }
    let (after, wait) = stop.unwrap_or((body.len(), Duration::ZERO));
    stream.write_all(&body[..after.min(body.len())])?;
    stream.flush()?;
    std::thread::sleep(wait);
    Ok(())
}
