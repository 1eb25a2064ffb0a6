//! The library's models, served.

use kinglet::Model;
use kinglet::chat::Message;
use kinglet_engine::Engine;
use kinglet_text::sample::SamplerConfig;
use kinglet_text::tokenizer::Tokenizer;
use serde_json::Value;

use crate::model::{ChatModel, PromptError};

impl ChatModel for Model {
    fn name(&self) -> &str {
        self.name()
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
