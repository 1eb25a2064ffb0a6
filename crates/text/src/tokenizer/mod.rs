//! Text to token ids and back.
//!
//! A [`Tokenizer`] is built from plain data ([`VocabSpec`]) and never changes; clones share it. Special tokens are read
//! only out of text that is marked as trusted, so that what a user types can never end a turn or begin another.
//! Deliberately absent: training, and truncation (a text that is too long is the caller's to refuse).

mod bpe;
mod chars;
mod charsmap;
mod error;
mod gguf;
mod json;
mod merge;
mod pre;
mod pre_table;
mod spec;
mod special;
mod spm;
mod unigram;
mod vocab;
mod wordpiece;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

pub use error::TokenizerError;
pub use gguf::GgufKeys;
pub use json::SpecialNames;
pub use spec::{SpecialIds, TokenType, VocabKind, VocabSpec};

use crate::detokenize::Detokenizer;
use crate::span::Span;
use bpe::Bpe;
use json::Json;
use pre_table::Pre;
use special::{Fragment, Specials};
use spm::Spm;
use unigram::Unigram;
use vocab::Vocab;
use wordpiece::WordPiece;

/// How to read a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the tokens around the text that the model expects (`bos`, `eos`, `sep`).
    pub add_special: bool,
    /// Read special tokens out of the text. Only for text that a program wrote.
    pub parse_special: bool,
}

/// Turns text into token ids and ids into text; cheap to clone and to share between threads.
#[derive(Clone, Debug)]
pub struct Tokenizer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    vocab: Vocab,
    model: Model,
    specials: Specials,
    ids: SpecialIds,
    before: Vec<u32>,
    after: Vec<u32>,
}

#[derive(Debug)]
enum Model {
    Bpe(Bpe),
    Spm(Spm),
    WordPiece(WordPiece),
    Unigram(Unigram),
    Json(Json),
}

/// The special tokens that take no white space with them in a vocabulary whose others do.
const KEEPS_SPACE_BEHIND: &[&[u8]] = &[b"<unk>", b"<s>", b"<|endoftext|>"];

impl Tokenizer {
    /// Builds a tokenizer, refusing a vocabulary that does not hold together.
    pub fn new(spec: VocabSpec<'_>) -> Result<Self, TokenizerError> {
        let VocabSpec { kind, tokens, types, special: mut ids, add_bos, add_eos, add_sep } = spec;
        let spell = match &kind {
            VocabKind::Bpe { pre, .. } if !find_pre(pre)?.raw_utf8 => bpe::spell_bytes,
            _ => bpe::spell_spaced,
        };
        let mut vocab = Vocab::new(&tokens, &types, spell)?;
        let mut specials = Specials::new(&mut vocab, &mut ids)?;
        if matches!(kind, VocabKind::Spm { strip_after_special: true, .. }) {
            specials.strip_around(|_, text| (false, !KEEPS_SPACE_BEHIND.contains(&text)));
        }
        vocab.index();
        let model = Model::new(kind, &vocab, ids.unk)?;
        let need = |wanted: bool, name, id: Option<u32>| match id {
            Some(id) if wanted => Ok(vec![id]),
            None if wanted => Err(TokenizerError::SpecialMissing { name }),
            _ => Ok(Vec::new()),
        };
        let before = need(add_bos, "bos", ids.bos)?;
        let after = [need(add_sep, "sep", ids.sep)?, need(add_eos, "eos", ids.eos)?].concat();
        Ok(Self(Arc::new(Inner { vocab, model, specials, ids, before, after })))
    }

    /// Builds a tokenizer from a `tokenizer.json` and the names that its `tokenizer_config.json` gives.
    pub fn from_json(json: &[u8], names: &SpecialNames<'_>) -> Result<Self, TokenizerError> {
        let json::Parts { vocab, specials, ids, json, before, after } = json::parse(json, names)?;
        Ok(Self(Arc::new(Inner { vocab, model: Model::Json(json), specials, ids, before, after })))
    }

