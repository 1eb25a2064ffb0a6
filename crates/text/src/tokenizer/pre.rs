//! Cutting text into words before merges: patterns as data and the matcher that runs them.
//!
//! A [`Stage`] is what one regular expression is in `tokenizer.json`: at each position its alternatives are tried in
//! order, a match becomes a piece, and what no alternative matches becomes a piece as well. Stages run one inside the
//! other: each cuts the pieces of the one before, without seeing beyond them.
//!
//! The matcher backtracks within one alternative only; since an alternative is at most four greedy runs, of which only
//! neighbours overlap, a text of n characters takes O(n) steps.

use super::chars::{ANY, WS, char_at, classes};

/// Inclusive ranges of characters, in ascending order.
type Ranges = &'static [(char, char)];

/// A set of characters: those in a class of `any` and in none of `none`, with those in `also`, less those in `but`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Class {
    any: u32,
    none: u32,
    also: Ranges,
    but: Ranges,
}

impl Class {
    /// `[…]`: every character of these classes.
    pub(crate) const fn of(any: u32) -> Self {
        Self { any, none: 0, also: &[], but: &[] }
    }

    /// `[^…]`: every character outside these classes.
    pub(crate) const fn not(none: u32) -> Self {
        Self { any: ANY, none, also: &[], but: &[] }
    }

    /// `[…&&[^…]]`.
    pub(crate) const fn of_but_not(any: u32, none: u32) -> Self {
        Self { any, none, also: &[], but: &[] }
    }

    /// The characters in these inclusive ranges.
    pub(crate) const fn ranges(also: Ranges) -> Self {
        Self { any: 0, none: 0, also, but: &[] }
    }

    /// The characters in these ranges, besides the ones already in.
    pub(crate) const fn and(self, also: Ranges) -> Self {
        Self { also, ..self }
    }

    /// Less the characters in these ranges.
    pub(crate) const fn but(self, but: Ranges) -> Self {
        Self { but, ..self }
    }

    #[inline]
    fn has(&self, c: char) -> bool {
        let bits = classes(c);
        ((bits & self.any != 0 && bits & self.none == 0) || within(self.also, c)) && !within(self.but, c)
    }
}

#[inline]
fn within(ranges: Ranges, c: char) -> bool {
    !ranges.is_empty() && ranges[..ranges.partition_point(|r| r.0 <= c)].last().is_some_and(|r| c <= r.1)
}

/// One step of an alternative.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item {
    /// Between `min` and `max` characters of a class, as many as can be.
    Run(Class, usize, usize),
    /// `(?!…)`: the next character, if any, is not of the class.
    NotBefore(Class),
    /// An English ending: `'s 't 're 've 'm 'll 'd`, in any case if the flag is set.
    Ending { any_case: bool },
    /// The same, or nothing.
    MaybeEnding { any_case: bool },
}

/// One branch of a pattern.
pub(crate) type Alternative = &'static [Item];

/// One pattern over a piece of text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// The first alternative that matches wins.
    First(&'static [Alternative]),
    /// `\s+$`: white space at the end of the piece.
    TrailingSpace,
}

/// Cuts `text` by each stage in turn and hands the words to `emit`, in order and without gaps.
pub(crate) fn split<'t>(stages: &[Stage], text: &'t str, emit: &mut dyn FnMut(&'t str)) {
    match stages.split_first() {
        None if text.is_empty() => {}
        None => emit(text),
        Some((Stage::First(alternatives), rest)) => split_first(alternatives, rest, text, emit),
        Some((Stage::TrailingSpace, rest)) => {
            let (body, tail) = text.split_at(text.trim_end_matches(|c| classes(c) & WS != 0).len());
            split(rest, body, emit);
            split(rest, tail, emit);
        }
    }
}

fn split_first<'t>(
    alternatives: &[Alternative],
    rest: &[Stage],
    text: &'t str,
    emit: &mut dyn FnMut(&'t str),
) {
    let (mut gap, mut at) = (0, 0);
    while let Some((_, len)) = char_at(text, at) {
        let end = alternatives.iter().find_map(|parts| match_parts(parts, text, at)).filter(|&end| end > at);
        let Some(end) = end else {
            at += len;
            continue;
        };
        if gap < at {
            split(rest, &text[gap..at], emit);
        }
        split(rest, &text[at..end], emit);
        (gap, at) = (end, end);
    }
    if gap < at {
        split(rest, &text[gap..at], emit);
    }
}

/// Where a match of `parts` that begins at byte `at` ends.
fn match_parts(parts: &[Item], text: &str, at: usize) -> Option<usize> {
    let Some((part, rest)) = parts.split_first() else { return Some(at) };
    match part {
        Item::Run(class, min, max) => match_run(class, *min, *max, rest, text, at),
        Item::NotBefore(class) => match char_at(text, at) {
            Some((c, _)) if class.has(c) => None,
            _ => match_parts(rest, text, at),
        },
        Item::Ending { any_case } => match_parts(rest, text, at + ending(text, at, *any_case)?),
        Item::MaybeEnding { any_case } => {
            match_parts(rest, text, at + ending(text, at, *any_case).unwrap_or(0))
        }
    }
}

fn match_run(class: &Class, min: usize, max: usize, rest: &[Item], text: &str, at: usize) -> Option<usize> {
    let (mut end, mut count) = (at, 0);
    while count < max {
        match char_at(text, end) {
            Some((c, len)) if class.has(c) => (end, count) = (end + len, count + 1),
            _ => break,
        }
    }
    if count < min {
        return None;
    }
    loop {
        if let Some(found) = match_parts(rest, text, end) {
            return Some(found);
        }
        if count == min {
            return None;
        }
        count -= 1;
        end -= text[..end].chars().next_back().map_or(0, char::len_utf8);
    }
}

/// The length in bytes of an English ending at `at`.
fn ending(text: &str, at: usize, any_case: bool) -> Option<usize> {
    let after = text.get(at..)?.strip_prefix('\'')?;
    let mut letters = after.chars().map(|c| match c {
        'ſ' if any_case => 's',
        _ if any_case => c.to_ascii_lowercase(),
        _ => c,
    });
    match (letters.next()?, letters.next()) {
        ('s' | 't' | 'm' | 'd', _) => Some(1 + after.chars().next()?.len_utf8()),
        ('r' | 'v', Some('e')) | ('l', Some('l')) => Some(3),
        _ => None,
    }
}
