//! SentencePiece's byte pair encoding: neighbours merge while their joint piece is a token, the best score first.
//!
//! What no token spells becomes `<0xNN>` bytes, or `unk` in a vocabulary without them. U+2581 in a text counts as a
//! space, since SentencePiece writes spaces so.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use rustc_hash::FxHashMap;

use super::error::TokenizerError;
use super::merge::{Merger, NONE, Symbol};
use super::vocab::Vocab;

/// Words of an `encode` call that are remembered.
const CACHED_WORDS: usize = 1 << 16;
/// Longer words are rare, and would fill the cache.
const CACHED_BYTES: usize = 64;

/// The scores as ranks, and what the merges cannot cross.
#[derive(Debug)]
pub(crate) struct Spm {
    /// The smaller, the earlier a token is merged.
    ranks: Vec<u32>,
    /// Whether a space follows this byte within any token. Where it never does, no merge crosses.
    joins_space: Vec<bool>,
    unk: Option<u32>,
    pub(crate) add_space_prefix: bool,
}

impl Spm {
    pub(crate) fn new(
        scores: &[f32],
        add_space_prefix: bool,
        unk: Option<u32>,
        vocab: &Vocab,
    ) -> Result<Self, TokenizerError> {
        if scores.len() != vocab.len() {
            let (found, expected) = (scores.len(), vocab.len());
            return Err(TokenizerError::LengthMismatch { what: "scores", found, expected });
        }
        let mut joins_space = vec![false; 256];
        for pair in
            (0..vocab.len() as u32).filter_map(|id| vocab.bytes(id)).flat_map(|piece| piece.windows(2))
        {
            joins_space[pair[0] as usize] |= pair[1] == b' ';
        }
        Ok(Self {
            ranks: scores.iter().map(|&score| rank(score)).collect(),
            joins_space,
            unk,
            add_space_prefix,
        })
    }

    /// Appends the tokens of `text`.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let text = self.spaced(text);
        let mut merger = Merger::default();
        let mut seen: FxHashMap<&str, Range<usize>> = HashMap::default();
        for word in self.words(&text) {
            if let Some(known) = seen.get(word) {
                out.extend_from_within(known.clone());
                continue;
            }
            let start = out.len();
            self.encode_word(vocab, word, &mut merger, out);
            if word.len() <= CACHED_BYTES && seen.len() < CACHED_WORDS {
                seen.insert(word, start..out.len());
            }
        }
    }

    /// The text with the space that goes before it.
    fn spaced<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match (self.add_space_prefix, text.contains('\u{2581}')) {
            (true, _) => Cow::Owned(format!(" {}", text.replace('\u{2581}', " "))),
            (false, true) => Cow::Owned(text.replace('\u{2581}', " ")),
            (false, false) => Cow::Borrowed(text),
        }
    }

    /// Cuts before each space that no token has a part of before it.
    fn words<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let cut =
                rest.as_bytes().windows(2).position(|w| w[1] == b' ' && !self.joins_space[w[0] as usize]);
            let (word, tail) = rest.split_at(cut.map_or(rest.len(), |at| at + 1));
            rest = tail;
            (!word.is_empty()).then_some(word)
        })
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        let bytes = word.as_bytes();
        merger.clear();
        for (at, c) in word.char_indices() {
            let end = at + c.len_utf8();
            merger.push(vocab.find(&bytes[at..end]).unwrap_or(NONE), at, end);
        }
        merger.run(|left: &Symbol, right: &Symbol| {
            let id = vocab.find(&bytes[left.start as usize..right.end as usize])?;
            Some((self.ranks[id as usize], id))
        });
        for symbol in merger.symbols() {
            match symbol.id {
                NONE => self.spell(vocab, &bytes[symbol.start as usize..symbol.end as usize], out),
                id => out.push(id),
            }
        }
    }

    fn spell(&self, vocab: &Vocab, bytes: &[u8], out: &mut Vec<u32>) {
        let start = out.len();
        out.extend(bytes.iter().map(|&byte| vocab.byte_id(byte)));
        if out[start..].contains(&NONE) {
            out.truncate(start);
            out.extend(self.unk);
        }
    }
}

/// Maps scores to integers in the opposite order.
fn rank(score: f32) -> u32 {
    // Adding zero makes the two zeros one.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn better_scores_rank_first() {
        let scores = [f32::INFINITY, 2.5, 1.0, 0.0, -0.5, -3.0, -1e9, f32::NEG_INFINITY];
        assert!(scores.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])));
        assert_eq!(rank(0.0), rank(-0.0));
    }
}
