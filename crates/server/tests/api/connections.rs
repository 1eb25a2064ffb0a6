//! Clients that go away, and a server that is told to stop.

use std::io::Read;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::common::{ANSWER, Reply, Running, eventually};
use kinglet_engine::EngineConfig;
use kinglet_server::{ChatModel, ServeError, ServerConfig};
use kinglet_testkit::{BYTE_VOCAB, FakeDecoder, say};
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";

/// A server whose model says one more byte for each unit sent.
fn stepping(config: ServerConfig) -> (Running, Sender<()>) {
    let (step, wait) = channel();
    let decoder = FakeDecoder::new(BYTE_VOCAB, 16, 64, move |history, logits| {
        let _gone = wait.recv();
        say(ANSWER.as_bytes(), history, logits);
        Ok(())
    });
    (Running::with(decoder, EngineConfig::new(256), config), step)
}

fn chat(stream: bool) -> String {
    json!({"model": "fake/tiny", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]})
        .to_string()
}

#[test]
fn who_goes_away_cancels() {
    let check = |stream: bool| {
        let (server, step) = stepping(ServerConfig::default());
        let mut connection = server.send("POST", CHAT, "", &chat(stream));
        eventually("it runs", || server.model.engine().load().running == 1);
        if stream {
            step.send(()).expect("the decoder waits");
            let mut some = [0; 64];
            assert!(connection.read(&mut some).expect("a piece") > 0);
        }
        drop(connection);
        eventually("it is cancelled", || {
            let _gone = step.send(()); // a stream notices when it writes
            server.model.engine().load().running == 0
        });
        drop(step);
        assert_eq!(server.post(CHAT, &serde_json::from_str(&chat(false)).expect("JSON")).status, 200);
    };
    check(true);
    check(false);
}

#[test]
fn a_server_that_stops_finishes_what_runs() {
    let (mut server, step) = stepping(ServerConfig::default());
    let connection = server.send("POST", CHAT, "", &chat(true));
    eventually("it runs", || server.model.engine().load().running == 1);
    server.stopper.stop();
    eventually("nobody listens", || std::net::TcpStream::connect(server.address).is_err());
    drop(step);
    assert!(Reply::read(connection).body.ends_with("data: [DONE]\n\n"));
    assert!(server.stop().is_ok());
}

#[test]
fn a_server_that_stops_does_not_wait_for_ever() {
    let drain = Duration::from_millis(20);
    let (mut server, step) = stepping(ServerConfig { drain, ..ServerConfig::default() });
    let _connection = server.send("POST", CHAT, "", &chat(true));
    eventually("it runs", || server.model.engine().load().running == 1);
    assert!(matches!(server.stop(), Err(ServeError::Drain(limit)) if limit == drain));
    drop(step);
}
