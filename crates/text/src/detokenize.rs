//! Token ids to text as they come, character by character.
//!
//! A token may end in the middle of a character; its bytes wait until the character is whole. Bytes that can no longer
//! become a character turn into U+FFFD at once, one for each maximal invalid sequence (as `String::from_utf8_lossy`
//! has it). Special tokens are structure and give no text unless asked for.

use crate::tokenizer::{Tokenizer, TokenizerError};

/// Collects token ids and gives out text that is whole.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    keep_special: bool,
    strip_space: bool,
    pending: Vec<u8>,
    text: String,
}

impl Detokenizer {
    /// For the ids of a text from its beginning on: a space that encoding had put before it is taken away.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self {
            tokenizer: tokenizer.clone(),
            keep_special: false,
            strip_space: tokenizer.adds_space(),
            pending: Vec::new(),
            text: String::new(),
        }
    }

    /// For ids that continue a text: no space is taken away.
    #[must_use]
    pub fn continuing(mut self) -> Self {
        self.strip_space = false;
        self
    }

    /// Special tokens give their names as text.
    #[must_use]
    pub fn keep_special(mut self) -> Self {
        self.keep_special = true;
        self
    }

    /// Takes the next id and gives the text that is now certain; often one token's, sometimes none.
    pub fn push(&mut self, id: u32) -> Result<&str, TokenizerError> {
        self.text.clear();
        let mut bytes = self.tokenizer.token_bytes(id)?;
        if self.tokenizer.is_special(id) {
            if !self.keep_special {
                return Ok(&self.text);
            }
        } else if std::mem::take(&mut self.strip_space) {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.pending.extend_from_slice(bytes);
        self.drain();
        Ok(&self.text)
    }

    /// Whether bytes of an unfinished character wait.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Ends the text: an unfinished character becomes U+FFFD. The detokenizer is then ready to continue.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        self.text.push_str(&String::from_utf8_lossy(&self.pending));
        self.pending.clear();
        &self.text
    }

    /// Moves what is certain from `pending` to `text`.
    fn drain(&mut self) {
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, bad) = rest.split_at(error.valid_up_to());
                    self.text.push_str(&String::from_utf8_lossy(valid));
                    rest = bad;
                    let Some(len) = error.error_len() else { break };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[len..];
                }
            }
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
    }
}
