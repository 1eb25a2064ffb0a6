//! What is wrong with a request is said as OpenAI's API says it.

use crate::common::{Running, eventually};
use kinglet_engine::EngineConfig;
use kinglet_graph::ExecError;
use kinglet_server::{ChatModel, Cors, ServerConfig};
use kinglet_testkit::{BYTE_VOCAB, FakeDecoder, speaking_decoder};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn chat() -> Value {
    json!({"model": "fake/tiny", "messages": [{"role": "user", "content": "Hello"}]})
}

#[test]
fn fields_that_are_wrong_are_named() {
    let server = Running::start();
    let check = |path: &str, edit: Value, param: &str, code: &str| {
        let mut body = if path == CHAT { chat() } else { json!({"model": "fake/tiny", "prompt": "Say\n"}) };
        for (name, value) in edit.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let reply = server.post(path, &body);
        let error = &reply.json()["error"];
        assert_eq!(reply.status, 400, "{edit}: {error}");
        assert_eq!((&error["param"], &error["code"]), (&json!(param), &json!(code)), "{error}");
        assert_eq!(error["type"], "invalid_request_error");
    };
    check(CHAT, json!({"model": null}), "model", "missing_required_parameter");
    check(CHAT, json!({"model": 3}), "model", "invalid_type");
    check(CHAT, json!({"messages": null}), "messages", "missing_required_parameter");
    check(CHAT, json!({"messages": "Hello"}), "messages", "invalid_type");
    check(CHAT, json!({"messages": []}), "messages", "invalid_value");
    check(CHAT, json!({"messages": ["Hello"]}), "messages[0]", "invalid_type");
    check(CHAT, json!({"messages": [{"content": "Hello"}]}), "messages[0].role", "invalid_type");
    check(CHAT, json!({"messages": [{"role": "god", "content": "a"}]}), "messages[0].role", "invalid_value");
    check(CHAT, json!({"messages": [{"role": "user"}]}), "messages[0].content", "invalid_type");
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]);
    check(CHAT, json!({"messages": image}), "messages[0].content[0].type", "invalid_value");
    check(CHAT, json!({"messages": [{"role": "tool", "content": "a"}]}), "messages", "invalid_value");
    check(CHAT, json!({"temperature": 2.1}), "temperature", "invalid_value");
    check(CHAT, json!({"temperature": "hot"}), "temperature", "invalid_type");
    check(CHAT, json!({"top_p": -0.1}), "top_p", "invalid_value");
    check(CHAT, json!({"n": 0}), "n", "invalid_value");
    check(CHAT, json!({"n": 1.5}), "n", "invalid_type");
    check(CHAT, json!({"max_tokens": 0}), "max_tokens", "invalid_value");
    check(CHAT, json!({"presence_penalty": 3}), "presence_penalty", "invalid_value");
    check(CHAT, json!({"logit_bias": {"a": 1}}), "logit_bias", "invalid_value");
    check(CHAT, json!({"logit_bias": {"1": 101}}), "logit_bias", "invalid_value");
    check(CHAT, json!({"stop": 1}), "stop", "invalid_type");
    check(CHAT, json!({"stream_options": {"include_usage": true}}), "stream_options", "invalid_value");
    check(CHAT, json!({"top_logprobs": 2}), "top_logprobs", "invalid_value");
    check(CHAT, json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs", "invalid_value");
    check(CHAT, json!({"tools": [{"type": "function"}]}), "tools", "unsupported_parameter");
    check(
        CHAT,
        json!({"response_format": {"type": "json_object"}}),
        "response_format",
        "unsupported_parameter",
    );
    check(CHAT, json!({"priority": "urgent"}), "priority", "invalid_value");
    let long = json!([{"role": "user", "content": "a".repeat(400)}]);
    check(CHAT, json!({"messages": long}), "messages", "context_length_exceeded");
    check(TEXT, json!({"prompt": "a".repeat(400)}), "prompt", "context_length_exceeded");
    check(TEXT, json!({"prompt": ""}), "prompt", "invalid_value");
    check(TEXT, json!({"prompt": [1, "a"]}), "prompt", "invalid_type");
    check(TEXT, json!({"prompt": [1, 258]}), "prompt", "invalid_value");
    check(TEXT, json!({"suffix": "b"}), "suffix", "unsupported_parameter");
    check(TEXT, json!({"best_of": 2}), "best_of", "unsupported_parameter");
    check(TEXT, json!({"echo": true, "logprobs": 1}), "echo", "unsupported_parameter");
}

