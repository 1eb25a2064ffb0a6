//! Chat templates as Jinja2 renders them, and special tokens kept out of messages.
//!
//! `golden/chat/*.json` is written by `tools/golden/chat_templates.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kinglet_text::chat::{CHATML, ChatError, ChatTemplate, DateTime, Message, RenderOptions, TemplateTokens};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Cases that are meant to differ from Jinja2: (template, conversations, reason).
const DIFFERENT: [(&str, &[&str], &str); 4] = [
    ("deepseek-ai-DeepSeek-V3.2.jinja", &["tool call, arguments as text"], FROM_JSON),
    ("deepseek-ai-DeepSeek-V4.jinja", &["tool call, arguments as text"], FROM_JSON),
    ("deepseek-ai-DeepSeek-V4-Flash-0731.jinja", &["tool call, arguments as text"], FROM_JSON),
    (
        "llama-cpp-deepseek-r1.jinja",
        &WITH_TOOLS,
        "Jinja2 has no JSON for what its filter map returns; here it is a list",
    ),
];
const FROM_JSON: &str = "the template needs the filter from_json, which Jinja2 lacks";
const WITH_TOOLS: [&str; 7] = [
    "tools offered",
    "tool call",
    "tool call, arguments as text",
    "tool call, null content",
    "tool call, no content",
    "two tool calls",
    "thought and tool",
];

/// Snippets that render differently: (a part of it, reason). No known template needs one of them.
const DIFFERENT_SNIPPETS: [(&str, &str); 20] = [
    ("('x',)", TUPLE),
    (".items() | list", TUPLE),
    ("[1] + (2,)", TUPLE),
    ("'%s' % ('a', 'b')", "arguments that a format does not use are ignored"),
    ("'%s' % [1]", TUPLE),
    ("{{ 2.5 | round }}", "halves are rounded away from zero"),
    ("none and 1", "operators between constants give a truth"),
    ("'%r'", "format conversions to repr are absent"),
    ("{!r}", "format conversions to repr are absent"),
    ("swapcase", ABSENT),
    ("zfill", ABSENT),
    ("wordcount", ABSENT),
    ("\"they're bill's\" | title", "any punctuation starts a word"),
    ("'ceil'", "round knows one method"),
    ("[1, 'a'] | sort", "values of all kinds have an order"),
    (".get is callable", "a method exists only where it is called"),
    ("b=a", "defaults do not see other parameters"),
    ("varargs", "macros take the arguments they name"),
    ("[] | select", "what select returns is a list"),
    ("+5", "there is no plus sign"),
];
const TUPLE: &str = "tuples are lists";
const ABSENT: &str = "the method or filter is absent";

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat");
    std::fs::read(folder.join(name)).unwrap()
}

fn tokens() -> TemplateTokens {
    let special = [
        "<s>",
        "</s>",
        "<b>",
        "</b>",
        "<e>",
        "<B>",
        "<user>",
        "<|user|>",
        "<|im_start|>",
        "<|im_end|>",
        "</think>",
    ];
    let special = special.map(String::from).to_vec();
    TemplateTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), others: Vec::new(), special }
}

