//! Chat templates as Jinja2 renders them, and special tokens kept out of messages.
//!
//! `golden/chat/*.json` is written by `tools/golden/chat_templates.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kinglet_text::chat::{CHATML, ChatError, ChatTemplate, DateTime, Message, RenderOptions, TemplateTokens};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Cases that are meant to differ from Jinja2: (template, what differs).
const DIFFERENT: [(&str, &str); 0] = [];

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat");
    std::fs::read(folder.join(name)).unwrap()
}

fn tokens() -> TemplateTokens {
    TemplateTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), others: Vec::new() }
}

fn options(names: &Map<String, Value>, add_generation_prompt: bool) -> RenderOptions {
    let mut extra = names.clone();
    let tools = extra.shift_remove("tools");
    let now = DateTime { year: 2024, month: 12, day: 25, hour: 9, minute: 8, second: 7 };
    RenderOptions { add_generation_prompt, tools, extra, now: Some(now), ..RenderOptions::default() }
}

struct Conversation {
    title: String,
    messages: Vec<Message>,
    names: Map<String, Value>,
}

fn conversations() -> Vec<Conversation> {
    let all: Vec<(String, Vec<Value>, Map<String, Value>)> =
        serde_json::from_slice(&golden("conversations.json")).unwrap();
    let message = |json| Message::from_json(json).unwrap();
    let read = all.into_iter().map(|(title, messages, names)| Conversation {
        title,
        messages: messages.into_iter().map(message).collect(),
        names,
    });
    read.collect()
}

/// A rendering in the form the golden file records: `=` and `!` with a hash, `?` for any other failure.
fn digest(result: &Result<String, ChatError>) -> String {
    let (kind, text) = match result {
        Ok(text) => ("=", text),
        Err(ChatError::Refused(reason)) => ("!", reason),
        Err(_) => return "?".into(),
    };
    let hash = Sha256::digest(text.as_bytes());
    kind.to_string() + &hash[..5].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
}

/// Renders every conversation with and without the prompt; the differences from `expected`.
fn differences(name: &str, source: &str, expected: &str) -> Vec<String> {
    let template = ChatTemplate::parse(source, &tokens());
    let mut expected = expected.split(' ');
    let mut found = Vec::new();
    for conversation in conversations() {
        for prompt in [true, false] {
            let options = options(&conversation.names, prompt);
            let rendered = template.as_ref().map_err(Clone::clone);
            let result = rendered.and_then(|t| t.render(&conversation.messages, &options)).map(|r| r.text());
            let (expected, digest) = (expected.next().unwrap(), digest(&result));
            if digest != expected {
                found.push(format!("{name}, {}, {prompt}: {digest} for {expected}: {result:?}", conversation.title));
            }
        }
    }
    found
}

fn check_all(templates: Vec<(String, PathBuf)>) {
    let expected: BTreeMap<String, String> = serde_json::from_slice(&golden("expected.json")).unwrap();
    let mut found = Vec::new();
    for (name, path) in &templates {
        let source = String::from_utf8(std::fs::read(path).unwrap()).unwrap();
        let expected = expected.get(name).unwrap_or_else(|| panic!("no golden results for {name}: run the generator"));
        let different = differences(name, &source, expected);
        match DIFFERENT.iter().find(|(listed, _)| name.ends_with(listed)) {
            Some((_, reason)) => assert!(!different.is_empty(), "{name} agrees now, though it is listed: {reason}"),
            None => found.extend(different),
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

fn templates_in(folder: &Path, prefix: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let jinja = entries.filter(|path| path.extension().is_some_and(|ext| ext == "jinja"));
    jinja.map(|path| (format!("{prefix}/{}", path.file_name().unwrap().to_string_lossy()), path)).collect()
}

#[test]
fn committed_templates_render_as_in_jinja() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat/templates");
    check_all(templates_in(&folder, "committed"));
}

#[test]
fn all_known_templates_render_as_in_jinja() {
    let models = std::env::var_os("KINGLET_MODELS").map(PathBuf::from);
    let folder = models.map(|models| models.join("llama-cpp-vectors/vendor/llama.cpp/models/templates"));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        println!("SKIPPED: set KINGLET_MODELS to a folder with llama-cpp-vectors to check all templates");
        return;
    };
    check_all(templates_in(&folder, "llama-cpp-vectors"));
}

#[test]
fn snippets_render_as_in_jinja() {
    let snippets: Vec<(String, String, String)> = serde_json::from_slice(&golden("snippets.json")).unwrap();
    let conversations = conversations();
    let conversation = conversations.iter().find(|c| c.title == "two tool calls").unwrap();
    let mut found = Vec::new();
    for (source, kind, expected) in snippets {
        let template = ChatTemplate::parse(&source, &tokens());
        let result = template.and_then(|t| t.render(&conversation.messages, &options(&conversation.names, true)));
        let result = result.map(|rendered| rendered.text());
        let agrees = match &result {
            Ok(text) => kind == "=" && *text == expected,
            Err(ChatError::Refused(reason)) => kind == "!" && *reason == expected,
            Err(ChatError::Limit(_)) => false,
            Err(_) => kind == "?",
        };
        if !agrees {
            found.push(format!("{source}\n  Jinja2: {kind}{expected:?}\n  here:   {result:?}"));
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}
