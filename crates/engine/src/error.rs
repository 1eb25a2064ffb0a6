//! What can go wrong, in types: refusals before a request starts, failures after, and settings that cannot work.

use std::time::Duration;

use kinglet_graph::ExecError;
use kinglet_text::sample::SampleError;

/// Why a request was not accepted. Nothing of it has run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum Refusal {
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    #[error("nothing is asked for: ask for at least one token")]
    NothingAsked,
    #[error(
        "the prompt has {tokens} tokens, which with the answer do not fit the context of {context}: shorten it"
    )]
    PromptTooLong { tokens: usize, context: usize },
    #[error("token {token} is outside the vocabulary of {vocab}")]
    UnknownToken { token: u32, vocab: usize },
    #[error("the deadline has passed already")]
    DeadlineExceeded,
    #[error("{waiting} requests are waiting already: try again in {} s", retry_after.as_secs().max(1))]
    QueueFull { waiting: usize, retry_after: Duration },
    #[error(transparent)]
    Sampling(#[from] SampleError),
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// Why an accepted request ended without an answer, or with part of one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GenerateError {
    /// The deadline passed.
    #[error("the deadline passed before the answer was complete")]
    DeadlineExceeded,
    /// The executable could not run the batch.
    #[error("the model could not be run: {0}")]
    Exec(#[from] ExecError),
    /// The executable panicked; the engine goes on.
    #[error("the model's code panicked: {0}")]
    Panicked(String),
    /// The logits gave no token.
    #[error("no token could be sampled: {0}")]
    Sampling(#[from] SampleError),
    /// The engine was dropped.
    #[error("the engine has shut down")]
    ShutDown,
}

/// Why tokens could not be scored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ScoreError {
    /// The request was not accepted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was, but did not end well.
    #[error(transparent)]
    Failed(#[from] GenerateError),
}

/// Why an engine could not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum ConfigError {
    #[error("engine limits: {problem}")]
    Limits { problem: &'static str },
    #[error(
        "{pages} pages do not hold one context of {context} tokens, which takes {needed}: allow more memory or a shorter context"
    )]
    TooFewPages { pages: usize, needed: usize, context: usize },
    #[error("the graph keeps no keys and values: it is not a decoder")]
    NotADecoder,
    #[error("the engine's thread could not be started: {0}")]
    Thread(String),
    #[error(transparent)]
    Exec(#[from] ExecError),
}
