//! Chat templates: a conversation becomes the prompt that a model was trained on.
//!
//! Contract: a template renders byte for byte as Transformers renders it, and the result says which parts the
//! template's author wrote and which arrived with the conversation. Only the former are trusted to hold special
//! tokens, so a message cannot forge one: each string carries its provenance through every operation of the template
//! language, which is why the language is implemented here rather than by an engine over ordinary strings.
//! A template is untrusted code: nesting, work, memory and output are bounded, and there is nothing in it to call out.

mod date;
mod jinja;
mod message;

pub use date::DateTime;
pub use message::Message;

use serde_json::{Map as JsonMap, Value as Json};

use crate::span::Span;
use jinja::{Fault, Key, Map, Text, Value};

/// Why a template could not be read or a conversation not be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The template is not in the template language, or uses a part of it that is not supported.
    #[error("chat template, line {line}: {reason}")]
    Syntax {
        /// Line of the template, from 1.
        line: u32,
        /// What is wrong.
        reason: String,
    },
    /// An operation failed while rendering.
    #[error("chat template, line {line}: {reason}; the conversation may lack what this template needs")]
    Render {
        /// Line of the template, from 1.
        line: u32,
        /// What failed.
        reason: String,
    },
    /// The template itself refused the conversation; the text is the template's.
    #[error("the chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template did more than a chat template may.
    #[error(
        "the chat template exceeds the limit on {0}: it is broken, hostile, or the conversation is too long"
    )]
    Limit(&'static str),
    /// A message is not in the form chat APIs use.
    #[error("a message cannot be read: {0}")]
    Message(String),
}

/// The texts of special tokens that templates print, under the names Transformers gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateTokens {
    /// `bos_token`; without one the name is undefined.
    pub bos: Option<String>,
    /// `eos_token`; without one the name is undefined.
    pub eos: Option<String>,
    /// Further ones by name, such as `("pad_token", "<pad>")`.
    pub others: Vec<(String, String)>,
}

/// What to render besides the messages.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderOptions {
    /// Ends the prompt with the beginning of an answer. Default true.
    pub add_generation_prompt: bool,
    /// The tools on offer, as a list of JSON schemas.
    pub tools: Option<Json>,
    /// Further names a template may read, such as `enable_thinking`.
    pub extra: JsonMap<String, Json>,
    /// The time that `strftime_now` shows; without one it is undefined.
    pub now: Option<DateTime>,
    /// Hands the arguments of tool calls, which chat APIs carry as JSON text, on as the objects most templates want;
    /// a template that fails with those gets the text. Default true; Transformers does not do this.
    pub parse_tool_arguments: bool,
    /// Units of work a rendering may take, about one per operation and per 32 bytes handled. Default 50 million.
    pub work: u64,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            add_generation_prompt: true,
            tools: None,
            extra: JsonMap::new(),
            now: None,
            parse_tool_arguments: true,
            work: 50_000_000,
        }
    }
}

/// A rendered prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// In order; neighbours differ in trust, none is empty.
    pub spans: Vec<Span>,
}

impl Rendered {
    /// The whole prompt as one string.
    pub fn text(&self) -> String {
        self.spans.iter().map(|span| span.text.as_str()).collect()
    }
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    program: jinja::Program,
    tokens: TemplateTokens,
}

/// Roles whose text templates build special tokens from, as in `<|user|>`.
const ROLES: [&str; 11] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
    "model",
    "ipython",
    "observation",
    "document",
    "context",
];

/// Largest template, in bytes.
const MAX_SOURCE: usize = 1 << 20;

/// ChatML, for models that were trained on it but ship no template.
pub const CHATML: &str = "\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

impl ChatTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// [`ChatError::Syntax`] with the line, [`ChatError::Limit`] if the source is too long.
    pub fn parse(source: &str, tokens: &TemplateTokens) -> Result<Self, ChatError> {
        if source.len() > MAX_SOURCE {
            return Err(ChatError::Limit("length of the template"));
        }
        let program = jinja::parse(source).map_err(|(line, reason)| ChatError::Syntax { line, reason })?;
        Ok(Self { source: source.to_string(), program, tokens: tokens.clone() })
    }

    /// The template as the model ships it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`ChatError::Refused`] with the template's own words (no system role, say), [`ChatError::Render`] with the
    /// line, [`ChatError::Limit`] if it does too much.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<Rendered, ChatError> {
        let parsed = match options.parse_tool_arguments {
            true => messages.iter().map(Message::with_parsed_arguments).collect(),
            false => messages.to_vec(),
        };
        let result = match self.run(&parsed, options) {
            Err(Fault::Error { .. }) if parsed != messages => self.run(messages, options),
            result => result,
        };
        let text = result.map_err(|fault| match fault {
            Fault::Error { line, reason } => ChatError::Render { line: line.unwrap_or(1), reason },
            Fault::Refused(reason) => ChatError::Refused(reason),
            Fault::Limit(what) => ChatError::Limit(what),
        })?;
        let spans = text.pieces().map(|(text, trusted)| Span { text: text.to_string(), trusted });
        Ok(Rendered { spans: spans.collect() })
    }

    fn run(&self, messages: &[Message], options: &RenderOptions) -> Result<Text, Fault> {
        let mut names: Vec<(_, Value)> = Vec::new();
        let mut name = |name: &str, value| names.push((name.into(), value));
        name("messages", Value::list(messages.iter().map(message).collect::<Result<_, _>>()?)?);
        name("tools", options.tools.as_ref().map_or(Ok(Value::None), jinja::from_json)?);
        name("documents", Value::None);
        name("add_generation_prompt", Value::Bool(options.add_generation_prompt));
        let TemplateTokens { bos, eos, others } = &self.tokens;
        let named = [("bos_token", bos), ("eos_token", eos)];
        let named = named.iter().filter_map(|(name, token)| Some((*name, token.as_ref()?)));
        for (token, text) in named.chain(others.iter().map(|(name, text)| (name.as_str(), text))) {
            name(token, Value::text(Text::trusted(text.as_str())));
        }
        for (key, value) in &options.extra {
            name(key, jinja::from_json(value)?);
        }
        jinja::render(&self.program, names, options.now, options.work)
    }
}

/// A message as templates see it. Reasoning is found under each of its usual names, as Transformers provides.
fn message(message: &Message) -> Result<Value, Fault> {
    let mut map = Map::new();
    let names = ["reasoning_content", "thinking", "reasoning"];
    let reasoning = names.iter().find_map(|name| message.extra.get(*name).filter(|value| !value.is_null()));
    if let Some(reasoning) = reasoning {
        map.insert(Key::name("thinking"), jinja::from_json(reasoning)?);
    }
    let role = match ROLES.contains(&message.role.as_str()) {
        true => Text::trusted(message.role.as_str()),
        false => Text::untrusted(message.role.as_str()),
    };
    map.insert(Key::name("role"), Value::text(role));
    if let Some(content) = &message.content {
        map.insert(Key::name("content"), jinja::from_json(content)?);
    }
    for (name, value) in &message.extra {
        map.insert(Key::Str(Text::untrusted(name.as_str()).into()), jinja::from_json(value)?);
    }
    if let Some(reasoning) = reasoning {
        map.insert(Key::name("reasoning_content"), jinja::from_json(reasoning)?);
    }
    Value::dict(map)
}
