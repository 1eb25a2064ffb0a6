//! BERT's tokenizer: normalise, split into words and punctuation, match the longest pieces from the left.
//!
//! Pieces that begin a word are stored with a space before them, those that continue one without. A word with any part
//! that no piece spells, or of more than a hundred characters, is `unk` as a whole.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::chars::{ASCII_PUNCT, OTHER, P, WS, classes, is_han};
use super::vocab::Vocab;

/// Longer words are not looked up.
const LONGEST_WORD: usize = 100;

#[derive(Debug)]
pub(crate) struct WordPiece {
    pub(crate) lowercase: bool,
    pub(crate) unk: Option<u32>,
}

impl WordPiece {
    /// Appends the tokens of `text`.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let mut word = String::from(" ");
        let mut flush = |word: &mut String| {
            if word.len() > 1 {
                self.encode_word(vocab, word, out);
                word.truncate(1);
            }
        };
        for c in self.normalize(text) {
            let alone = classes(c) & (P | ASCII_PUNCT) != 0 || is_chinese(c);
            if alone || classes(c) & WS != 0 {
                flush(&mut word);
            }
            if classes(c) & WS == 0 {
                word.push(c);
            }
            if alone {
                flush(&mut word);
            }
        }
        flush(&mut word);
    }

    /// Drops control characters and, for a lower-case vocabulary, case and accents.
    fn normalize(&self, text: &str) -> Box<dyn Iterator<Item = char>> {
        let kept = text.chars().filter(|&c| !is_control(c)).collect::<Vec<_>>().into_iter();
        if !self.lowercase {
            return Box::new(kept);
        }
        let is_accent = |c: &char| c.general_category() == GeneralCategory::NonspacingMark;
        Box::new(kept.nfd().filter(move |c| !is_accent(c)).flat_map(char::to_lowercase))
    }

    /// `word` begins with a space.
    fn encode_word(&self, vocab: &Vocab, word: &str, out: &mut Vec<u32>) {
        let start = out.len();
        let mut at = if word.chars().count() > LONGEST_WORD + 1 { None } else { Some(0) };
        while let Some(from) = at.filter(|&from| from < word.len()) {
            let limit = word.len().min(from + vocab.longest());
            let longest = (from + 1..=limit).rev().find_map(|end| {
                let piece = word.get(from..end)?;
                Some((vocab.find(piece.as_bytes())?, end))
            });
            at = longest.map(|(id, end)| {
                out.push(id);
                end
            });
        }
        if at.is_none() {
            out.truncate(start);
            out.extend(self.unk);
        }
    }
}

/// BERT counts tab and line breaks as white space, every other control character as nothing.
fn is_control(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        '\0' | char::REPLACEMENT_CHARACTER => true,
        _ => classes(c) & OTHER != 0 || c.is_control(),
    }
}

/// Han as BERT's reference has it: U+2B820 to U+2B91F are not, by an old slip that vocabularies were made with.
fn is_chinese(c: char) -> bool {
    is_han(c) && !matches!(u32::from(c), 0x2b820..=0x2b91f | 0x2ceb0..=0x2ebef)
}
