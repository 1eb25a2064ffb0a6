//! What a conversation is made of.

use serde_json::{Map, Value};

use super::ChatError;

/// One message. Its fields reach the template under their names, as Transformers passes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, …
    pub role: String,
    /// A string, a list of parts (`{"type": "text", "text": …}`), or null; none leaves the field undefined.
    pub content: Option<Value>,
    /// Any further field: `tool_calls`, `tool_call_id`, `name`, `reasoning_content`, …
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, text: impl Into<String>) -> Self {
        Self { role: role.into(), content: Some(Value::String(text.into())), extra: Map::new() }
    }

    /// Reads a message in the form chat APIs use.
    ///
    /// # Errors
    /// [`ChatError::Message`] unless it is an object with a string `role` and a `content` that is a string, a list
    /// or null.
    pub fn from_json(json: Value) -> Result<Self, ChatError> {
        let Value::Object(mut extra) = json else { return Err(ChatError::Message("it is no object".into())) };
        let Some(Value::String(role)) = extra.shift_remove("role") else {
            return Err(ChatError::Message("its 'role' is missing or no string".into()));
        };
        let content = extra.shift_remove("content");
        if !matches!(content, None | Some(Value::String(_) | Value::Array(_) | Value::Null)) {
            return Err(ChatError::Message("its 'content' is neither a string nor a list nor null".into()));
        }
        Ok(Self { role, content, extra })
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: Value) -> Self {
        self.extra.insert(name.into(), value);
        self
    }

    /// All of its text, as JSON.
    pub(super) fn to_json(&self) -> String {
        let content = self.content.as_ref().map(Value::to_string).unwrap_or_default();
        self.extra
            .iter()
            .fold(self.role.clone() + &content, |text, (name, value)| text + name + &value.to_string())
    }

    /// The same message with the arguments of its tool calls as objects, where they are JSON text of one.
    pub(super) fn with_parsed_arguments(&self) -> Self {
        let mut message = self.clone();
        let calls = message.extra.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
            let parsed =
                arguments.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
            if let Some(parsed) = parsed {
                *arguments = Value::Object(parsed);
            }
        }
        message
    }
}
