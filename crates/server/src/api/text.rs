//! `/v1/completions`.

use kinglet_engine::Token;
use kinglet_text::tokenizer::{EncodeOptions, Tokenizer, TokenizerError};
use serde_json::Value;

use super::logprobs;
use crate::error::ApiError;
use crate::fields::{Fields, wrong_type, wrong_value};
use crate::model::ChatModel;
use crate::params::Params;
use crate::stream::Format;
use crate::wire::TextChoice;

/// The field that holds the prompt.
pub(crate) const PROMPT: &str = "prompt";

/// Tokens of answer where the request does not say, as OpenAI has it.
const MAX_TOKENS: usize = 16;

/// Settings, prompts and what to put before each answer.
pub(crate) struct TextRequest {
    pub(crate) params: Params,
    pub(crate) prompts: Vec<Vec<u32>>,
    pub(crate) echo: bool,
}

/// Reads a request.
pub(crate) fn read(fields: &mut Fields, model: &dyn ChatModel) -> Result<TextRequest, ApiError> {
    let mut params = Params::read(fields, model.sampler())?;
    params.max_tokens = Some(fields.integer("max_tokens", 1..=usize::MAX)?.unwrap_or(MAX_TOKENS));
    params.continues = true;
    params.logprobs = fields.integer("logprobs", 0..=20)?;
    let echo = fields.bool("echo")?.unwrap_or(false);
    if echo && params.logprobs.is_some() {
        return Err(ApiError::field(
            "echo",
            "unsupported_parameter",
            "'echo' together with 'logprobs' is not supported.",
        ));
    }
    if fields.integer("best_of", 1..=usize::MAX)?.is_some_and(|best| best != params.choices) {
        return Err(ApiError::unsupported("best_of"));
    }
    let suffix = fields.string("suffix")?.filter(|suffix| !suffix.is_empty());
    let prompts = read_prompts(fields.required(PROMPT)?, model.tokenizer(), suffix.as_deref())?;
    Ok(TextRequest { params, prompts, echo })
}

/// A text, several texts, tokens, or several lists of tokens.
fn read_prompts(
    prompt: Value,
    tokenizer: &Tokenizer,
    suffix: Option<&str>,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let several =
        |prompts: &[Value]| prompts.first().is_some_and(|first| first.is_string() || first.is_array());
    match prompt {
        Value::Array(prompts) if several(&prompts) => {
            prompts.iter().map(|prompt| read_prompt(prompt, tokenizer, suffix)).collect()
        }
        prompt => Ok(vec![read_prompt(&prompt, tokenizer, suffix)?]),
    }
}

fn read_prompt(prompt: &Value, tokenizer: &Tokenizer, suffix: Option<&str>) -> Result<Vec<u32>, ApiError> {
    let refused = |error: TokenizerError| ApiError::field(PROMPT, "invalid_value", error.to_string());
    match (prompt, suffix) {
        (Value::String(text), None) => {
            tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: false }).map_err(refused)
        }
        (Value::String(text), Some(suffix)) => fill_in(text, suffix, tokenizer)?.map_err(refused),
        (Value::Array(_), Some(_)) => {
            Err(wrong_value("suffix", "a text", "no suffix with a prompt of tokens"))
        }
        (Value::Array(tokens), None) => tokens.iter().map(read_token).collect(),
        (other, _) => Err(wrong_type(PROMPT, "a string, an array of strings or an array of tokens", other)),
    }
}

fn read_token(token: &Value) -> Result<u32, ApiError> {
    let id = token.as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| wrong_type(PROMPT, "tokens (integers that are not negative)", token))
}

/// The prompt that asks for what stands between two texts.
fn fill_in(
    text: &str,
    suffix: &str,
    tokenizer: &Tokenizer,
) -> Result<Result<Vec<u32>, TokenizerError>, ApiError> {
    let ids = tokenizer.special_ids();
    let (Some(first), Some(second), Some(last)) = (ids.fim_prefix, ids.fim_suffix, ids.fim_middle) else {
        let message = "This model was not trained to fill in: it takes no 'suffix'.";
        return Err(ApiError::field("suffix", "unsupported_parameter", message));
    };
    let encode = |text: &str| tokenizer.encode(text, EncodeOptions::default());
    let join =
        |text: Vec<u32>, suffix: Vec<u32>| [vec![first], text, vec![second], suffix, vec![last]].concat();
    Ok(encode(text).and_then(|text| Ok(join(text, encode(suffix)?))))
}

/// The wording of text answers.
pub(crate) struct TextFormat {
    tokenizer: Tokenizer,
    echoes: Vec<String>, // one a choice
    places: Vec<usize>,  // characters said so far, one a choice
}

impl TextFormat {
    /// `echoes`: what to put before each choice.
    pub(crate) fn new(tokenizer: Tokenizer, echoes: Vec<String>) -> Self {
        let places = echoes.iter().map(|echo| echo.chars().count()).collect();
        TextFormat { tokenizer, echoes, places }
    }
}

impl Format for TextFormat {
    type Choice = TextChoice;
    type Piece = TextChoice;
    const OBJECTS: [&'static str; 2] = ["text_completion"; 2];

    fn begin(&mut self, index: usize) -> Option<TextChoice> {
        let text = std::mem::take(&mut self.echoes[index]);
        (!text.is_empty()).then_some(TextChoice { text, index, logprobs: None, finish_reason: None })
    }

    fn piece(&mut self, index: usize, token: &Token) -> TextChoice {
        let logprobs = logprobs::words(&self.tokenizer, std::slice::from_ref(token), &mut self.places[index]);
        TextChoice { text: token.text.clone(), index, logprobs, finish_reason: None }
    }

    fn end(&mut self, index: usize, reason: &'static str) -> TextChoice {
        TextChoice { text: String::new(), index, logprobs: None, finish_reason: Some(reason) }
    }

    fn whole(&mut self, index: usize, tokens: &[Token], reason: &'static str) -> TextChoice {
        let mut text = std::mem::take(&mut self.echoes[index]);
        tokens.iter().for_each(|token| text.push_str(&token.text));
        let logprobs = logprobs::words(&self.tokenizer, tokens, &mut self.places[index]);
        TextChoice { text, index, logprobs, finish_reason: Some(reason) }
    }
}
