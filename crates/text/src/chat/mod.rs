//! Chat templates: a conversation becomes the prompt that a model was trained on.
//!
//! Contract: a template renders byte for byte as Transformers renders it, and the result says where the template itself
//! wrote special tokens. Only there are they recognised, so that a message cannot forge one.
//! How: each template is rendered twice, once as it stands and once with the special tokens in its own text replaced by
//! characters that occur nowhere else. Where those come out, the template wrote them. The second rendering counts only
//! if it reads as the first; if marks would change what a template does, fewer of its texts are marked.
//! A template is untrusted code: nesting, work, memory and output are bounded, and there is nothing in it to call out.

mod date;
mod jinja;
mod message;

pub use date::DateTime;
pub use message::Message;

use serde_json::{Map as JsonMap, Value as Json};

use crate::span::Span;
use jinja::{Fault, Input, Marks, Reach};
use minijinja::Value;

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
    /// The texts that are special tokens where a template writes them, and plain text where a message does.
    pub special: Vec<String>,
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

/// Most special tokens that are tried to be left out.
const MAX_ATTEMPTS: usize = 64;

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
        let program = jinja::parse(source).map_err(|fault| match fault {
            Fault::Error { line, reason } => ChatError::Syntax { line, reason },
            fault => fault.into(),
        })?;
        let mut tokens = tokens.clone();
        let given = [tokens.bos.clone(), tokens.eos.clone()].into_iter().flatten().collect::<Vec<_>>();
        let has_role = |token: &str| ROLES.iter().any(|role| token.contains(role));
        tokens.special.retain(|token| source.contains(&**token) || given.contains(token) || has_role(token));
        Ok(Self { source: source.to_string(), program, tokens })
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
        Ok(Rendered { spans: result? })
    }

    fn run(&self, messages: &[Message], options: &RenderOptions) -> Result<Vec<Span>, Fault> {
        let names = self.names(messages, options);
        let input = Input { names: &names, now: options.now, work: options.work };
        let plain = jinja::render(&self.program, &input, None)?;
        let given = messages.iter().map(Message::to_json).chain(options.tools.iter().map(Json::to_string));
        let given = given.chain(options.extra.values().map(Json::to_string)).collect::<String>();
        let inputs = [plain.as_str(), &self.source, &given];
        let attempt = |special: &[String], (variables, arguments): (bool, bool)| {
            let marks = Marks::new(special, inputs.into_iter());
            let marked = jinja::render(&self.program, &input, Some((&marks, Reach { variables, arguments })));
            marked.ok().and_then(|marked| spans(&marks, &marked, &plain))
        };
        let special = &self.tokens.special;
        let reaches = [(true, true), (true, false), (false, true), (false, false)];
        if let Some(spans) = reaches.into_iter().find_map(|reach| attempt(special, reach)) {
            return Ok(spans);
        }
        // A token that the template itself looks for in what it wrote is left to be plain text.
        let without = |i: usize| [&special[..i], &special[i + 1..]].concat();
        if let Some(spans) =
            (0..special.len().min(MAX_ATTEMPTS)).find_map(|i| attempt(&without(i), (false, false)))
        {
            return Ok(spans);
        }
        Ok(vec![Span { text: plain, trusted: false }])
    }

    /// What the template can read.
    fn names(&self, messages: &[Message], options: &RenderOptions) -> Vec<(String, Value)> {
        let TemplateTokens { bos, eos, others, .. } = &self.tokens;
        let mut names: Vec<(String, Value)> = vec![
            ("messages".into(), Value::from(messages.iter().map(message).collect::<Vec<_>>())),
            ("tools".into(), options.tools.as_ref().map_or(Value::from(()), jinja::from_json)),
            ("documents".into(), Value::from(())),
            ("add_generation_prompt".into(), Value::from(options.add_generation_prompt)),
        ];
        let named = [("bos_token", bos), ("eos_token", eos)];
        let named = named.iter().filter_map(|(name, token)| Some((*name, token.as_ref()?)));
        for (token, text) in named.chain(others.iter().map(|(name, text)| (name.as_str(), text))) {
            names.push((token.to_owned(), Value::from(text.as_str())));
        }
        names.extend(options.extra.iter().map(|(key, value)| (key.clone(), jinja::from_json(value))));
        names
    }
}

impl From<Fault> for ChatError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Error { line, reason } => Self::Render { line, reason },
            Fault::Refused(reason) => Self::Refused(reason),
            Fault::Limit(what) => Self::Limit(what),
        }
    }
}

/// A marked rendering in parts, if it reads as `plain` does.
fn spans(marks: &Marks<'_>, marked: &str, plain: &str) -> Option<Vec<Span>> {
    let mut spans: Vec<Span> = Vec::new();
    let mut expected = plain.chars();
    for c in marked.chars() {
        let (c, trusted) = marks.read(c);
        if expected.next() != Some(c) {
            return None;
        }
        match spans.last_mut() {
            Some(span) if span.trusted == trusted => span.text.push(c),
            _ => spans.push(Span { text: c.into(), trusted }),
        }
    }
    if expected.next().is_some() {
        return None;
    }
    // A role between two parts of a token completes it, as in `<|{{ message.role }}|>`.
    let mut joined: Vec<Span> = Vec::new();
    for i in 0..spans.len() {
        let completes = i > 0 && i + 1 < spans.len() && ROLES.contains(&spans[i].text.as_str());
        let trusted = spans[i].trusted || completes;
        match joined.last_mut() {
            Some(last) if last.trusted == trusted => last.text.push_str(&spans[i].text),
            _ => joined.push(Span { text: std::mem::take(&mut spans[i].text), trusted }),
        }
    }
    Some(joined)
}

/// A message as templates see it. Reasoning is found under each of its usual names, as Transformers provides.
fn message(message: &Message) -> Value {
    let mut fields: Vec<(&str, Value)> = Vec::new();
    let names = ["reasoning_content", "thinking", "reasoning"];
    let reasoning = names.iter().find_map(|name| message.extra.get(*name).filter(|value| !value.is_null()));
    fields.extend(reasoning.map(|reasoning| ("thinking", jinja::from_json(reasoning))));
    fields.push(("role", Value::from(message.role.as_str())));
    fields.extend(message.content.as_ref().map(|content| ("content", jinja::from_json(content))));
    fields.extend(message.extra.iter().map(|(name, value)| (name.as_str(), jinja::from_json(value))));
    fields.extend(reasoning.map(|reasoning| ("reasoning_content", jinja::from_json(reasoning))));
    fields.into_iter().collect()
}
