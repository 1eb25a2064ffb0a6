//! What the server needs of a model.

use kinglet_engine::Engine;
use kinglet_text::sample::SamplerConfig;
use kinglet_text::tokenizer::Tokenizer;
use serde_json::Value;

/// A language model that can be talked to.
pub trait ChatModel: Send + Sync {
    /// The name that it is listed under.
    fn name(&self) -> &str;

    /// Whether a request by this name means it.
    fn answers_to(&self, name: &str) -> bool {
        self.name() == name
    }

    /// What runs it.
    fn engine(&self) -> &Engine;

    /// Its tokenizer.
    fn tokenizer(&self) -> &Tokenizer;

    /// How tokens are chosen where a request does not say.
    fn sampler(&self) -> SamplerConfig;

    /// The prompt of a conversation, ready for the model to answer. Each message is an object with a string `role`,
    /// and a `content` that is a string, a list of text parts or null.
    fn chat_prompt(&self, messages: &[Value]) -> Result<Vec<u32>, PromptError>;
}

/// Why a text or a conversation cannot become a prompt.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PromptError(pub String);
