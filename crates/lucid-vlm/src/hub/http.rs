//! Requests to the hub: redirects by hand, so that the token goes to the hub alone; retries; errors that say what to do.

use crate::error::VlmError;
use crate::hub::cache::cancelled;
use crate::hub::settings::HubSettings;
use lucid_data::progress::Observer;
use reqwest::blocking::{Client, Response};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode, Url};
use std::error::Error;
use std::io::Read;
use std::time::{Duration, Instant};

/// Redirects in a row before a server is not believed any more.
const MAX_REDIRECTS: usize = 8;
/// Most bytes of an answer in JSON: a listing of a hundred thousand files.
const MAX_JSON: u64 = 32 << 20;

/// A client of one hub.
pub(super) struct Http {
    client: Client,
    endpoint: Url,
    token: Option<HeaderValue>,
    settings: HubSettings,
}

/// Why an attempt did not work.
#[derive(Debug)]
pub(super) enum Failed {
    /// Another attempt may work, after the wait the server asks for.
    Again(String, Option<Duration>),
    /// It makes no sense to ask again.
    Final(VlmError),
}

impl From<VlmError> for Failed {
    fn from(error: VlmError) -> Self {
        Self::Final(error)
    }
}

/// What became of a request after all its attempts.
#[derive(Debug)]
pub(super) struct GaveUp {
    pub error: Box<VlmError>,
    /// No usable answer came at all, so what is in the cache may still serve.
    pub unreachable: bool,
}

/// The answer to a request, at the end of its redirects or at the first one that leaves the hub.
pub(super) struct Answer {
    pub response: Response,
    /// Headers of the redirects before it, then its own; of the hub only.
    pub headers: Vec<HeaderMap>,
    /// Whether it comes from the hub itself.
    pub of_hub: bool,
}

impl Answer {
    /// The first value of a header among the hub's answers.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|headers| headers.get(name)?.to_str().ok())
    }
}

pub(super) fn download_error(what: &str, found: impl Into<String>, expected: &str, fix: &str) -> VlmError {
    VlmError::Download { what: what.into(), found: found.into(), expected: expected.into(), fix: fix.into() }
}

