//! What is asked of an engine and what comes back.

use std::time::Duration;

use kinglet_text::sample::{Logprobs, SamplerConfig};

use crate::core::{Finish, Priority};

/// A request for new tokens.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Tokens to continue.
    pub prompt: Vec<u32>,
    /// How tokens are chosen. Penalties count the prompt too.
    pub sampler: SamplerConfig,
    /// Tokens of answer at most; without it, what the context has room for.
    pub max_tokens: Option<usize>,
    /// The answer ends before the first of these texts.
    pub stop: Vec<String>,
    /// The answer goes on with the prompt's text and is none of its own: a space that the tokenizer puts before each
    /// text stays where it comes.
    pub continues: bool,
    /// Report log-probabilities, with so many alternatives to each token.
    pub logprobs: Option<usize>,
    /// Go on after tokens that end a text, to measure speed.
    pub ignore_end: bool,
    /// Its urgency.
    pub priority: Priority,
    /// Time that the request has, from now on.
    pub deadline: Option<Duration>,
}

impl GenerateRequest {
    /// A request with the default sampler and priority.
    pub fn new(prompt: Vec<u32>) -> Self {
        GenerateRequest {
            prompt,
            sampler: SamplerConfig::default(),
            max_tokens: None,
            stop: Vec::new(),
            continues: false,
            logprobs: None,
            ignore_end: false,
            priority: Priority::default(),
            deadline: None,
        }
    }
}

/// What a generation tells, in order: any number of tokens, then `Done` once.
#[derive(Clone, Debug, PartialEq)]
pub enum GenerateEvent {
    /// A token was sampled.
    Token(Token),
    /// The answer is complete.
    Done(Done),
}

/// A sampled token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Text that became certain with it: nothing while a character is unfinished or a stop text may have begun, more
    /// than its own when such a wait ends. The texts of all tokens together are the answer.
    pub text: String,
    /// Log-probabilities, if they were asked for.
    pub logprobs: Option<Logprobs>,
    /// It ends the text and has none of its own.
    pub end: bool,
}

/// How a generation ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Done {
    /// Why it ended.
    pub reason: FinishReason,
    /// What it used.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its text, or a stop text came.
    Stop,
    /// The asked number of tokens or the context was reached.
    Length,
    /// It was cancelled.
    Cancelled,
}

impl FinishReason {
    /// None for ends that are no answer.
    pub(crate) fn of(finish: Finish) -> Option<Self> {
        match finish {
            Finish::Stop => Some(FinishReason::Stop),
            Finish::Length => Some(FinishReason::Length),
            Finish::Cancelled => Some(FinishReason::Cancelled),
            Finish::Scored | Finish::Deadline | Finish::Failed => None,
        }
    }
}

/// Tokens that a request used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that an earlier request had computed.
    pub cached_tokens: usize,
    /// Tokens sampled, the one that ended the text included.
    pub completion_tokens: usize,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to the first run.
    pub queued: Duration,
    /// From the first run to the first token.
    pub prefill: Duration,
    /// From the first to the last token.
    pub decode: Duration,
}

impl Timings {
    /// From submission to the first token.
    pub fn time_to_first_token(&self) -> Duration {
        self.queued + self.prefill
    }

    /// Prompt tokens computed a second; 0 when nothing was.
    pub fn prefill_rate(&self, usage: &Usage) -> f64 {
        rate(usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens), self.prefill)
    }

    /// Tokens a second after the first one; 0 when there was no second one.
    pub fn decode_rate(&self, usage: &Usage) -> f64 {
        rate(usage.completion_tokens.saturating_sub(1), self.decode)
    }
}

fn rate(count: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}
