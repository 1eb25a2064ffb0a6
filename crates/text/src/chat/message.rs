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
}