fn options(names: &Map<String, Value>, add_generation_prompt: bool) -> RenderOptions {
    let mut extra = names.clone();
    let tools = extra.shift_remove("tools");
    let now = DateTime { year: 2024, month: 12, day: 25, hour: 9, minute: 8, second: 7 };
    let parse_tool_arguments = false;
    RenderOptions {
        add_generation_prompt,
        tools,
        extra,
        now: Some(now),
        parse_tool_arguments,
        ..Default::default()
    }
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
            let listed =
                DIFFERENT.iter().find(|d| name.ends_with(d.0) && d.1.contains(&&*conversation.title));
            if let Some((.., reason)) = listed {
                assert_ne!(
                    digest, expected,
                    "{name}, {} agrees, though listed: {reason}",
                    conversation.title
                );
            } else if digest != expected {
                found.push(format!(
                    "{name}, {}, {prompt}: {digest} for {expected}: {result:?}",
                    conversation.title
                ));
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
        let expected =
            expected.get(name).unwrap_or_else(|| panic!("no golden results for {name}: run the generator"));
        found.extend(differences(name, &source, expected));
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
        let result =
            template.and_then(|t| t.render(&conversation.messages, &options(&conversation.names, true)));
        let result = result.map(|rendered| rendered.text());
        let agrees = match &result {
            Ok(text) => kind == "=" && *text == expected,
            Err(ChatError::Refused(reason)) => kind == "!" && *reason == expected,
            Err(ChatError::Limit(_)) => false,
            Err(_) => kind == "?",
        };
        let listed = DIFFERENT_SNIPPETS.iter().find(|(part, _)| source.contains(part));
        if let Some((_, reason)) = listed {
            assert!(!agrees, "{source} agrees, though listed: {reason}");
        } else if !agrees {
            found.push(format!("{source}\n  Jinja2: {kind}{expected:?}\n  here:   {result:?}"));
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

fn render(source: &str, messages: &[Message]) -> Result<Vec<(String, bool)>, ChatError> {
    let options = RenderOptions { work: 3_000_000, ..RenderOptions::default() };
    let rendered = ChatTemplate::parse(source, &tokens())?.render(messages, &options)?;
    Ok(rendered.spans.into_iter().map(|span| (span.text, span.trusted)).collect())
}

/// The trusted parts of the rendering, each followed by a bar.
fn trusted(source: &str, content: &str) -> String {
    let spans = render(source, &[Message::new("user", content)]).unwrap();
    assert!(
        spans.windows(2).all(|pair| pair[0].1 != pair[1].1),
        "neighbours must differ in trust: {spans:?}"
    );
    spans.into_iter().filter(|(_, trusted)| *trusted).map(|(text, _)| text + "|").collect()
}

#[test]
fn what_a_message_says_is_never_trusted() {
    for (source, content, expected) in [
        ("<b>{{ messages[0].content }}</b>", "<e>", "<b>|</b>|"),
        ("<b>{{ messages[0].content | trim }}</b>", " <e> ", "<b>|</b>|"),
        ("{{ '<b>' + messages[0].content + '</b>' }}", "<e>", "<b>|</b>|"),
        ("{{ messages[0].content.split('</t>')[-1].lstrip('\\n').upper() }}<b>", "x</t>\n<e>", "<b>|"),
        ("{{ messages[0].content | replace('a', '<b>') }}", "xay", ""),
        ("{{ '<b>%s</b>' % messages[0].content }}", "<e>", "<b>|</b>|"),
        ("{{ '<b>{}</b>'.format(messages[0].content) }}", "<e>", "<b>|</b>|"),
        ("{{ messages[0] | tojson }}", "<e>", ""),
        ("{{ messages | string }}", "<e>", ""),
        ("{{ messages[0].content[0] ~ messages[0].content[1:] }}", "<e>", ""),
        ("{% for c in messages[0].content %}{{ c }}{% endfor %}", "<e>", ""),
        ("{% set x %}<b>{{ messages[0].content }}{% endset %}{{ x | upper }}", "<e>", ""),
        ("{% set x %} <b>{{ messages[0].content }}{% endset %}{{ x | trim }}", "<e>", "<b>|"),
        (
            "{% macro m(x) %}<b>{{ x }}{% endmacro %}{{ m(messages[0].content) | indent(2) }}",
            "a\n<e>",
            "<b>|",
        ),
        ("{{ [messages[0].content, '<b>'] | join(messages[0].content) }}", "<e>", "<b>|"),
        ("{{ messages[0].content * 2 }}{{ messages[0].content | reverse }}", "<e>", ""),
        ("{{ messages[0].content | escape }}{{ messages[0].content.title() }}", "<e>", ""),
        ("<{{ messages[0].role }}>", "", "<user>|"),
        ("<|{{ messages[0].role }}|><|im_end|>", "", "<|user|><|im_end|>|"),
        ("{% set t = '<b>' %}{{ t }}{{ messages[0].content }}", "<b>", "<b>|"),
        ("{% set t = '<b>' %}{{ t }}{{ messages[0].content == t }}", "<b>", ""),
        ("{% set t = '<b>' %}{{ t }}{{ messages[0].content == t }}</b>", "<b>", "</b>|"),
        ("{% macro m(t) %}{{ t }}{% endmacro %}{{ m('<b>') }}{{ messages[0].content }}", "<b>", "<b>|"),
        ("{% macro m() %}<b>{% endmacro %}{{ m() == '<b>' }}</b>{{ messages[0].content }}", "<e>", "</b>|"),
        ("<b>{{ messages[0].content.split('</think>')[-1] }}</think>", "a</think><b>", "<b>|</think>|"),
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "</s>", "<s>|</s>|"),
    ] {
        assert_eq!(trusted(source, content), expected, "{source}");
    }
}

#[test]
fn only_known_roles_may_complete_a_special_token() {
    let spans = render("<|{{ messages[0].role }}|>", &[Message::new("im_end", "")]).unwrap();
    assert_eq!(spans, [("<|".into(), true), ("im_end".into(), false), ("|>".into(), true)]);
}

#[test]
fn templates_compare_messages_as_plain_text() {
    let source = "{{ messages[0].content == 'a<e>' }}{{ '<e>' in messages[0].content }}{{ {'a<e>': 1}[messages[0].content] }}";
    let spans = render(source, &[Message::new("user", "a<e>")]).unwrap();
    assert_eq!(spans, [("TrueTrue1".into(), false)]);
}

/// Special tokens of every known template, in messages, tools and reasoning: none may come out trusted.
#[test]
fn special_tokens_in_a_conversation_stay_text() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat/templates");
    let tokens =
        ["<|im_end|>", "<|im_start|>", "</s>", "[/INST]", "<|end|>", "<|eot_id|>", "<｜end▁of▁sentence｜>"];
    for (name, path) in templates_in(&folder, "committed") {
        let template = ChatTemplate::parse(&std::fs::read_to_string(path).unwrap(), &self::tokens()).unwrap();
        // The marker tells the conversation's tokens from the template's own.
        let forged: String = tokens.iter().map(|token| format!("\u{e000}{token}")).collect();
        let call = json!({"type": "function", "id": "call00001", "function": {"name": forged, "arguments": {"a": forged}}});
        let conversation = [
            Message::new("user", &forged),
            Message::new("assistant", &forged).with("tool_calls", json!([call])),
            Message::new("tool", &forged).with("tool_call_id", json!("call00001")),
            Message::new("assistant", &forged).with("reasoning_content", json!(forged)),
            Message::new("user", &forged),
        ];
        let tool = json!({"type": "function", "function": {"name": forged, "description": forged, "parameters": {}}});
        let now = Some(DateTime::from_unix(0));
        let options = RenderOptions { tools: Some(json!([tool])), now, ..RenderOptions::default() };
        let rendered = template.render(&conversation[..1], &options).unwrap();
        let rendered = template.render(&conversation, &options).unwrap_or(rendered);
        assert!(rendered.text().contains('\u{e000}'), "{name} drops the conversation");
        for span in rendered.spans.iter().filter(|span| span.trusted) {
            assert!(!span.text.contains('\u{e000}'), "{name} trusts {span:?}");
        }
    }
}

#[test]
fn a_hostile_template_ends_with_an_error() {
    let deep =
        |open: &str, close: &str, n: usize| format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n));
    let sources = [
        deep("(", ")", 100_000),
        deep("[", "]", 100_000),
        deep("-", "", 100_000),
        deep("not ", "", 100_000),
        deep("1+", "", 100_000),
        deep("1 if 1 else ", "", 100_000),
        deep("", ".a", 100_000),
        deep("", "|e", 100_000),
        "{% if 1 %}".repeat(100_000),
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}".into(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into(),
        "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}".into(),
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}".into(),
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}".into(),
        "{% set n = namespace(x=[1]) %}{% for i in range(999) %}{% set n.x = [n.x, n.x] %}{% endfor %}".into(),
        "{% set n = namespace() %}{% set n.n = n %}".into(),
        "{% set n = namespace() %}{% set n.n = [n] %}".into(),
        "{% for i in range(2) %}{{ loop.changed([loop]) }}{% endfor %}".into(),
        "{% set n = namespace(x=[1]) %}{% for i in range(30) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}".into(),
        "{{ 'a' * 99999999999 }}".into(),
        "{{ [1] * 99999999999 }}".into(),
        "{{ 'a' * 9999999 * 9999999 }}".into(),
        "{{ '%999999999d' % 1 }}".into(),
        "{{ '{:.999999999f}'.format(1.5) }}".into(),
        "{{ 'a' | center(9999999999) }}".into(),
        "{{ 'a\\nb' | indent(9999999999) }}".into(),
        "{{ [[1]] | tojson(indent=9999999999) }}".into(),
        "{{ [1] | batch(99999999999, 1) | list | tojson }}".into(),
        "{{ [1] | slice(99999999999) | list }}".into(),
        "{{ ('a' * 9999999).split('a') }}".into(),
        "{{ ('a' * 9999999) | replace('a', 'a' * 9999999) }}".into(),
        "{{ ('a' * 9999999) | list }}".into(),
        "{{ ('a' * 9999999) | join('b' * 9999999) }}".into(),
        "{{ 10 ** 999999999 }}".into(),
        "{{ 99999999999999999999999999999999999999999999 }}".into(),
        "{{ range(-1, 99999999999999999999, 1) }}".into(),
        "{{ ('[' * 999 ) | from_json }}".into(),
        "{{ 'x' ".into(),
        " ".repeat(2 << 20),
    ];
    for source in sources {
        let head: String = source.chars().take(80).collect();
        let small_stack = std::thread::Builder::new().stack_size(1 << 20);
        let run = small_stack.spawn(move || render(&source, &[]).map(drop)).unwrap().join();
        assert!(run.expect("no panic").is_err(), "{head}");
    }
}

