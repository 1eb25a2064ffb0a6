//! Quantities in words.

use std::time::Duration;

/// A size in decimal units with three digits: `98.4 MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A count with a comma between each three digits: `49,152`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let head = digits.len() % 3;
    let (head, rest) = digits.split_at(head);
    let groups = rest.as_bytes().chunks(3).map(String::from_utf8_lossy);
    let parts: Vec<_> = (!head.is_empty()).then(|| head.into()).into_iter().chain(groups).collect();
    parts.join(",")
}

/// A large count in words, with four digits: `134.5 million`.
pub(crate) fn large(number: u64) -> String {
    let unit = [(1e12, "trillion"), (1e9, "billion"), (1e6, "million")]
        .into_iter()
        .find(|(unit, _)| number as f64 >= *unit);
    let Some((unit, name)) = unit else { return count(number) };
    let value = number as f64 / unit;
    let digits = if value < 10.0 {
        3
    } else if value < 100.0 {
        2
    } else {
        1
    };
    format!("{value:.digits$} {name}")
}

/// Text from outside, so that it cannot act on a terminal: control characters and those that turn the writing
/// direction are escaped, except line breaks and tabs.
pub(crate) fn plain(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let acts = |c: char| turns(c) || c.is_control() && !matches!(c, '\n' | '\t');
    let one = |c: char| if acts(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(one).collect()
}

/// The first line of a text, at most `most` characters of it, and whether there is more; safe to print.
pub(crate) fn brief(text: &str, most: usize) -> String {
    let escaped: String = text.chars().take(most.saturating_add(1)).collect();
    let escaped = plain(&escaped.replace('\n', "\\n").replace('\t', "\\t"));
    if escaped.chars().count() <= most && text.chars().count() <= most {
        return escaped;
    }
    escaped.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// How long ago something was, in its largest unit: `3 days ago`.
pub(crate) fn ago(age: Duration) -> String {
    const UNITS: [(u64, &str); 5] =
        [(86_400 * 365, "year"), (86_400 * 30, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute")];
    let seconds = age.as_secs();
    match UNITS.iter().find(|(unit, _)| seconds >= *unit) {
        Some((unit, name)) => {
            let count = seconds / unit;
            format!("{count} {name}{} ago", if count == 1 { "" } else { "s" })
        }
        None => "just now".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (98_362_432, "98.4 MB"),
            (491_400_064, "491 MB"),
            (999_999_999, "1.00 GB"),
            (u64::MAX, "18447 PB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn counts_are_grouped_or_in_words() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (49_152, "49,152"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
        let cases = [(999_999, "999,999"), (134_515_008, "134.5 million"), (7_615_616_512, "7.616 billion")];
        for (number, text) in cases {
            assert_eq!(large(number), text);
        }
    }

    #[test]
    fn text_from_outside_cannot_act_on_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n\u{202e}c"), "a\\u{1b}[2Jb\n\\u{202e}c");
        assert_eq!(brief("a\nb", 10), "a\\nb");
        assert_eq!(brief("abcdef", 4), "abc…");
        assert_eq!(brief("abcd", 4), "abcd");
    }

    #[test]
    fn ages_are_told_in_their_largest_unit() {
        let cases =
            [(5, "just now"), (60, "1 minute ago"), (7_300, "2 hours ago"), (86_400 * 400, "1 year ago")];
        for (seconds, text) in cases {
            assert_eq!(ago(Duration::from_secs(seconds)), text);
        }
    }
}
