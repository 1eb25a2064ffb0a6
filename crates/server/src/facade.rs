//! The library's models, served.

use std::ffi::OsStr;
use std::path::Path;

use kinglet::chat::Message;
use kinglet::{Model, catalog};
use kinglet_engine::Engine;
use kinglet_text::sample::SamplerConfig;
use kinglet_text::tokenizer::Tokenizer;
use serde_json::Value;

use crate::model::{ChatModel, PromptError};

impl ChatModel for Model {
    fn name(&self) -> &str {
        self.name()
    }

    /// Any spelling of its name, and of a path the file's name, with or without its ending.
    fn answers_to(&self, name: &str) -> bool {
        let path = Path::new(self.name());
        self.name() == name
            || catalog::canonical(name).is_ok_and(|canonical| canonical == self.name())
            || path.is_file() && [path.file_name(), path.file_stem()].contains(&Some(OsStr::new(name)))
    }

    fn engine(&self) -> &Engine {
        self.engine()
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.tokenizer()
    }

    fn sampler(&self) -> SamplerConfig {
        self.sampler().clone()
    }

    fn chat_prompt(&self, messages: &[Value]) -> Result<Vec<u32>, PromptError> {
        let read =
            |message: &Value| Message::from_json(message.clone()).map_err(|e| PromptError(e.to_string()));
        let messages = messages.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        self.prompt(&messages).map_err(|error| PromptError(error.to_string()))
    }
}