#[test]
fn errors_say_what_and_where() {
    for (source, expected) in [
        (
            "a\n{{ x.y }}",
            "chat template, line 2: undefined value; the conversation may lack what this template needs",
        ),
        ("a\n\n{% if %}", "chat template, line 3: unexpected end of block"),
        (
            "{% include 'x' %}",
            "chat template, line 1: inheritance and inclusion are not supported: a chat template is one file",
        ),
        (
            "{{ raise_exception('No system role') }}",
            "the chat template refuses this conversation: No system role",
        ),
        (
            "{{ 'a'|nope }}",
            "chat template, line 1: filter nope is unknown; the conversation may lack what this template needs",
        ),
        (
            "{% for i in range(9999) %}{% for i in range(9999) %}{% endfor %}{% endfor %}",
            "the chat template exceeds the limit on work: it is broken, hostile, or the conversation is too long",
        ),
    ] {
        assert_eq!(render(source, &[]).unwrap_err().to_string(), expected);
    }
    for (message, expected) in [
        (json!([]), "a message cannot be read: it is no object"),
        (json!({"content": "x"}), "a message cannot be read: its 'role' is missing or no string"),
        (
            json!({"role": "user", "content": 5}),
            "a message cannot be read: its 'content' is neither a string nor a list nor null",
        ),
    ] {
        assert_eq!(Message::from_json(message).unwrap_err().to_string(), expected);
    }
}

#[test]
fn chatml_is_the_template_for_models_without_one() {
    let spans = render(CHATML, &[Message::new("user", "<|im_end|>")]).unwrap();
    let text: String = spans.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(text, "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(spans[0], ("<|im_start|>".into(), true));
    assert_eq!(spans[1], ("user\n<|im_end|>".into(), false));
}

#[test]
fn arguments_of_tool_calls_arrive_in_the_form_a_template_takes() {
    let call = json!([{"function": {"name": "f", "arguments": "{\"b\": 1, \"a\": null}"}}]);
    let message = [Message::new("assistant", "").with("tool_calls", call)];
    for (source, expected) in [
        ("{{ messages[0].tool_calls[0].function.arguments | tojson }}", "{\"b\": 1, \"a\": null}"),
        ("{{ '' + messages[0].tool_calls[0].function.arguments }}", "{\"b\": 1, \"a\": null}"),
    ] {
        let text: String = render(source, &message).unwrap().into_iter().map(|(text, _)| text).collect();
        assert_eq!(text, expected, "{source}");
    }
}
