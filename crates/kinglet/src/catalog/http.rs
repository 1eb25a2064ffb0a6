//! Fetching over HTTP: one file into one partial file, resumable, with its SHA-256 computed on the way.
//!
//! Contract: bytes are only ever appended to the partial file after the server has confirmed that they continue what
//! is there (206 with the right offset, under `If-Range` where the content is not pinned by a checksum). A transfer that
//! breaks off is taken up again while it makes headway. Deliberately absent: parallel ranges and other protocols.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder, http::Response};

use super::error::{AtPath, CatalogError, Result};
use super::progress::{Event, Progress};

/// How often a transfer that stopped making headway is taken up again.
const RETRIES: u32 = 3;
/// The largest text that is read into memory.
const MAX_TEXT: u64 = 32 << 20;
/// Bytes handed from the network to the disk at once.
const CHUNK: usize = 256 << 10;
/// How long a server may think before it answers with a short text: whoever waits has other sources.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a wait looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(100);

/// What is to be fetched.
pub(super) struct Wanted<'a> {
    /// Where from.
    pub(super) url: &'a str,
    /// Sent as a bearer token, to the first server only.
    pub(super) token: Option<&'a str>,
    /// What it is called in events and errors.
    pub(super) file: &'a str,
    /// Its size, where known.
    pub(super) bytes: Option<u64>,
    /// Its SHA-256 in lower-case hexadecimal, where known.
    pub(super) sha256: Option<&'a str>,
}

/// What has been fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Its size.
    pub(super) bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub(super) sha256: String,
}

/// The HTTP client.
pub(super) struct Http {
    agent: Agent,
    stall: Duration,
}

