//! Byte pair encoding with ranked merges, over GPT-2's bytes or over SentencePiece's characters.
//!
//! A word is cut by the pre-tokenizer, begins as one symbol a byte (or a character), and merges by rank. A merge that
//! names a token the vocabulary does not have is dropped at load. A byte without a token, which a complete vocabulary
//! does not have, leaves nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::error::TokenizerError;
use super::merge::{Merger, NONE, Symbol};
use super::pre;
use super::pre_table::Pre;
use super::spec::TokenType;
use super::vocab::{Spell, Vocab};

/// Words of an `encode` call that are remembered, so that a word is merged once.
const CACHED_WORDS: usize = 1 << 16;
/// Longer words are rare, and would fill the cache.
const CACHED_BYTES: usize = 64;

/// The merges of a vocabulary and the rule that cuts words.
#[derive(Debug)]
pub(crate) struct Bpe {
    pre: &'static Pre,
    /// `left << 32 | right` to `rank << 32 | merged`.
    merges: FxHashMap<u64, u64>,
}

impl Bpe {
    /// Resolves `left right` lines against the vocabulary.
    pub(crate) fn new(pre: &'static Pre, merges: &[&str], vocab: &Vocab) -> Result<Self, TokenizerError> {
        if u32::try_from(merges.len()).is_err() {
            return Err(TokenizerError::TooLarge { what: "the list of merges", size: merges.len() });
        }
        let mut table = HashMap::with_capacity_and_hasher(merges.len(), FxBuildHasher);
        let mut resolver = Resolver { vocab, raw_utf8: pre.raw_utf8, both: Vec::new(), last: NONE };
        for (rank, line) in (0..).zip(merges) {
            if let Some((left, right, merged)) = resolver.resolve(line)
                && let Entry::Vacant(entry) = table.entry(pair(left, right))
            {
                entry.insert(pair(rank, merged));
            }
        }
        Ok(Self { pre, merges: table })
    }

    /// Appends the tokens of `text`.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        let mut seen: FxHashMap<&str, Range<usize>> = HashMap::default();
        pre::split(self.pre.stages, text, &mut |word| {
            if let Some(known) = seen.get(word) {
                out.extend_from_within(known.clone());
                return;
            }
            let start = out.len();
            self.encode_word(vocab, word, &mut merger, out);
            if word.len() <= CACHED_BYTES && seen.len() < CACHED_WORDS {
                seen.insert(word, start..out.len());
            }
        });
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        let whole = self.pre.whole_words || (self.pre.raw_utf8 && word.bytes().all(|b| b == b'\n'));
        if let Some(id) = whole.then(|| vocab.find(word.as_bytes())).flatten() {
            return out.push(id);
        }
        merger.clear();
        if self.pre.raw_utf8 {
            push_chars(vocab, word, merger);
        } else {
            for (at, byte) in word.bytes().enumerate() {
                merger.push(vocab.byte_id(byte), at, at + 1);
            }
        }
        merger.run(|left, right| self.rank(left, right));
        out.extend(merger.symbols().map(|symbol| symbol.id).filter(|&id| id != NONE));
    }

    fn rank(&self, left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        let &found = self.merges.get(&pair(left.id, right.id))?;
        Some(((found >> 32) as u32, found as u32))
    }
}

/// One symbol a character where the vocabulary has it, one a byte where not.
fn push_chars(vocab: &Vocab, word: &str, merger: &mut Merger) {
    for (at, c) in word.char_indices() {
        let end = at + c.len_utf8();
        match vocab.find(&word.as_bytes()[at..end]) {
            Some(id) => merger.push(id, at, end),
            None => (at..end).for_each(|i| merger.push(vocab.byte_id(word.as_bytes()[i]), i, i + 1)),
        }
    }
}

/// Turns merge lines into ids.
struct Resolver<'v> {
    vocab: &'v Vocab,
    raw_utf8: bool,
    /// Scratch space: both parts' bytes.
    both: Vec<u8>,
    /// What the line before gave. Most vocabularies list tokens in the order of merges.
    last: u32,
}

impl Resolver<'_> {
    /// The ids of a line's parts and of what they give.
    fn resolve(&mut self, line: &str) -> Option<(u32, u32, u32)> {
        let cut = 1 + line.as_bytes().get(1..)?.iter().position(|&b| b == b' ')?;
        let (left, right) = (line.get(..cut)?, line.get(cut + 1..)?);
        self.both.clear();
        let spell: Spell = if self.raw_utf8 { spell_spaced } else { spell_bytes };
        spell(left, &mut self.both);
        let middle = self.both.len();
        spell(right, &mut self.both);
        let (left, right) = self.both.split_at(middle);
        let (left, right) = (self.vocab.find(left)?, self.vocab.find(right)?);
        self.last = self.after_last().or_else(|| self.vocab.find(&self.both))?;
        Some((left, right, self.last))
    }

    /// The next token in order, if it is what the merge gives and text can become it.
    fn after_last(&self) -> Option<u32> {
        let next = self.last.wrapping_add(1);
        let known = self.vocab.bytes(next) == Some(&self.both) && self.vocab.kind(next) == TokenType::Normal;
        known.then_some(next)
    }
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Appends the bytes that a token written in GPT-2's byte alphabet stands for; text outside that alphabet as it is.
pub(crate) fn spell_bytes(text: &str, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(text.as_bytes());
                return false;
            }
        }
    }
    true
}

/// Appends a token's text with U+2581 as the space it stands for.
pub(crate) fn spell_spaced(text: &str, out: &mut Vec<u8>) -> bool {
    for (i, part) in text.split('\u{2581}').enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(part.as_bytes());
    }
    true
}

/// GPT-2's alphabet: printable Latin-1 characters are their own byte, the other 68 bytes follow from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}
