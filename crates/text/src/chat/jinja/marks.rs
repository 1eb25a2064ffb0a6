//! Marks on what a template itself writes.
//!
//! Contract: a mark replaces a character by a *double*, a private-use character that occurs in no input. A template
//! handles doubles as it handles any character, one for one, so each double in what it renders is a character that it
//! wrote itself: nothing in a conversation can be mistaken for one.

use std::collections::HashMap;

use super::super::ROLES;

/// Doubles are taken from the supplementary private-use planes.
const DOUBLES: std::ops::RangeInclusive<char> = '\u{f0000}'..='\u{10fffd}';

/// The doubles of the characters of special tokens.
#[derive(Debug)]
pub(crate) struct Marks<'t> {
    tokens: &'t [String],
    /// Beginnings and ends of tokens whose middle is a role, as in `<|user|>`.
    heads: Vec<&'t str>,
    tails: Vec<&'t str>,
    doubles: HashMap<char, char>,
    originals: HashMap<char, char>,
}

impl<'t> Marks<'t> {
    /// Doubles for the characters of `tokens` that occur in none of `inputs`.
    pub(crate) fn new<'a>(tokens: &'t [String], inputs: impl Iterator<Item = &'a str>) -> Self {
        let mut used: Vec<char> = inputs.flat_map(str::chars).filter(|c| DOUBLES.contains(c)).collect();
        used.sort_unstable();
        let mut free = DOUBLES.filter(|c| used.binary_search(c).is_err());
        let (mut doubles, mut originals) = (HashMap::new(), HashMap::new());
        for c in tokens.iter().flat_map(|token| token.chars()).filter(|c| !DOUBLES.contains(c)) {
            if !doubles.contains_key(&c)
                && let Some(double) = free.next()
            {
                doubles.insert(c, double);
                originals.insert(double, c);
            }
        }
        let around = |token: &'t String| {
            ROLES
                .iter()
                .flat_map(|role| token.match_indices(role).map(|(at, role)| (at, at + role.len())))
                .map(move |(start, end)| (&token[..start], &token[end..]))
        };
        let (heads, tails): (Vec<_>, Vec<_>) = tokens.iter().flat_map(around).unzip();
        let mut marks = Self { tokens, heads, tails, doubles, originals };
        for parts in [&mut marks.heads, &mut marks.tails] {
            parts.sort_unstable();
            parts.dedup();
            parts.retain(|part| !part.is_empty());
        }
        marks
    }

    /// `text` with the special tokens in it doubled.
    pub(crate) fn mark(&self, text: &str) -> String {
        let mut marked = vec![false; text.len()];
        for token in self.tokens.iter().filter(|token| !token.is_empty()) {
            text.match_indices(token.as_str())
                .for_each(|(at, token)| marked[at..at + token.len()].fill(true));
        }
        if let Some(head) = self.heads.iter().find(|head| text.ends_with(**head)) {
            marked[text.len() - head.len()..].fill(true);
        }
        if let Some(tail) = self.tails.iter().find(|tail| text.starts_with(**tail)) {
            marked[..tail.len()].fill(true);
        }
        let double = |c| self.doubles.get(&c).copied().unwrap_or(c);
        text.char_indices().map(|(at, c)| if marked[at] { double(c) } else { c }).collect()
    }

    /// What a character of a rendering stands for, and whether it was marked.
    pub(crate) fn read(&self, c: char) -> (char, bool) {
        self.originals.get(&c).map_or((c, false), |&original| (original, true))
    }
}