#[test]
fn requests_that_are_wrong_as_a_whole() {
    let config = ServerConfig { max_body: 1000, ..ServerConfig::default() };
    let server = Running::with(speaking_decoder("a"), EngineConfig::new(64), config);
    let check = |(method, path, body): (&str, &str, &str), status: u16, code: Value| {
        let reply = server.ask(method, path, "", body);
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (status, &code), "{reply:?}");
    };
    check(("POST", CHAT, "{"), 400, Value::Null);
    check(("POST", CHAT, "[]"), 400, Value::Null);
    check(("POST", CHAT, "\u{1}"), 400, Value::Null);
    check(("POST", CHAT, &"[".repeat(900)), 400, Value::Null);
    check(("POST", CHAT, &" ".repeat(1001)), 413, json!("request_too_large"));
    check(("GET", CHAT, ""), 405, json!("method_not_allowed"));
    check(("GET", "/v1/other", ""), 404, json!("unknown_url"));
    let unknown = json!({"model": "gpt", "messages": []}).to_string();
    check(("POST", CHAT, &unknown), 404, json!("model_not_found"));
}

#[test]
fn a_key_is_asked_for() {
    let config = ServerConfig { api_key: Some("secret".into()), ..ServerConfig::default() };
    let server = Running::with(speaking_decoder("a"), EngineConfig::new(64), config);
    let check = |path: &str, headers: &str, status: u16| {
        let reply = server.ask("GET", path, headers, "");
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(status != 401 || reply.json()["error"]["code"] == "invalid_api_key");
    };
    check("/v1/models", "", 401);
    check("/v1/models", "Authorization: Bearer secre\r\n", 401);
    check("/v1/models", "Authorization: Bearer secrex\r\n", 401);
    check("/v1/models", "Authorization: Bearer secret\r\n", 200);
    check("/health", "", 200);
}

#[test]
fn web_pages_ask_first() {
    let check = |cors: Cors, allowed: Option<&str>| {
        let config = ServerConfig { cors, api_key: Some("secret".into()), ..ServerConfig::default() };
        let server = Running::with(speaking_decoder("a"), EngineConfig::new(64), config);
        let headers = "Origin: http://a.test\r\nAccess-Control-Request-Method: POST\r\n\
                       Access-Control-Request-Headers: authorization\r\n";
        let head = server.ask("OPTIONS", CHAT, headers, "").head;
        let prefix = "access-control-allow-origin: ";
        assert_eq!(head.lines().find_map(|line| line.strip_prefix(prefix)), allowed, "{head}");
    };
    check(Cors::Off, None);
    check(Cors::Any, Some("*"));
    check(Cors::Origins(vec!["http://a.test".into()]), Some("http://a.test"));
    check(Cors::Origins(vec!["http://b.test".into()]), None);
}

#[test]
fn a_full_queue_answers_at_once() {
    let (step, wait) = std::sync::mpsc::channel::<()>();
    let decoder = FakeDecoder::new(BYTE_VOCAB, 16, 64, move |_, _| {
        let _gone = wait.recv();
        Ok(())
    });
    let engine = EngineConfig { max_running: 1, max_waiting: 0, ..EngineConfig::new(64) };
    let server = Running::with(decoder, engine, ServerConfig::default());
    let body = chat().to_string();
    let running = server.send("POST", CHAT, "", &body);
    eventually("it runs", || server.model.engine().load().running == 1);
    let reply = server.ask("POST", CHAT, "", &body);
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (429, &json!("queue_full")));
    assert!(reply.head.contains("retry-after: 1"), "{}", reply.head);
    drop((step, running));
}

#[test]
fn what_fails_is_told_before_and_within_a_stream() {
    let failing = || FakeDecoder::new(BYTE_VOCAB, 16, 64, |_, _| Err(ExecError::Output(7)));
    let server = Running::with(failing(), EngineConfig::new(64), ServerConfig::default());
    let reply = server.post(CHAT, &chat());
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (500, &json!("server_error")));
    let mut body = chat();
    body["stream"] = json!(true);
    let reply = server.post(CHAT, &body);
    assert_eq!(reply.status, 200);
    let last = reply.body.trim_end().lines().last().expect("an event");
    assert!(
        last.starts_with(r#"data: {"error":{"message":"the model could not be run: no output 7""#),
        "{last}"
    );
    body["deadline_ms"] = json!(1);
    body["stream"] = json!(false);
    let slow = FakeDecoder::new(BYTE_VOCAB, 16, 64, |_, logits| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        logits[5] = 1.0;
        Ok(())
    });
    let server = Running::with(slow, EngineConfig::new(64), ServerConfig::default());
    let reply = server.post(CHAT, &body);
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (504, &json!("deadline_exceeded")));
}
