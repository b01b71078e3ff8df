//! A file server on the loopback that can misbehave.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a server does wrong, once for each entry.
#[derive(Default)]
pub struct Faults {
    /// Path → bytes after which the connection breaks.
    pub breaks: HashMap<String, usize>,
    /// Paths that answer 503 the first time.
    pub busy: Vec<String>,
}

pub struct Server {
    pub address: SocketAddr,
    /// `GET /path` or `GET /path bytes=10-`, in order.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(files: HashMap<String, Vec<u8>>, faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, files, faults) = (Arc::clone(&requests), Arc::new(files), Arc::new(Mutex::new(faults)));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, files, faults) = (Arc::clone(&log), Arc::clone(&files), Arc::clone(&faults));
                std::thread::spawn(move || while answer(&stream, &files, &faults, &log).is_some() {});
            }
        });
        Self { address, requests }
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Answers one request; `None` where the connection is over.
fn answer(
    mut stream: &TcpStream,
    files: &HashMap<String, Vec<u8>>,
    faults: &Mutex<Faults>,
    log: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_string();
    let mut range = None;
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.to_string());
        }
    }
    let shown = range.as_ref().map_or_else(String::new, |r| format!(" {r}"));
    log.lock().unwrap().push(format!("GET {path}{shown}"));
    let mut faults = faults.lock().unwrap();
    if let Some(at) = faults.busy.iter().position(|p| *p == path) {
        faults.busy.remove(at);
        stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").ok()?;
        return Some(());
    }
    let breaks = faults.breaks.remove(&path);
    drop(faults);
    let Some(file) = files.get(&path) else {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?;
        return Some(());
    };
    let (status, start, end) = match range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.split_once('-')) {
        Some((from, to)) => {
            let end = to.parse::<usize>().map_or(file.len(), |last| (last + 1).min(file.len()));
            ("206 Partial Content", from.parse().ok()?, end)
        }
        None => ("200 OK", 0, file.len()),
    };
    let body = &file[start..end];
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"v1\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n",
        body.len()
    );
    if range.is_some() {
        head += &format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, file.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    match breaks {
        Some(n) => {
            stream.write_all(&body[..n.min(body.len())]).ok()?;
            let _ = stream.shutdown(std::net::Shutdown::Both);
            None
        }
        None => stream.write_all(body).ok(),
    }
}
