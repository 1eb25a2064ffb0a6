//! Conversations become prompts.

use kinglet_text::chat::{ChatError, ChatTemplate, Message, RenderOptions, TemplateTokens};
use kinglet_text::tokenizer::{EncodeOptions, Tokenizer};

use crate::Error;

/// Turns conversations into tokens with the model's own template.
pub(crate) struct Prompter {
    tokenizer: Tokenizer,
    /// A template that cannot be read fails conversations only: plain text needs none.
    template: Option<Result<ChatTemplate, ChatError>>,
}

impl Prompter {
    /// Reads the template, when there is one.
    pub(crate) fn new(tokenizer: &Tokenizer, source: Option<&str>) -> Self {
        let ids = tokenizer.special_ids();
        let text = |id: Option<u32>| id.and_then(|id| Some(tokenizer.token_text(id).ok()?.into_owned()));
        let special = tokenizer.special_texts();
        let tokens = TemplateTokens { bos: text(ids.bos), eos: text(ids.eos), others: Vec::new(), special };
        let template = source.map(|source| ChatTemplate::parse(source, &tokens));
        Self { tokenizer: tokenizer.clone(), template }
    }

    /// The tokens of a conversation; special tokens are recognised in the template's own text only.
    pub(crate) fn conversation(
        &self,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<Vec<u32>, Error> {
        let template = self.template.as_ref().ok_or(Error::NoTemplate)?.as_ref().map_err(ChatError::clone)?;
        let rendered = template.render(messages, options)?;
        let first = rendered.spans.first().filter(|span| span.trusted);
        let begins = self.begins_with_bos(first.map_or("", |span| &span.text));
        Ok(self.tokenizer.encode_spans(&rendered.spans, !begins)?)
    }

    /// The tokens of plain text, with what the tokenizer puts around texts.
    pub(crate) fn text(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: false })?)
    }

    /// Templates that write the first token themselves must not get it twice.
    fn begins_with_bos(&self, text: &str) -> bool {
        let bos = self.tokenizer.special_ids().bos.and_then(|id| self.tokenizer.token_text(id).ok());
        bos.is_some_and(|bos| !bos.is_empty() && text.starts_with(&*bos))
    }
}