impl Http {
    /// A client that gives up a connection after `connect` and a silent transfer after `stall`.
    pub(super) fn new(connect: Duration, stall: Duration) -> Http {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .user_agent(concat!("kinglet/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build();
        Http { agent: config.new_agent(), stall }
    }

    /// A short text, such as a server's JSON.
    pub(super) fn text(&self, url: &str, token: Option<&str>) -> Result<String> {
        let response =
            self.get(url, token, &[], self.stall.min(ANSWER)).map_err(|why| unreachable(url, why))?;
        check_status(url, response.status().as_u16())?;
        let body = response.into_body().into_with_config().limit(MAX_TEXT).read_to_string();
        body.map_err(|e| CatalogError::BadAnswer { url: url.into(), why: e.to_string() })
    }

    /// What a server calls the content at `url`, and how large it says that is, before it sends it anywhere else.
    pub(super) fn describe(&self, url: &str, token: Option<&str>) -> Result<(Option<String>, Option<u64>)> {
        let first = [("Range", "bytes=0-0"), ("Accept-Encoding", "identity")];
        let request = self.request(url, token, &first, self.stall.min(ANSWER));
        let request = request.config().max_redirects(0).build();
        let response = request.call().map_err(|e| unreachable(url, e.to_string()))?;
        let status = response.status().as_u16();
        if !(200..400).contains(&status) {
            return Err(CatalogError::Status { url: url.into(), status });
        }
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let etag = header("x-linked-etag").or(header("etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        let whole = header("content-range").and_then(parse_content_range).and_then(|(_, total)| total);
        let length = || header("content-length").filter(|_| status == 200)?.parse().ok();
        let bytes = header("x-linked-size").and_then(|size| size.parse().ok()).or(whole).or_else(length);
        Ok((etag, bytes))
    }

    /// Fetches `wanted` into `partial`, going on from what is there; the file is complete and verified when this returns.
    pub(super) fn fetch(
        &self,
        wanted: &Wanted<'_>,
        partial: &Path,
        progress: &dyn Progress,
    ) -> Result<Fetched> {
        let mut file = Partial::open(partial, wanted, progress)?;
        let mut failures = 0;
        loop {
            let before = file.len;
            let (why, connected) = match self.attempt(wanted, &mut file, progress)? {
                Attempt::Complete => return file.finish(wanted),
                Attempt::BrokenOff(why) => (why, true),
                Attempt::NoConnection(why) => (why, false),
            };
            failures = if file.len > before { 1 } else { failures + 1 };
            if !connected && !file.touched {
                return Err(unreachable(wanted.url, why));
            }
            if failures > RETRIES {
                let (file, got) = (wanted.file.into(), file.len);
                return Err(CatalogError::BrokenOff { file, got, wanted: wanted.bytes, why });
            }
            progress.event(Event::Retry { why: &why });
            wait(Duration::from_millis(250 << failures), progress)?;
        }
    }

    fn attempt(&self, wanted: &Wanted<'_>, file: &mut Partial, progress: &dyn Progress) -> Result<Attempt> {
        if wanted.bytes.is_some_and(|bytes| bytes == file.len) {
            return Ok(Attempt::Complete);
        }
        if file.len > 0 && !file.is_pinned(wanted) {
            file.restart()?;
        }
        let range = format!("bytes={}-", file.len);
        let mut headers = vec![("Accept-Encoding", "identity")];
        if file.len > 0 {
            headers.push(("Range", &range));
            headers.extend(file.etag.as_deref().map(|etag| ("If-Range", etag)));
        }
        let response = match self.get(wanted.url, wanted.token, &headers, self.stall) {
            Ok(response) => response,
            Err(why) => return Ok(Attempt::NoConnection(why)),
        };
        let Some(total) = file.accept(wanted, &response)? else {
            return Ok(Attempt::BrokenOff("the server could not go on where the download stopped".into()));
        };
        let space = total.map_or(0, |total| total - file.len);
        check_space(&file.path, wanted.file, space)?;
        progress.event(Event::Begin { file: wanted.file, done: file.len, total });
        let ended = self.receive(response.into_body(), wanted, file, progress)?;
        Ok(match (ended, total) {
            (Some(why), _) => Attempt::BrokenOff(why),
            (None, Some(total)) if file.len < total => Attempt::BrokenOff("the connection was closed".into()),
            (None, _) => Attempt::Complete,
        })
    }

    /// Writes the body to the file; hands back why it ended too early, if it did.
    fn receive(
        &self,
        body: Body,
        wanted: &Wanted<'_>,
        file: &mut Partial,
        progress: &dyn Progress,
    ) -> Result<Option<String>> {
        let chunks = read_in_thread(body);
        let mut last = Instant::now();
        loop {
            if progress.cancelled() {
                file.sync()?;
                return Err(CatalogError::Cancelled);
            }
            match chunks.recv_timeout(TICK) {
                Ok(Ok(chunk)) => {
                    file.append(&chunk, wanted)?;
                    progress.event(Event::Advance { done: file.len });
                    last = Instant::now();
                }
                Ok(Err(why)) => return Ok(Some(why)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if last.elapsed() < self.stall => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Ok(Some(format!("nothing came for {} s", self.stall.as_secs_f32())));
                }
            }
        }
    }

    fn get(
        &self,
        url: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        patience: Duration,
    ) -> Result<Response<Body>, String> {
        self.request(url, token, headers, patience).call().map_err(|e| match e {
            ureq::Error::Io(e) => e.to_string(),
            other => other.to_string(),
        })
    }

    fn request(
        &self,
        url: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        patience: Duration,
    ) -> RequestBuilder<WithoutBody> {
        let mut request = self.agent.get(url).config().timeout_recv_response(Some(patience)).build();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request
    }
}

enum Attempt {
    Complete,
    /// The transfer began and did not reach its end.
    BrokenOff(String),
    /// No answer came.
    NoConnection(String),
}

/// Reads a body in a thread of its own, so that a silent server can be given up and Ctrl-C be heard. The thread ends
/// with the body, or when the receiver is dropped.
fn read_in_thread(body: Body) -> Receiver<Result<Vec<u8>, String>> {
    let (sender, receiver) = sync_channel(4);
    thread::spawn(move || {
        let mut reader = body.into_reader();
        loop {
            let mut chunk = vec![0; CHUNK];
            let message = match reader.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    chunk.truncate(count);
                    Ok(chunk)
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => Err(e.to_string()),
            };
            let ends = message.is_err();
            if sender.send(message).is_err() || ends {
                return;
            }
        }
    });
    receiver
}

/// A file that is being fetched, the hash of what it holds, and the server's mark of the version that it is part of.
struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
    hash: Sha256,
    etag: Option<String>,
    /// Whether a server has answered for it since it was opened.
    touched: bool,
}

impl Partial {
    /// Opens what an earlier attempt has left, or starts anew where that cannot be told from another version.
    fn open(path: &Path, wanted: &Wanted<'_>, progress: &dyn Progress) -> Result<Partial> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).at("write", path)?;
        let mut partial =
            Partial { path: path.to_owned(), file, len: 0, hash: Sha256::new(), etag: None, touched: false };
        partial.etag = fs::read_to_string(partial.etag_path()).ok().filter(|e| e.starts_with('"'));
        let len = partial.file.metadata().at("read", path)?.len();
        if len > 0 && (!partial.is_pinned(wanted) || wanted.bytes.is_some_and(|bytes| len > bytes)) {
            partial.restart()?;
        } else if len > 0 {
            progress.event(Event::Verify { file: wanted.file });
            partial.len = hash_into(&mut partial.hash, &partial.path, progress)?;
        }
        Ok(partial)
    }

    /// Whether more bytes can be told to be of the same version: by the server, or in the end by the checksum.
    fn is_pinned(&self, wanted: &Wanted<'_>) -> bool {
        wanted.sha256.is_some() || self.etag.is_some()
    }

    fn etag_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".etag");
        name.into()
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).at("write", &self.path)?;
        self.len = 0;
        self.hash = Sha256::new();
        self.etag = None;
        let _ = fs::remove_file(self.etag_path());
        Ok(())
    }

    /// Reads the head of an answer. `Some(total)` if its body continues this file; `None` if the request must be
    /// repeated from the start.
    fn accept(&mut self, wanted: &Wanted<'_>, response: &Response<Body>) -> Result<Option<Option<u64>>> {
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let total = match status {
            206 => {
                let range = header("content-range").and_then(parse_content_range);
                let Some((_, total)) = range.filter(|(start, _)| *start == self.len) else {
                    self.restart()?;
                    return Ok(None);
                };
                total
            }
            416 => {
                self.restart()?;
                return Ok(None);
            }
            _ => {
                check_status(wanted.url, status)?;
                if self.len > 0 {
                    self.restart()?;
                }
                header("content-length").and_then(|v| v.parse().ok())
            }
        };
        if let (Some(total), Some(bytes)) = (total, wanted.bytes)
            && total != bytes
        {
            let why = format!("the file there has {total} bytes, it should have {bytes}");
            return Err(CatalogError::BadAnswer { url: wanted.url.into(), why });
        }
        self.touched = true;
        self.remember_version(header("etag"))?;
        let total = total.or(wanted.bytes);
        Ok(if total.is_some_and(|t| t < self.len) { None } else { Some(total) })
    }

    fn remember_version(&mut self, etag: Option<&str>) -> Result<()> {
        let strong = etag.filter(|e| e.starts_with('"')).map(str::to_owned);
        if strong.is_some() && strong != self.etag {
            let path = self.etag_path();
            fs::write(&path, strong.as_deref().unwrap_or_default()).at("write", &path)?;
            self.etag = strong;
        }
        Ok(())
    }

    fn append(&mut self, chunk: &[u8], wanted: &Wanted<'_>) -> Result<()> {
        let len = self.len + chunk.len() as u64;
        if wanted.bytes.is_some_and(|bytes| len > bytes) {
            let why = format!("more than the expected {} bytes come", wanted.bytes.unwrap_or(0));
            return Err(CatalogError::BadAnswer { url: wanted.url.into(), why });
        }
        write_all(&mut self.file, chunk, &self.path, wanted.file, wanted.bytes.unwrap_or(len) - self.len)?;
        self.hash.update(chunk);
        self.len = len;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().at("write", &self.path)
    }

    /// Checks the whole; a file with a wrong checksum is deleted.
    fn finish(mut self, wanted: &Wanted<'_>) -> Result<Fetched> {
        let sha256 = hex(&std::mem::take(&mut self.hash).finalize());
        if let Some(sum) = wanted.sha256
            && sum != sha256
        {
            self.restart()?;
            return Err(CatalogError::Checksum {
                file: wanted.file.into(),
                found: sha256,
                wanted: sum.into(),
            });
        }
        self.sync()?;
        let _ = fs::remove_file(self.etag_path());
        Ok(Fetched { bytes: self.len, sha256 })
    }
}

