//! SentencePiece's unigram model: of all ways to cut a text into tokens, the one with the best sum of scores.
//!
//! A character that no token spells costs ten more than the worst token, and a run of them is one `unk`.

use super::charsmap::Charsmap;
use super::error::TokenizerError;
use super::merge::NONE;
use super::spec::TokenType;
use super::vocab::{Vocab, slot, step};

const UNKNOWN_PENALTY: f64 = 10.0;

#[derive(Debug)]
pub(crate) struct Unigram {
    scores: Vec<f64>,
    unknown_score: f64,
    prefixes: Prefixes,
    charsmap: Charsmap,
    collapse_spaces: bool,
    unk: Option<u32>,
    pub(crate) add_space_prefix: bool,
}

/// The best way to reach a position: by which token, from where, at what score.
#[derive(Clone, Copy)]
struct Best {
    id: u32,
    from: usize,
    score: f64,
}

impl Unigram {
    pub(crate) fn new(
        scores: &[f32],
        charsmap: &[u8],
        (add_space_prefix, collapse_spaces): (bool, bool),
        unk: Option<u32>,
        vocab: &Vocab,
    ) -> Result<Self, TokenizerError> {
        if scores.len() != vocab.len() {
            let (found, expected) = (scores.len(), vocab.len());
            return Err(TokenizerError::LengthMismatch { what: "scores", found, expected });
        }
        let mut prefixes = Prefixes::new(vocab.len());
        let mut worst = f64::INFINITY;
        let mut own = Vec::with_capacity(scores.len());
        for (id, &score) in scores.iter().enumerate() {
            let kind = vocab.kind(id as u32);
            if kind == TokenType::Normal {
                worst = worst.min(f64::from(score));
            }
            own.push(if kind == TokenType::UserDefined { 0.0 } else { f64::from(score) });
            prefixes.add(vocab.bytes(id as u32).unwrap_or_default());
        }
        let unknown_score = if worst.is_finite() { worst - UNKNOWN_PENALTY } else { -UNKNOWN_PENALTY };
        let charsmap = Charsmap::parse(charsmap)?;
        Ok(Self { scores: own, unknown_score, prefixes, charsmap, collapse_spaces, unk, add_space_prefix })
    }

    /// Appends the tokens of `text`.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let text = self.normalize(text);
        let mut best = vec![Best { id: NONE, from: 0, score: f64::NEG_INFINITY }; text.len() + 1];
        best[0].score = 0.0;
        for (at, c) in text.char_indices() {
            self.extend_from(vocab, &text, at, c, &mut best);
        }
        let mut path = Vec::new();
        let mut at = text.len();
        while at > 0 {
            if !(best[at].id == NONE && path.last() == Some(&NONE)) {
                path.push(best[at].id);
            }
            at = best[at].from;
        }
        out.extend(path.iter().rev().filter_map(|&id| if id == NONE { self.unk } else { Some(id) }));
    }

    /// Tries every token that begins at byte `at`.
    fn extend_from(&self, vocab: &Vocab, text: &str, at: usize, c: char, best: &mut [Best]) {
        let base = best[at].score;
        let mut reach = |end: usize, id: u32, score: f64| {
            if score > best[end].score {
                best[end] = Best { id, from: at, score };
            }
        };
        let single = at + c.len_utf8();
        let (mut single_known, mut hash) = (false, 0);
        for (end, &byte) in (at + 1..).zip(&text.as_bytes()[at..]) {
            hash = step(hash, byte);
            if !self.prefixes.may_have(hash) {
                break;
            }
            if let Some(id) = vocab.find_hashed(&text.as_bytes()[at..end], hash) {
                single_known |= end == single;
                reach(end, id, base + self.scores[id as usize]);
            }
        }
        if !single_known {
            reach(single, NONE, base + self.unknown_score);
        }
    }

    /// SentencePiece's normal form: its table, then spaces.
    fn normalize(&self, text: &str) -> String {
        let mapped = self.charsmap.apply(text).replace('\u{2581}', " ");
        if !self.collapse_spaces {
            let prefix = if self.add_space_prefix && !mapped.is_empty() { " " } else { "" };
            return format!("{prefix}{mapped}");
        }
        let mut out = String::with_capacity(mapped.len() + 1);
        for word in mapped.split(' ').filter(|word| !word.is_empty()) {
            if self.add_space_prefix || !out.is_empty() {
                out.push(' ');
            }
            out.push_str(word);
        }
        out
    }
}

/// What tokens begin with, by hash: sure where it says no, nearly sure where it says yes.
#[derive(Debug)]
struct Prefixes {
    bits: Vec<u64>,
}

impl Prefixes {
    /// For this many tokens: 64 bits for each.
    fn new(tokens: usize) -> Self {
        Self { bits: vec![0; tokens.next_power_of_two()] }
    }

    fn add(&mut self, piece: &[u8]) {
        let mut hash = 0;
        for &byte in piece {
            hash = step(hash, byte);
            let at = self.word(hash);
            self.bits[at] |= 1 << (hash >> 58);
        }
    }

    fn may_have(&self, hash: u64) -> bool {
        self.bits[self.word(hash)] >> (hash >> 58) & 1 == 1
    }

    fn word(&self, hash: u64) -> usize {
        slot(hash) & (self.bits.len() - 1)
    }
}
