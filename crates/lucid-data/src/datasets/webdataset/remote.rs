//! One object on a server as a reader, through `object_store`.
//!
//! Failed requests are repeated by `object_store`, and a transfer that breaks off goes on where it broke where the server names the
//! version of the file (`ETag`).

use std::io::{self, Read};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use tokio::runtime::{Builder, Runtime};

use crate::error::{DataError, Result};

/// A server that sends nothing for so long counts as gone.
const SILENCE: Duration = Duration::from_secs(60);
/// Repeated requests and resumed transfers of one shard. Their number is the limit: the time that `object_store` would count from
/// the first request on is shorter than a large shard takes.
const RETRIES: usize = 5;
const RETRY_TIME: Duration = Duration::from_secs(24 * 3600);

/// Bytes of an object as they come in; at most one chunk is held.
pub(super) struct Object {
    runtime: Runtime,
    chunks: BoxStream<'static, object_store::Result<bytes::Bytes>>,
    chunk: bytes::Bytes,
}

/// Opens `https://`, `http://` or `s3://`. Keys, region and endpoint of S3 are those of the environment (`AWS_…`).
pub(super) fn open(url: &str) -> Result<Object> {
    let failed = |error: io::Error| DataError::io("download", url, error);
    // The reader lives on a thread of its own, so its runtime never runs within another.
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (store, path) = store(url).map_err(|e| failed(reason(e)))?;
    let answer = runtime.block_on(async { tokio::time::timeout(SILENCE, store.get(&path)).await });
    let result = answer.map_err(|_| failed(silent()))?.map_err(|e| failed(reason(e)))?;
    Ok(Object { runtime, chunks: result.into_stream(), chunk: bytes::Bytes::new() })
}

fn store(url: &str) -> object_store::Result<(Box<dyn ObjectStore>, Path)> {
    // Shards take longer than any limit on a whole request; `SILENCE` watches over them instead.
    let client = ClientOptions::new().with_timeout_disabled().with_allow_http(true);
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIME, ..RetryConfig::default() };
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = Path::from_url_path(path)?;
    let store: Box<dyn ObjectStore> = match scheme {
        "s3" => Box::new(
            AmazonS3Builder::from_env().with_bucket_name(host).with_client_options(client).with_retry(retry).build()?,
        ),
        _ => Box::new(
            HttpBuilder::new()
                .with_url(format!("{scheme}://{host}"))
                .with_client_options(client)
                .with_retry(retry)
                .build()?,
        ),
    };
    Ok((store, path))
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("the server sent nothing for {} s", SILENCE.as_secs()))
}

fn reason(error: object_store::Error) -> io::Error {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    let kind = match &error {
        NotFound { .. } => io::ErrorKind::NotFound,
        PermissionDenied { .. } | Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.to_string())
}

impl Read for Object {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let next = self.runtime.block_on(async { tokio::time::timeout(SILENCE, self.chunks.next()).await });
            match next.map_err(|_| silent())? {
                Some(chunk) => self.chunk = chunk.map_err(reason)?,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.chunk.len());
        buffer[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}
