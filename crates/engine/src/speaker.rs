//! From logits to text, for one sequence.

use kinglet_text::detokenize::Detokenizer;
use kinglet_text::sample::{SampleError, Sampler, logprobs};
use kinglet_text::stop::StopMatcher;
use kinglet_text::tokenizer::Tokenizer;

use crate::request::{GenerateRequest, Token};

/// Samples, watches for the end and turns tokens into text.
pub(crate) struct Speaker {
    sampler: Sampler,
    tokenizer: Tokenizer,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    logprobs: Option<usize>,
    ignore_end: bool,
}

impl Speaker {
    pub(crate) fn new(request: &GenerateRequest, tokenizer: &Tokenizer) -> Result<Self, SampleError> {
        let mut sampler = Sampler::new(request.sampler.clone())?;
        request.prompt.iter().for_each(|&token| sampler.accept(token));
        let detokenizer = Detokenizer::new(tokenizer);
        Ok(Speaker {
            sampler,
            tokenizer: tokenizer.clone(),
            detokenizer: if request.continues { detokenizer.continuing() } else { detokenizer },
            stops: StopMatcher::new(&request.stop),
            logprobs: request.logprobs,
            ignore_end: request.ignore_end,
        })
    }

    /// Chooses the next token. The second value is whether the answer ends with it.
    pub(crate) fn speak(&mut self, logits: &[f32]) -> Result<(Token, bool), SampleError> {
        let id = self.sampler.sample(logits, None)?;
        let logprobs = self.logprobs.map(|top| logprobs(logits, id, top)).transpose()?;
        let end = !self.ignore_end && self.tokenizer.is_end_of_generation(id);
        self.sampler.accept(id);
        if end {
            return Ok((Token { id, text: String::new(), logprobs, end }, true));
        }
        let piece = self.detokenizer.push(id).unwrap_or_default(); // rows of the head beyond the vocabulary say nothing
        let step = self.stops.push(piece);
        Ok((Token { id, text: step.text, logprobs, end }, step.stopped.is_some()))
    }

    /// The text that was held back, when the answer ends.
    pub(crate) fn finish(&mut self) -> String {
        let mut text = self.stops.push(self.detokenizer.finish()).text;
        text.push_str(&self.stops.finish());
        text
    }
}