    /// The tokens of `text`.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        let trusted = if options.parse_special { 0..text.len() } else { 0..0 };
        self.encode_trusted(text, &[trusted], options.add_special)
    }

    /// The tokens of a prompt in parts: as one text, except that special tokens are read out of trusted parts only.
    pub fn encode_spans(&self, spans: &[Span], add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut text = String::with_capacity(spans.iter().map(|span| span.text.len()).sum());
        let mut trusted: Vec<Range<usize>> = Vec::new();
        for span in spans {
            let start = text.len();
            text.push_str(&span.text);
            match trusted.last_mut() {
                _ if !span.trusted => {}
                Some(last) if last.end == start => last.end = text.len(),
                _ => trusted.push(start..text.len()),
            }
        }
        self.encode_trusted(&text, &trusted, add_special)
    }

    /// The text of `ids`, special tokens left out; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let mut detokenizer = Detokenizer::new(self);
        let mut text = String::new();
        for &id in ids {
            text.push_str(detokenizer.push(id)?);
        }
        text.push_str(detokenizer.finish());
        Ok(text)
    }

    /// The bytes that token `id` adds to a text; part of a character, perhaps.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8], TokenizerError> {
        self.0.vocab.bytes(id).ok_or(TokenizerError::UnknownId { id, size: self.vocab_size() })
    }

    /// The same as text, for people to look at.
    pub fn token_text(&self, id: u32) -> Result<Cow<'_, str>, TokenizerError> {
        self.token_bytes(id).map(String::from_utf8_lossy)
    }

    /// The token that is exactly `piece`, be it special or a piece of text.
    pub fn id_of(&self, piece: &str) -> Option<u32> {
        self.0.specials.find(piece).or_else(|| self.0.vocab.find(piece.as_bytes()))
    }

    /// The number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.0.vocab.len()
    }

    /// The tokens with a role.
    pub fn special_ids(&self) -> &SpecialIds {
        &self.0.ids
    }

    /// Whether an answer is complete at `id`.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.0.specials.is_end(id)
    }

    /// All such ids, in ascending order.
    pub fn end_of_generation_ids(&self) -> Vec<u32> {
        self.0.specials.ends()
    }

    /// Whether `id` is structure and not text.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.0.vocab.kind(id), TokenType::Control | TokenType::Unknown)
    }

    /// The texts of the tokens that are read out of trusted text only, in order.
    pub fn special_texts(&self) -> Vec<String> {
        let tokens = self.0.specials.tokens().filter(|&(_, id)| self.is_special(id));
        let mut texts: Vec<String> =
            tokens.filter_map(|(text, _)| String::from_utf8(text.to_vec()).ok()).collect();
        texts.sort_unstable();
        texts
    }

    /// What kind of token `id` is; beyond the vocabulary, an unused one.
    pub fn token_type(&self, id: u32) -> TokenType {
        self.0.vocab.kind(id)
    }

    /// Whether encoding puts a space before a text that decoding has to take away again.
    pub(crate) fn adds_space(&self) -> bool {
        match &self.0.model {
            Model::Bpe(_) => false,
            Model::Spm(spm) => spm.add_space_prefix,
            Model::Unigram(unigram) => unigram.add_space_prefix,
            Model::WordPiece(_) => true,
            Model::Json(json) => json.adds_space,
        }
    }

    fn encode_trusted(
        &self,
        text: &str,
        trusted: &[Range<usize>],
        add_special: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        if u32::try_from(text.len()).is_err() {
            return Err(TokenizerError::TooLarge { what: "the text", size: text.len() });
        }
        let inner = &*self.0;
        let (before, after) = if add_special { (&*inner.before, &*inner.after) } else { (&[][..], &[][..]) };
        let mut ids = before.to_vec();
        let (mut at_start, mut result) = (true, Ok(()));
        inner.specials.partition(&inner.vocab, text, trusted, |fragment| {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(_) if result.is_err() => {}
                Fragment::Text(text) => result = inner.model.encode(&inner.vocab, text, at_start, &mut ids),
            }
            at_start = false;
        });
        result?;
        ids.extend_from_slice(after);
        Ok(ids)
    }
}

impl Model {
    fn new(kind: VocabKind<'_>, vocab: &Vocab, unk: Option<u32>) -> Result<Self, TokenizerError> {
        Ok(match kind {
            VocabKind::Bpe { pre, merges } => Self::Bpe(Bpe::new(find_pre(pre)?, &merges, vocab)?),
            VocabKind::Spm { scores, add_space_prefix, .. } => {
                Self::Spm(Spm::new(&scores, add_space_prefix, unk, vocab)?)
            }
            VocabKind::WordPiece { lowercase } => Self::WordPiece(WordPiece { lowercase, unk }),
            VocabKind::Unigram { scores, add_space_prefix, collapse_spaces, charsmap } => {
                let spaces = (add_space_prefix, collapse_spaces);
                Self::Unigram(Unigram::new(&scores, &charsmap, spaces, unk, vocab)?)
            }
        })
    }

    /// Appends the tokens of a text between two special tokens, or an end and one.
    fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        at_start: bool,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        match self {
            Self::Bpe(bpe) => bpe.encode(vocab, text, out),
            Self::Spm(spm) => spm.encode(vocab, text, out),
            Self::WordPiece(wordpiece) => wordpiece.encode(vocab, text, out),
            Self::Unigram(unigram) => unigram.encode(vocab, text, out),
            Self::Json(json) => json.encode(text, at_start, out)?,
        }
        Ok(())
    }
}

fn find_pre(name: &str) -> Result<&'static Pre, TokenizerError> {
    pre_table::find(name).ok_or_else(|| TokenizerError::UnknownPre {
        found: name.to_owned(),
        known: pre_table::names().collect::<Vec<_>>().join(", "),
    })
}
