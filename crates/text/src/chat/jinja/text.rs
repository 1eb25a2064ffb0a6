//! Strings that remember where each part came from.
//!
//! Contract: every operation keeps, for each byte, whether the template's author wrote it (trusted) or it arrived
//! with the conversation (untrusted). Comparisons look at the characters alone, so that templates see ordinary
//! strings. Characters are Unicode code points, as in Python.

use std::ops::Range;

/// Bytes of text that weigh as much as one operation.
const BYTES_PER_UNIT: u64 = 32;

/// A string with provenance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    chars: String,
    /// Neighbours differ in trust; the last one ends at the end of the string, none is empty.
    runs: Vec<Run>,
    /// Marked by `safe` or `escape`: what is added to it with `+` gets escaped for HTML, as in Jinja2.
    is_markup: bool,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    end: usize,
    trusted: bool,
}

impl Text {
    pub(crate) fn trusted(chars: impl Into<String>) -> Self {
        Self::new(chars.into(), true)
    }

    pub(crate) fn untrusted(chars: impl Into<String>) -> Self {
        Self::new(chars.into(), false)
    }

    fn new(chars: String, trusted: bool) -> Self {
        let runs = if chars.is_empty() { Vec::new() } else { vec![Run { end: chars.len(), trusted }] };
        Self { chars, runs, is_markup: false }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.chars
    }

    /// Whether no part of it arrived with the conversation.
    pub(crate) fn is_trusted(&self) -> bool {
        self.runs.iter().all(|run| run.trusted)
    }

    /// The maximal pieces of equal trust, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (&str, bool)> {
        self.pieces_in(0..self.chars.len())
    }

    fn pieces_in(&self, range: Range<usize>) -> impl Iterator<Item = (&str, bool)> {
        let first = self.runs.partition_point(|run| run.end <= range.start);
        let mut start = range.start;
        self.runs[first..].iter().map_while(move |run| {
            let piece = start..run.end.min(range.end);
            start = run.end;
            (piece.start < piece.end).then(|| (&self.chars[piece], run.trusted))
        })
    }

    /// The same text as markup.
    pub(crate) fn into_markup(mut self) -> Self {
        self.is_markup = true;
        self
    }

    /// `self + other`
    pub(crate) fn plus(&self, other: &Text) -> Text {
        if self.is_markup == other.is_markup {
            let mut joined = self.clone();
            joined.push(other);
            return joined;
        }
        self.escaped().plus(&other.escaped())
    }

    /// Escaped for HTML, unless it is markup already.
    pub(crate) fn escaped(&self) -> Text {
        if self.is_markup {
            return self.clone();
        }
        let escape = |piece: &str| {
            let escaped = piece.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            escaped.replace('"', "&#34;").replace('\'', "&#39;")
        };
        self.map(escape).into_markup()
    }

    pub(crate) fn push_str(&mut self, chars: &str, trusted: bool) {
        if chars.is_empty() {
            return;
        }
        self.chars.push_str(chars);
        let end = self.chars.len();
        match self.runs.last_mut() {
            Some(run) if run.trusted == trusted => run.end = end,
            _ => self.runs.push(Run { end, trusted }),
        }
    }

    pub(crate) fn push(&mut self, other: &Text) {
        other.pieces().for_each(|(piece, trusted)| self.push_str(piece, trusted));
    }

    /// The text `times` over.
    pub(crate) fn repeat(&self, times: usize) -> Text {
        if let [only] = self.runs[..] {
            return Self::new(self.chars.repeat(times), only.trusted);
        }
        let mut out = Text::default();
        (0..if self.runs.is_empty() { 0 } else { times }).for_each(|_| out.push(self));
        out
    }

    /// What an operation over the whole text costs, in units of work.
    pub(crate) fn cost(&self) -> u64 {
        1 + self.runs.len() as u64 + self.chars.len() as u64 / BYTES_PER_UNIT
    }

    /// The part at `range`, in bytes, on character boundaries.
    pub(crate) fn slice(&self, range: Range<usize>) -> Text {
        let mut out = Text::default();
        self.pieces_in(range).for_each(|(piece, trusted)| out.push_str(piece, trusted));
        out
    }

    /// The part at `part`, which must be a slice of [`Text::as_str`].
    pub(crate) fn part(&self, part: &str) -> Text {
        let start = part.as_ptr() as usize - self.chars.as_ptr() as usize;
        self.slice(start..start + part.len())
    }

    /// Each piece mapped on its own, such as to upper case.
    pub(crate) fn map(&self, f: impl Fn(&str) -> String) -> Text {
        let mut out = Text::default();
        self.pieces().for_each(|(piece, trusted)| out.push_str(&f(piece), trusted));
        out
    }

    /// Each character mapped, with `first` saying whether it starts a word after `is_word` characters ended.
    pub(crate) fn map_words(&self, is_word: impl Fn(char) -> bool, f: impl Fn(char, bool) -> String) -> Text {
        let mut inside = false;
        let mut out = Text::default();
        for (piece, trusted) in self.pieces() {
            for c in piece.chars() {
                out.push_str(&f(c, !inside), trusted);
                inside = is_word(c);
            }
        }
        out
    }

    /// Up to `count` occurrences of `old` replaced. An empty `old` matches before each character and at the end.
    pub(crate) fn replace(&self, old: &str, new: &Text, count: usize) -> Text {
        let mut out = Text::default();
        let mut last = 0;
        for (at, found) in self.chars.match_indices(old).take(count) {
            out.push(&self.slice(last..at));
            out.push(new);
            last = at + found.len();
        }
        out.push(&self.slice(last..self.chars.len()));
        out
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.chars.len()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.chars == other.chars
    }
}

