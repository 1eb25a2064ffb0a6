//! Answers and streams, byte for byte but for ids and times.

use crate::common::{ANSWER, Running};
use serde_json::{Value, json};

fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "fake/tiny", "messages": [{"role": "user", "content": "Hello"}]});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn text(extra: Value) -> Value {
    let mut body = json!({"model": "fake/tiny", "prompt": "Say\n"});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn check(path: &str, body: &Value, expected: &str) {
    let reply = Running::start().post(path, body);
    assert_eq!(reply.status, 200, "{reply:?}");
    let streams = body["stream"] == true;
    let kind = if streams { "content-type: text/event-stream" } else { "content-type: application/json" };
    assert!(reply.head.contains(kind), "{}", reply.head);
    assert_eq!(reply.redacted(), expected);
}

#[test]
fn a_whole_chat_answer() {
    check(
        "/v1/chat/completions",
        &chat(json!({})),
        concat!(
            r#"{"id":"*","object":"chat.completion","created":*,"model":"fake/tiny","choices":[{"index":0,"#,
            r#""message":{"role":"assistant","content":"Hi, wren 🐦!","refusal":null},"logprobs":null,"#,
            r#""finish_reason":"stop"}],"usage":{"prompt_tokens":23,"completion_tokens":15,"total_tokens":38,"#,
            r#""prompt_tokens_details":{"cached_tokens":0}}}"#,
        ),
    );
}

#[test]
fn a_streamed_chat_answer() {
    let piece = |rest: &str| {
        let head =
            r#"data: {"id":"*","object":"chat.completion.chunk","created":*,"model":"fake/tiny","choices":["#;
        format!("{head}{rest}\n\n")
    };
    let said = |text: &str, tail: &str| {
        piece(&format!(
            r#"{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":null}}]{tail}"#
        ))
    };
    let begin =
        r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]"#;
    let end =
        |reason: &str| format!(r#"{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"{reason}"}}]"#);
    let words = |words: &[&str], tail: &str| words.iter().map(|word| said(word, tail)).collect::<String>();

    let all = ["H", "i", ",", " ", "w", "r", "e", "n", " ", "🐦", "!"];
    let stop = piece(&(end("stop") + "}"));
    let expected = piece(&format!("{begin}}}")) + &words(&all, "}") + &stop + "data: [DONE]\n\n";
    check("/v1/chat/completions", &chat(json!({"stream": true})), &expected);

    let tail = r#","usage":null}"#;
    let usage = concat!(
        r#"],"usage":{"prompt_tokens":23,"completion_tokens":2,"total_tokens":25,"#,
        r#""prompt_tokens_details":{"cached_tokens":0}}}"#
    );
    let length = piece(&(end("length") + tail));
    let expected = piece(&format!("{begin}{tail}")) + &words(&all[..2], tail) + &length + &piece(usage);
    let body =
        chat(json!({"stream": true, "stream_options": {"include_usage": true}, "max_completion_tokens": 2}));
    check("/v1/chat/completions", &body, &(expected + "data: [DONE]\n\n"));
}

#[test]
fn text_answers_whole_and_streamed() {
    let body = text(json!({"max_tokens": 2, "n": 2, "echo": true}));
    check(
        "/v1/completions",
        &body,
        concat!(
            r#"{"id":"*","object":"text_completion","created":*,"model":"fake/tiny","choices":["#,
            r#"{"text":"Say\nHi","index":0,"logprobs":null,"finish_reason":"length"},"#,
            r#"{"text":"Say\nHi","index":1,"logprobs":null,"finish_reason":"length"}],"#,
            r#""usage":{"prompt_tokens":4,"completion_tokens":4,"total_tokens":8,"#,
            r#""prompt_tokens_details":{"cached_tokens":0}}}"#,
        ),
    );
    let piece = |text: &str, reason: &str| {
        let head =
            r#"data: {"id":"*","object":"text_completion","created":*,"model":"fake/tiny","choices":["#;
        format!(
            "{head}{{\"text\":\"{text}\",\"index\":0,\"logprobs\":null,\"finish_reason\":{reason}}}]}}\n\n"
        )
    };
    let body = text(json!({"max_tokens": 2, "stream": true}));
    let expected = piece("H", "null") + &piece("i", "null") + &piece("", "\"length\"") + "data: [DONE]\n\n";
    check("/v1/completions", &body, &expected);
}

#[test]
fn prompts_come_in_four_forms() {
    let server = Running::start();
    let check = |prompt: Value, texts: &[&str], prompt_tokens: usize| {
        let reply = server.post("/v1/completions", &text(json!({"prompt": prompt, "max_tokens": 3}))).json();
        let choices = reply["choices"].as_array().expect("choices");
        let said: Vec<_> = choices.iter().map(|choice| choice["text"].as_str().expect("a text")).collect();
        assert_eq!(said, texts, "{prompt}");
        assert_eq!(reply["usage"]["prompt_tokens"], prompt_tokens, "{prompt}");
    };
    check(json!("Say\n"), &["Hi,"], 4);
    check(json!(["Say\n", "Well\nHi"]), &["Hi,", ", w"], 11);
    check(json!([83, 10]), &["Hi,"], 2);
    check(json!([[83, 10], [10, 72]]), &["Hi,", "i, "], 4);
    check(json!("<|im_end|>\n"), &["Hi,"], 11); // text of users is never read as special tokens
}

#[test]
fn settings_reach_the_sampler() {
    let server = Running::start();
    let check = |extra: Value, expected: &str, reason: &str| {
        let reply = server.post("/v1/chat/completions", &chat(extra.clone())).json();
        let choice = &reply["choices"][0];
        assert_eq!(choice["message"]["content"], expected, "{extra}");
        assert_eq!(choice["finish_reason"], reason, "{extra}");
    };
    check(json!({"stop": ", w"}), "Hi", "stop");
    check(json!({"stop": ["x", "🐦"]}), "Hi, wren ", "stop");
    check(json!({"max_tokens": 3}), "Hi,", "length");
    check(json!({"max_tokens": 3, "max_completion_tokens": 4}), "Hi, ", "length");
    check(json!({"logit_bias": {"105": -100}, "max_tokens": 2}), "Hj", "length"); // the second best for `i`
    check(json!({"temperature": 2, "top_k": 1}), ANSWER, "stop");
    check(json!({"temperature": 1.5, "min_p": 1, "seed": -3, "user": "x", "unknown": {}}), ANSWER, "stop");
    check(json!({"temperature": 0, "tools": [], "tool_choice": "auto", "stop": null}), ANSWER, "stop");
    check(json!({"priority": "high", "deadline_ms": 60000}), ANSWER, "stop");
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    check(json!({"messages": [{"role": "developer", "content": parts}]}), ANSWER, "stop");
}

#[test]
fn a_seed_decides() {
    let server = Running::start();
    let ask = |seed: u64| {
        let settings = json!({"temperature": 2, "top_p": 1, "top_k": 0, "min_p": 0, "seed": seed, "max_tokens": 30, "n": 2});
        let reply = server.post("/v1/chat/completions", &chat(settings)).json();
        let said = |choice: usize| reply["choices"][choice]["message"]["content"].as_str().map(str::to_owned);
        [said(0), said(1)]
    };
    let first = ask(7);
    assert_eq!(first, ask(7));
    assert_ne!(first, ask(8));
    assert_ne!(first[0], first[1], "choices differ");
}

#[test]
fn logprobs_in_both_wordings() {
    let server = Running::start();
    let total = (4f64.exp() + 2f64.exp() + 256.0).ln();
    let close = |value: &Value, logit: f64| {
        let value = value.as_f64().expect("a number");
        assert!((value - (logit - total)).abs() < 1e-5, "{value}");
    };
    let reply =
        server.post("/v1/chat/completions", &chat(json!({"logprobs": true, "top_logprobs": 2}))).json();
    let content = reply["choices"][0]["logprobs"]["content"].as_array().expect("content").clone();
    assert_eq!(content.len(), ANSWER.len(), "the token that ends the text is not shown");
    assert_eq!((&content[0]["token"], &content[0]["bytes"]), (&json!("H"), &json!([72])));
    assert_eq!(content[9]["bytes"], json!([0xf0]));
    close(&content[0]["logprob"], 4.0);
    assert_eq!(content[0]["top_logprobs"][1]["token"], "I");
    close(&content[0]["top_logprobs"][1]["logprob"], 2.0);

    let reply = server.post("/v1/completions", &text(json!({"logprobs": 1, "max_tokens": 2}))).json();
    let logprobs = &reply["choices"][0]["logprobs"];
    assert_eq!((&logprobs["tokens"], &logprobs["text_offset"]), (&json!(["H", "i"]), &json!([0, 1])));
    close(&logprobs["token_logprobs"][1], 4.0);
    close(&logprobs["top_logprobs"][1]["i"], 4.0);
}

#[test]
fn the_models_and_the_health() {
    let server = Running::start();
    let get = |path: &str| server.ask("GET", path, "", "");
    let entry = r#"{"id":"*","object":"model","created":*,"owned_by":"kinglet"}"#;
    assert_eq!(get("/v1/models").redacted(), format!(r#"{{"object":"list","data":[{entry}]}}"#));
    assert_eq!(get("/v1/models/fake/tiny").redacted(), entry);
    assert_eq!(get("/v1/models/other").status, 404);
    assert_eq!(get("/health").body, r#"{"status":"ok"}"#);
}
