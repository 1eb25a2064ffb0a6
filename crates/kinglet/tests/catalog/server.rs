//! A web server for tests: real sockets, and the faults that real servers and networks have.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How one address answers.
#[derive(Clone, Default)]
pub(crate) struct Page {
    /// The file there.
    pub(crate) body: Vec<u8>,
    /// Its version, with the quotation marks; ranges under another version give the whole file.
    pub(crate) etag: Option<&'static str>,
    /// Answer this status with no body.
    pub(crate) status: Option<u16>,
    /// Where to go instead.
    pub(crate) location: Option<String>,
    /// Close the connection after so many bytes of the body, for as many requests as there are entries.
    pub(crate) cuts: Vec<usize>,
    /// Say this length, whatever the body's is.
    pub(crate) length: Option<u64>,
    /// Stay silent after so many bytes.
    pub(crate) stall_after: Option<usize>,
    /// Send in pieces of 16 kB with this pause between.
    pub(crate) pause: Duration,
    /// Answer a range with the whole file.
    pub(crate) no_ranges: bool,
}

/// A request as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// First byte asked for.
    pub(crate) range: Option<usize>,
    pub(crate) if_range: Option<String>,
    pub(crate) authorization: Option<String>,
}

#[derive(Clone, Default)]
struct State {
    pages: Arc<Mutex<HashMap<String, Page>>>,
    log: Arc<Mutex<Vec<Request>>>,
}

/// Serves until the test's process ends.
pub(crate) struct Server {
    pub(crate) address: String,
    state: State,
}

impl Server {
    pub(crate) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let state = State::default();
        let served = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = served.clone();
                thread::spawn(move || drop(answer(stream, &state)));
            }
        });
        Server { address, state }
    }

    /// Puts a page at `path`; hands back its whole address.
    pub(crate) fn page(&self, path: &str, page: Page) -> String {
        self.state.pages.lock().expect("no panic").insert(path.into(), page);
        format!("{}{path}", self.address)
    }

    /// The requests so far.
    pub(crate) fn log(&self) -> Vec<Request> {
        self.state.log.lock().expect("no panic").clone()
    }
}

fn answer(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let request = read_request(&stream)?;
    state.log.lock().expect("no panic").push(request.clone());
    let page = {
        let mut pages = state.pages.lock().expect("no panic");
        let Some(page) = pages.get_mut(&request.path) else { return head(&mut stream, 404, &[], 0) };
        let copy = page.clone();
        if !page.cuts.is_empty() {
            page.cuts.remove(0);
        }
        copy
    };
    if let Some(to) = &page.location {
        return head(&mut stream, 302, &[("Location", to.clone())], 0);
    }
    if let Some(status) = page.status {
        return head(&mut stream, status, &[], 0);
    }
    send_file(&mut stream, &request, &page)
}

fn send_file(stream: &mut TcpStream, request: &Request, page: &Page) -> std::io::Result<()> {
    let same = request.if_range.as_deref().is_none_or(|v| Some(v) == page.etag);
    let start = request.range.filter(|_| same && !page.no_ranges);
    if start.is_some_and(|s| s >= page.body.len()) {
        return head(stream, 416, &[("Content-Range", format!("bytes */{}", page.body.len()))], 0);
    }
    let body = &page.body[start.unwrap_or(0)..];
    let mut headers: Vec<(&str, String)> = page.etag.iter().map(|e| ("ETag", (*e).to_owned())).collect();
    if let Some(start) = start {
        let all = page.body.len();
        headers.push(("Content-Range", format!("bytes {start}-{}/{all}", all - 1)));
    }
    let status = if start.is_some() { 206 } else { 200 };
    head(stream, status, &headers, page.length.unwrap_or(body.len() as u64))?;
    let cut = page.cuts.first().copied().unwrap_or(usize::MAX).min(body.len());
    let stall = page.stall_after.unwrap_or(usize::MAX);
    for (index, piece) in body[..cut.min(stall)].chunks(16 << 10).enumerate() {
        if index > 0 {
            thread::sleep(page.pause);
        }
        stream.write_all(piece)?;
    }
    if stall < body.len() {
        thread::sleep(Duration::from_secs(20));
    }
    Ok(())
}

fn head(stream: &mut TcpStream, status: u16, headers: &[(&str, String)], length: u64) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all((text + "\r\n").as_bytes())
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut request = Request::default();
    for (index, line) in BufReader::new(stream).lines().enumerate() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if index == 0 {
            request.path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            continue;
        }
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            "if-range" => request.if_range = Some(value.into()),
            "authorization" => request.authorization = Some(value.into()),
            _ => {}
        }
    }
    Ok(request)
}
