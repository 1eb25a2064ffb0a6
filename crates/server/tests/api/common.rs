//! A server in this process over a fake model, and a client that shows every byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kinglet_engine::{Engine, EngineConfig};
use kinglet_server::{ChatModel, PromptError, ServeError, Server, ServerConfig, Stopper};
use kinglet_testkit::{BYTE_VOCAB, END, FakeDecoder, TURN, byte_tokenizer, speaking_decoder};
use kinglet_text::sample::SamplerConfig;
use kinglet_text::tokenizer::Tokenizer;
use serde_json::Value;

/// What the fake model says.
pub(crate) const ANSWER: &str = "Hi, wren 🐦!";

/// A model without weights.
pub(crate) struct FakeModel {
    engine: Engine,
    tokenizer: Tokenizer,
}

impl ChatModel for FakeModel {
    fn name(&self) -> &str {
        "fake/tiny"
    }

    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn sampler(&self) -> SamplerConfig {
        SamplerConfig::greedy()
    }

    fn chat_prompt(&self, messages: &[Value]) -> Result<Vec<u32>, PromptError> {
        let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
        let turn = |message: &Value| {
            let field = |name: &str| message[name].as_str().unwrap_or_default();
            [vec![TURN], bytes(field("role")), bytes("\n"), bytes(field("content")), vec![END]].concat()
        };
        if messages[0]["role"] == "tool" {
            return Err(PromptError("the conversation begins with a tool".into()));
        }
        let turns: Vec<u32> = messages.iter().flat_map(turn).collect();
        Ok([turns, vec![TURN], bytes("assistant\n")].concat())
    }
}

/// A running server; dropping it stops it.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) model: Arc<FakeModel>,
    pub(crate) stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Running {
    /// With a model that always gives [`ANSWER`].
    pub(crate) fn start() -> Self {
        Self::with(speaking_decoder(ANSWER), EngineConfig::new(400), ServerConfig::default())
    }

    pub(crate) fn with(decoder: FakeDecoder, engine: EngineConfig, config: ServerConfig) -> Self {
        let tokenizer = byte_tokenizer();
        let engine =
            Engine::spawn(Box::new(decoder), tokenizer.clone(), BYTE_VOCAB, engine).expect("an engine");
        let model = Arc::new(FakeModel { engine, tokenizer });
        let server = Server::new(vec![Arc::clone(&model) as Arc<dyn ChatModel>], config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let stopper = server.stopper();
        let thread = Some(std::thread::spawn(move || server.run(listener)));
        Running { address, model, stopper, thread }
    }

    /// Stops it and says how it ended.
    pub(crate) fn stop(&mut self) -> Result<(), ServeError> {
        self.stopper.stop();
        self.thread.take().expect("it runs").join().expect("no panic")
    }

    /// Sends a request and leaves the answer on the line.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("it reads");
        stream
    }

    /// A whole exchange.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        Reply::read(self.send(method, path, headers, body))
    }

    /// A whole exchange of JSON by POST.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, "", &body.to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _how = thread.join();
        }
    }
}

/// An answer, byte for byte.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn read(mut stream: TcpStream) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("UTF-8 to the end");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Reply { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The body without what differs from run to run.
    pub(crate) fn redacted(&self) -> String {
        let text = redact(&self.body, "\"id\":\"", '"');
        redact(&text, "\"created\":", ',')
    }
}

fn redact(text: &str, before: &str, after: char) -> String {
    let mut parts = text.split(before);
    let first = parts.next().unwrap_or_default().to_owned();
    let keep = |part: &str| part.find(after).map_or(part.to_owned(), |at| part[at..].to_owned());
    parts.fold(first, |text, part| format!("{text}{before}*{}", keep(part)))
}

/// Waits for something that happens soon.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
