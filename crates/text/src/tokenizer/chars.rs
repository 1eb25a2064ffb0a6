//! Character classes as bit sets: one lookup a character, one AND a test.
//!
//! The classes are those that pre-tokenizing patterns speak of: Unicode's general categories, `\s`, and a few ASCII
//! subsets.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Upper-case letters.
pub(crate) const LU: u32 = 1;
/// Lower-case letters.
pub(crate) const LL: u32 = 1 << 1;
/// Title-case letters.
pub(crate) const LT: u32 = 1 << 2;
/// Modifier letters.
pub(crate) const LM: u32 = 1 << 3;
/// Letters without case.
pub(crate) const LO: u32 = 1 << 4;
/// Combining marks.
pub(crate) const M: u32 = 1 << 5;
/// Numbers of every kind.
pub(crate) const N: u32 = 1 << 6;
/// Punctuation.
pub(crate) const P: u32 = 1 << 7;
/// Symbols.
pub(crate) const S: u32 = 1 << 8;
/// White space, as `\s` has it.
pub(crate) const WS: u32 = 1 << 9;
/// Carriage return and line feed.
pub(crate) const NL: u32 = 1 << 10;
/// The space itself.
pub(crate) const SPACE: u32 = 1 << 11;
/// The slash.
pub(crate) const SLASH: u32 = 1 << 12;
/// `A` to `Z` and `a` to `z`.
pub(crate) const ASCII_LETTER: u32 = 1 << 13;
/// The printable ASCII characters that are neither letter, digit nor space.
pub(crate) const ASCII_PUNCT: u32 = 1 << 14;
/// Han ideographs.
pub(crate) const HAN: u32 = 1 << 15;
/// Everything that has none of the above.
pub(crate) const OTHER: u32 = 1 << 16;
/// Letters of every kind.
pub(crate) const L: u32 = LU | LL | LT | LM | LO;
/// Every character.
pub(crate) const ANY: u32 = u32::MAX;

static ASCII: [u32; 128] = ascii_table();

/// The classes `c` belongs to; never empty.
#[inline]
pub(crate) fn classes(c: char) -> u32 {
    match ASCII.get(c as usize) {
        Some(&bits) => bits,
        None => beyond_ascii(c),
    }
}

/// The character at byte `at`, with its length in bytes; `None` at the end.
#[inline]
pub(crate) fn char_at(text: &str, at: usize) -> Option<(char, usize)> {
    let first = *text.as_bytes().get(at)?;
    if first < 128 {
        return Some((first as char, 1));
    }
    text.get(at..)?.chars().next().map(|c| (c, c.len_utf8()))
}

const fn ascii_table() -> [u32; 128] {
    let mut table = [OTHER; 128];
    let mut i = 0;
    while i < 128 {
        table[i] = match i as u8 {
            b'A'..=b'Z' => LU | ASCII_LETTER,
            b'a'..=b'z' => LL | ASCII_LETTER,
            b'0'..=b'9' => N,
            b' ' => WS | SPACE,
            b'\r' | b'\n' => WS | NL,
            b'\t' | 0x0b | 0x0c => WS,
            b'/' => P | ASCII_PUNCT | SLASH,
            b'$' | b'+' | b'<' | b'=' | b'>' | b'^' | b'`' | b'|' | b'~' => S | ASCII_PUNCT,
            0x21..=0x7e => P | ASCII_PUNCT,
            _ => OTHER,
        };
        i += 1;
    }
    table
}

fn beyond_ascii(c: char) -> u32 {
    use GeneralCategory as G;
    match c.general_category() {
        G::UppercaseLetter => LU,
        G::LowercaseLetter => LL,
        G::TitlecaseLetter => LT,
        G::ModifierLetter => LM,
        G::OtherLetter if is_han(c) => LO | HAN,
        G::OtherLetter => LO,
        G::NonspacingMark | G::SpacingMark | G::EnclosingMark => M,
        G::DecimalNumber | G::LetterNumber | G::OtherNumber => N,
        G::ConnectorPunctuation
        | G::DashPunctuation
        | G::OpenPunctuation
        | G::ClosePunctuation
        | G::InitialPunctuation
        | G::FinalPunctuation
        | G::OtherPunctuation => P,
        G::MathSymbol | G::CurrencySymbol | G::ModifierSymbol | G::OtherSymbol => S,
        _ if c.is_whitespace() => WS,
        _ => OTHER,
    }
}

/// Whether `c` lies in a block of Han ideographs.
pub(crate) fn is_han(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x2a6df | 0x2a700..=0x2ebef
        | 0x2f800..=0x2fa1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_unicode() {
        let check = |c: char, want: u32| assert_eq!(classes(c), want, "{c:?}");
        check('a', LL | ASCII_LETTER);
        check('é', LL);
        check('ǅ', LT);
        check('漢', LO | HAN);
        check('\u{301}', M);
        check('½', N);
        check('٣', N);
        check('。', P);
        check('€', S);
        check('\u{a0}', WS);
        check('\u{85}', WS);
        check('\u{200d}', OTHER);
        check('\0', OTHER);
    }

    #[test]
    fn ascii_agrees_with_unicode() {
        for c in (0u8..128).map(char::from) {
            let table = classes(c) & !(ASCII_LETTER | ASCII_PUNCT | SPACE | NL | SLASH);
            assert_eq!(table, beyond_ascii(c), "{c:?}");
        }
    }
}