/// An error with its causes; without the address, which may hold a signature.
fn text(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn origin(url: &Url) -> (&str, Option<&str>, Option<u16>) {
    (url.scheme(), url.host_str(), url.port_or_known_default())
}

impl Http {
    pub fn new(settings: &HubSettings) -> Result<Self, VlmError> {
        let refused = |option: &str, found: &str, expected: &str| VlmError::Argument {
            option: option.into(),
            found: found.into(),
            expected: expected.into(),
        };
        let endpoint = Url::parse(&settings.endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                refused("HF_ENDPOINT", &format!("{:?}", settings.endpoint), "an address such as https://huggingface.co")
            })?;
        let token = match &settings.token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                    refused("HF_TOKEN", "a text with characters no token has", "the token as the hub shows it")
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let client = Client::builder()
            .user_agent(concat!("lucid-sae/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(settings.timeout.min(Duration::from_secs(10)))
            .timeout(settings.timeout)
            .build()
            .map_err(|e| download_error(&settings.endpoint, text(e), "a working client for https", "report this"))?;
        Ok(Self { client, endpoint, token, settings: settings.clone() })
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub fn host(&self) -> &str {
        self.endpoint.host_str().unwrap_or("the hub")
    }

    /// An address below the hub's, from parts that are escaped.
    pub fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        // Only an address that cannot be a base has no segments, and an http address always can.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url
    }

    /// One request with its redirects. A HEAD request does not leave the hub: the answer that leads elsewhere is the hub's last.
    pub fn send(&self, method: Method, url: Url, from: u64) -> Result<Answer, Failed> {
        let (mut url, mut headers) = (url, Vec::new());
        let what = url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let of_hub = origin(&url) == origin(&self.endpoint);
            let mut request = self.client.request(method.clone(), url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some(token) = self.token.as_ref().filter(|_| of_hub) {
                request = request.header(AUTHORIZATION, token.clone());
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.send().map_err(|e| Failed::Again(text(e), None))?;
            if of_hub {
                headers.push(response.headers().clone());
            }
            let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                return Ok(Answer { response, headers, of_hub });
            };
            let fix = "check HF_ENDPOINT and the proxy";
            let next = url
                .join(location)
                .map_err(|_| download_error(&what, "a redirect to something that is no address", "https", fix))?;
            if !matches!(next.scheme(), "http" | "https") || (url.scheme() == "https" && next.scheme() == "http") {
                let found = format!("a redirect from {} to {}", url.scheme(), next.scheme());
                return Err(download_error(&what, found, "one that stays with https", fix).into());
            }
            if method == Method::HEAD && origin(&next) != origin(&self.endpoint) {
                return Ok(Answer { response, headers, of_hub });
            }
            url = next;
        }
        let fix = "check HF_ENDPOINT and the proxy";
        Err(download_error(&what, format!("more than {MAX_REDIRECTS} redirects"), "an answer", fix).into())
    }

    /// The JSON at an address of the hub.
    pub fn json(&self, url: &Url) -> Result<Result<serde_json::Value, Answer>, Failed> {
        let answer = self.send(Method::GET, url.clone(), 0)?;
        if !answer.response.status().is_success() {
            return Ok(Err(answer));
        }
        let mut bytes = Vec::new();
        // One byte more than is allowed tells that there are too many.
        answer
            .response
            .take(MAX_JSON + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Failed::Again(format!("the connection broke: {e}"), None))?;
        let fix = "check HF_ENDPOINT: it must be the address of a Hugging Face hub";
        if bytes.len() as u64 > MAX_JSON {
            let found = format!("more than {MAX_JSON} bytes");
            return Err(download_error(url.as_str(), found, "a listing of a repository", fix).into());
        }
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| download_error(url.as_str(), format!("no JSON ({e})"), "a listing of a repository", fix))?;
        Ok(Ok(value))
    }

    /// Whether a status is worth another attempt, and after which wait.
    pub fn again(response: &Response) -> Option<Failed> {
        let status = response.status();
        let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        if !status.is_server_error() && !busy {
            return None;
        }
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Some(Failed::Again(format!("the server answers {status}"), wait.map(Duration::from_secs)))
    }

    /// Attempts until one works. Those that brought something (`progressed`) do not count.
    pub fn patiently<T>(
        &self,
        what: &str,
        observer: &dyn Observer,
        mut attempt: impl FnMut(&mut bool) -> Result<T, Failed>,
    ) -> Result<T, GaveUp> {
        let mut failures = 0;
        loop {
            if observer.cancelled() {
                return Err(GaveUp { error: cancelled().into(), unreachable: false });
            }
            let mut progressed = false;
            let (reason, asked) = match attempt(&mut progressed) {
                Ok(done) => return Ok(done),
                Err(Failed::Final(error)) => return Err(GaveUp { error: error.into(), unreachable: false }),
                Err(Failed::Again(reason, asked)) => (reason, asked),
            };
            failures = if progressed { 1 } else { failures + 1 };
            let wait = asked.unwrap_or(self.settings.backoff * 2u32.saturating_pow(failures - 1).min(64));
            if failures >= self.settings.attempts || asked.is_some_and(|wait| wait > self.settings.timeout) {
                let later = asked.map_or(String::new(), |wait| format!("; it asks to wait {} s", wait.as_secs()));
                let found = format!("{reason}{later} (attempt {failures} of {})", self.settings.attempts);
                let fix = "try again later: what has arrived is kept and the download goes on from there; behind a proxy set \
                    HTTPS_PROXY, for a mirror HF_ENDPOINT";
                return Err(GaveUp { error: download_error(what, found, "an answer", fix).into(), unreachable: true });
            }
            pause(wait, observer);
        }
    }
}

/// Sleeps, but not on after the work was told to stop.
fn pause(wait: Duration, observer: &dyn Observer) {
    let end = Instant::now() + wait;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|_| !observer.cancelled()) {
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
