//! Tiny vocabularies, made the same way each time, and texts to try them on.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kinglet_text::tokenizer::{EncodeOptions, SpecialIds, TokenType, Tokenizer, VocabKind, VocabSpec};
use proptest::prelude::*;

/// What the vocabularies are made from.
const CORPUS: &str = "The quick brown fox jumps over the lazy dog. She's seen 1234 of them, hasn't she? \
    Naïve café, größer, 東京へ行きました。 if (x == 10) {\n    return y;\n}\n the there then this that thin think";

/// Characters that tokenizers treat in different ways.
const TRICKY: &str = "aeThx'sSreLlſ0129½٣ \t\n\r\u{a0}\u{85}\u{3000}.,!?/(<|>_$+~`éÉßǅʰ東京へ行가힣।\u{301}\u{200d}😀🦙\u{2581}\0\u{feff}";

/// Mostly text as people write it, with all kinds of characters between.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let tricky: Vec<char> = TRICKY.chars().collect();
    let words: Vec<&str> = CORPUS.split_inclusive(' ').collect();
    let piece = prop_oneof![
        3 => prop::sample::select(tricky).prop_map(String::from),
        2 => prop::sample::select(words).prop_map(String::from),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// A byte-level vocabulary: GPT-2's 256 letters, then one token a merge.
#[derive(Clone)]
pub(crate) struct Bpe {
    pub(crate) tokens: Vec<String>,
    pub(crate) merges: Vec<String>,
}

impl Bpe {
    /// The one that all tests use.
    pub(crate) fn tiny() -> &'static Self {
        static TINY: LazyLock<Bpe> = LazyLock::new(Bpe::train);
        &TINY
    }

    /// Merges the commonest pair of the corpus' words, some hundred times.
    fn train() -> Self {
        let letters: Vec<String> = (0..=255).map(|byte| letter(byte).to_string()).collect();
        let mut words: Vec<Vec<String>> = CORPUS
            .split_inclusive(' ')
            .map(|word| word.bytes().map(|byte| letters[byte as usize].clone()).collect())
            .collect();
        let mut vocab = Self { tokens: letters, merges: Vec::new() };
        for _ in 0..120 {
            let mut counts = BTreeMap::new();
            for pair in words.iter().flat_map(|word| word.windows(2)) {
                *counts.entry((pair[0].clone(), pair[1].clone())).or_insert(0) += 1;
            }
            let Some(((left, right), _)) = counts.into_iter().max_by_key(|(_, count)| *count) else { break };
            for word in &mut words {
                merge_all(word, &left, &right);
            }
            vocab.merges.push(format!("{left} {right}"));
            if !vocab.tokens.contains(&format!("{left}{right}")) {
                vocab.tokens.push(format!("{left}{right}"));
            }
        }
        vocab
    }

    /// The tokenizer, with `special` tokens behind the others.
    pub(crate) fn tokenizer(&self, pre: &str, special: &[(&str, TokenType)]) -> Tokenizer {
        let mut tokens: Vec<&str> = self.tokens.iter().map(String::as_str).collect();
        let mut types = vec![TokenType::Normal; tokens.len()];
        tokens.extend(special.iter().map(|(text, _)| *text));
        types.extend(special.iter().map(|(_, kind)| *kind));
        let merges = self.merges.iter().map(String::as_str).collect();
        let kind = VocabKind::Bpe { pre, merges };
        Tokenizer::new(spec(kind, tokens, types)).unwrap()
    }
}

/// Joins each `left right` in the word.
fn merge_all(word: &mut Vec<String>, left: &str, right: &str) {
    let mut i = 0;
    while i + 1 < word.len() {
        if word[i] == left && word[i + 1] == right {
            let right = word.remove(i + 1);
            word[i].push_str(&right);
        }
        i += 1;
    }
}

/// GPT-2's letter for a byte.
pub(crate) fn letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return byte as char;
    }
    let others = (0..byte).filter(|&before| !printable(before)).count() as u32;
    char::from_u32(0x100 + others).unwrap()
}

/// Pieces of the corpus up to five characters long, spaces as U+2581, the longer the better.
pub(crate) fn pieces() -> Vec<(String, f32)> {
    let corpus: Vec<char> = CORPUS.replace(' ', "\u{2581}").chars().collect();
    let mut pieces: Vec<(String, f32)> = Vec::new();
    for len in 1..=5 {
        for (at, window) in corpus.windows(len).enumerate().step_by(if len == 1 { 1 } else { 3 }) {
            let piece: String = window.iter().collect();
            if !pieces.iter().any(|(known, _)| *known == piece) {
                pieces.push((piece, -10.0 + len as f32 + (at % 17) as f32 / 8.0));
            }
        }
    }
    pieces
}

/// A vocabulary without tokens around a text.
pub(crate) fn spec<'a>(kind: VocabKind<'a>, tokens: Vec<&'a str>, types: Vec<TokenType>) -> VocabSpec<'a> {
    let special = SpecialIds::default();
    VocabSpec { kind, tokens, types, special, add_bos: false, add_eos: false, add_sep: false }
}

/// The tokens of outside text.
pub(crate) fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, EncodeOptions::default()).unwrap()
}

/// The same as texts.
pub(crate) fn pieces_of(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|&id| tokenizer.token_text(id).unwrap().into_owned()).collect()
}