impl Eq for Text {}

impl std::hash::Hash for Text {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.chars.hash(state);
    }
}

/// What Python's `str.isspace` accepts.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The lines of `text` without their ends, as Python's `str.splitlines` cuts them.
pub(crate) fn split_lines(text: &str) -> Vec<&str> {
    let ends_line =
        |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((at, end)) = rest.char_indices().find(|&(_, c)| ends_line(c)) {
        let pair = rest[at..].starts_with("\r\n");
        lines.push(&rest[..at]);
        rest = &rest[at + if pair { 2 } else { end.len_utf8() }..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(pieces: &[(&str, bool)]) -> Text {
        let mut text = Text::default();
        pieces.iter().for_each(|&(piece, trusted)| text.push_str(piece, trusted));
        text
    }

    fn check(text: &Text, pieces: &[(&str, bool)]) {
        assert_eq!(text.pieces().collect::<Vec<_>>(), pieces);
    }

    #[test]
    fn provenance_survives_every_operation() {
        let text = mixed(&[("ab", true), ("", false), ("cd", true), ("éf", false), ("gh", true)]);
        check(&text, &[("abcd", true), ("éf", false), ("gh", true)]);
        check(&text.slice(2..8), &[("cd", true), ("éf", false), ("g", true)]);
        check(&text.slice(4..6), &[("é", false)]);
        check(&text.slice(3..3), &[]);
        check(
            &text.part(text.as_str().trim_start_matches("abc")),
            &[("d", true), ("éf", false), ("gh", true)],
        );
        check(&text.map(str::to_uppercase), &[("ABCD", true), ("ÉF", false), ("GH", true)]);
        check(&text.replace("d", &Text::untrusted("-"), 9), &[("abc", true), ("-éf", false), ("gh", true)]);
        check(
            &mixed(&[("x", false)]).replace("", &Text::trusted("."), 9),
            &[(".", true), ("x", false), (".", true)],
        );
        assert!(!text.is_trusted() && text.slice(0..4).is_trusted());
    }

    #[test]
    fn lines_end_where_python_ends_them() {
        assert_eq!(split_lines("a\r\nb\n\nc\u{2028}d\n"), ["a", "b", "", "c", "d"]);
        assert!(split_lines("").is_empty());
    }
}