/// `bytes 5-9/10` as the first byte's offset and the total, which may be unknown (`*`).
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    match total {
        "*" => Some((start, None)),
        total => total.parse().ok().map(|total| (start, Some(total))),
    }
}

/// Appends to a file of the store; a full disk is told with the figures.
pub(super) fn write_all(out: &mut File, chunk: &[u8], path: &Path, file: &str, needed: u64) -> Result<()> {
    match out.write_all(chunk) {
        Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            Err(no_space(path, file, needed))
        }
        other => other.at("write", path),
    }
}

/// Refuses to begin what the disk cannot hold. A file system that does not tell is believed to have room.
pub(super) fn check_space(path: &Path, file: &str, needed: u64) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    match fs4::available_space(folder) {
        Ok(free) if free < needed => Err(no_space(path, file, needed)),
        _ => Ok(()),
    }
}

fn no_space(path: &Path, file: &str, needed: u64) -> CatalogError {
    let folder = path.parent().unwrap_or(path);
    let free = fs4::available_space(folder).unwrap_or(0);
    CatalogError::NoSpace { file: file.into(), folder: folder.to_owned(), needed, free }
}

/// SHA-256 of a file in lower-case hexadecimal.
pub(super) fn sha256_of(path: &Path, progress: &dyn Progress) -> Result<String> {
    let mut hash = Sha256::new();
    hash_into(&mut hash, path, progress)?;
    Ok(hex(&hash.finalize()))
}

