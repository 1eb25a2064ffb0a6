//! `/v1/chat/completions`.

use kinglet_engine::Token;
use kinglet_text::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::logprobs;
use crate::error::ApiError;
use crate::fields::{Fields, wrong_type, wrong_value};
use crate::model::ChatModel;
use crate::params::Params;
use crate::stream::Format;
use crate::wire::{ChatChoice, ChatDelta, Delta, Message};

/// The field that holds the prompt.
pub(crate) const PROMPT: &str = "messages";

const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// Settings and prompt of a request.
pub(crate) fn read(fields: &mut Fields, model: &dyn ChatModel) -> Result<(Params, Vec<u32>), ApiError> {
    check_unsupported(fields)?;
    let mut params = Params::read(fields, model.sampler())?;
    let newer = fields.integer("max_completion_tokens", 1..=usize::MAX)?;
    params.max_tokens = newer.or(fields.integer("max_tokens", 1..=usize::MAX)?);
    params.logprobs = read_logprobs(fields)?;
    let messages = read_messages(fields.required(PROMPT)?)?;
    let refused = |error: crate::PromptError| ApiError::field(PROMPT, "invalid_value", error.0);
    let prompt = model.chat_prompt(&messages).map_err(refused)?;
    Ok((params, prompt))
}

/// What asks for something that is not there is an error, unless it says "do nothing".
fn check_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    let none = || vec![json!("none"), json!("auto")];
    fields.unsupported("tools", &[json!([])])?;
    fields.unsupported("tool_choice", &none())?;
    fields.unsupported("functions", &[json!([])])?;
    fields.unsupported("function_call", &none())?;
    fields.unsupported("response_format", &[json!({"type": "text"})])?;
    fields.unsupported("modalities", &[json!(["text"])])?;
    fields.unsupported("audio", &[])
}

fn read_logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let asked = fields.bool("logprobs")?.unwrap_or(false);
    match fields.integer("top_logprobs", 0..=20)? {
        Some(_) if !asked => {
            let message = "'logprobs' must be true if 'top_logprobs' is given.";
            Err(ApiError::field("top_logprobs", "invalid_value", message))
        }
        top => Ok(asked.then_some(top.unwrap_or(0))),
    }
}

fn read_messages(messages: Value) -> Result<Vec<Value>, ApiError> {
    match messages {
        Value::Array(messages) if messages.is_empty() => {
            Err(wrong_value(PROMPT, "[]", "an array with at least one message"))
        }
        Value::Array(messages) => {
            messages.into_iter().enumerate().map(|(index, message)| read_message(index, message)).collect()
        }
        other => Err(wrong_type(PROMPT, "an array of objects", &other)),
    }
}

/// Checks a message and makes its content plain text.
fn read_message(index: usize, mut message: Value) -> Result<Value, ApiError> {
    let name = format!("messages[{index}]");
    let Some(fields) = message.as_object_mut() else { return Err(wrong_type(&name, "an object", &message)) };
    let role = match fields.get("role") {
        Some(Value::String(role)) => role.clone(),
        other => return Err(wrong_type(&format!("{name}.role"), "a string", other.unwrap_or(&Value::Null))),
    };
    if !ROLES.contains(&role.as_str()) {
        return Err(wrong_value(&format!("{name}.role"), &role, &format!("one of {}", ROLES.join(", "))));
    }
    if role == "developer" {
        fields.insert("role".to_owned(), json!("system"));
    }
    let content = match fields.remove("content") {
        Some(Value::Array(parts)) => Value::String(join_parts(&format!("{name}.content"), &parts)?),
        Some(text @ Value::String(_)) => text,
        None | Some(Value::Null) if role == "assistant" => Value::Null,
        other => {
            let expected = "a string or an array of text parts";
            return Err(wrong_type(&format!("{name}.content"), expected, &other.unwrap_or(Value::Null)));
        }
    };
    fields.insert("content".to_owned(), content);
    Ok(message)
}

fn join_parts(name: &str, parts: &[Value]) -> Result<String, ApiError> {
    let text = |(index, part): (usize, &Value)| match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text.to_owned()),
        (Some("text"), None) => Err(wrong_type(&format!("{name}[{index}].text"), "a string", &part["text"])),
        (Some(kind), _) => Err(wrong_value(&format!("{name}[{index}].type"), kind, "'text'")),
        (None, _) => Err(wrong_type(&format!("{name}[{index}].type"), "a string", &part["type"])),
    };
    Ok(parts.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// The wording of chat answers.
pub(crate) struct ChatFormat(pub(crate) Tokenizer);

impl Format for ChatFormat {
    type Choice = ChatChoice;
    type Piece = ChatDelta;
    const OBJECTS: [&'static str; 2] = ["chat.completion", "chat.completion.chunk"];

    fn begin(&mut self, index: usize) -> Option<ChatDelta> {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
        Some(ChatDelta { index, delta, logprobs: None, finish_reason: None })
    }

    fn piece(&mut self, index: usize, token: &Token) -> ChatDelta {
        let delta = Delta { role: None, content: Some(token.text.clone()) };
        let logprobs = logprobs::chat(&self.0, std::slice::from_ref(token));
        ChatDelta { index, delta, logprobs, finish_reason: None }
    }

    fn end(&mut self, index: usize, reason: &'static str) -> ChatDelta {
        ChatDelta { index, delta: Delta::default(), logprobs: None, finish_reason: Some(reason) }
    }

    fn whole(&mut self, index: usize, tokens: &[Token], finish_reason: &'static str) -> ChatChoice {
        let content = tokens.iter().map(|token| token.text.as_str()).collect();
        let message = Message { role: "assistant", content, refusal: None };
        ChatChoice { index, message, logprobs: logprobs::chat(&self.0, tokens), finish_reason }
    }
}