/// Adds a file's bytes to `hash`; hands back how many they are.
fn hash_into(hash: &mut Sha256, path: &Path, progress: &dyn Progress) -> Result<u64> {
    let mut file = File::open(path).at("read", path)?;
    let mut buffer = vec![0; 4 * CHUNK];
    let mut len = 0;
    loop {
        if progress.cancelled() {
            return Err(CatalogError::Cancelled);
        }
        let count = file.read(&mut buffer).at("read", path)?;
        if count == 0 {
            return Ok(len);
        }
        hash.update(&buffer[..count]);
        len += count as u64;
    }
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Sleeps, unless cancelled.
pub(super) fn wait(time: Duration, progress: &dyn Progress) -> Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if progress.cancelled() {
            return Err(CatalogError::Cancelled);
        }
        thread::sleep(left.min(TICK));
    }
    Ok(())
}

fn check_status(url: &str, status: u16) -> Result<()> {
    if status == 200 { Ok(()) } else { Err(CatalogError::Status { url: url.into(), status }) }
}

/// The server's name is enough: the whole address may hold a secret.
fn unreachable(url: &str, why: String) -> CatalogError {
    let place = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).unwrap_or(url);
    let place = place.rsplit('@').next().unwrap_or(place);
    CatalogError::Unreachable { place: place.into(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let cases = [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes */10", None),
            ("items 1-2/3", None),
            ("bytes 99999999999999999999-1/3", None),
        ];
        for (text, range) in cases {
            assert_eq!(parse_content_range(text), range, "{text}");
        }
    }

    #[test]
    fn an_unreachable_server_is_named_without_secrets() {
        let error = unreachable("https://user:secret@example.org/x?key=1", "no route".into());
        assert_eq!(error.to_string(), "example.org cannot be reached: no route");
    }
}
