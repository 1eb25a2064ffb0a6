//! A result in sections: headings, labels with wrapped values, tables.

use anyhow::Result;

use super::{Table, Ui};

/// A label and what stands behind it; left out when that is empty.
pub(crate) type Row = (&'static str, String);

/// Columns of a label, the blank behind it included.
const LABEL: usize = 16;

/// A blank of a value at which its line is not broken; printed as an ordinary one.
pub(crate) const HELD: &str = "\u{a0}";

/// Prints sections, a blank line between two of them.
pub(crate) struct Sections<'a> {
    ui: &'a Ui,
    columns: usize,
    first: bool,
}

impl<'a> Sections<'a> {
    /// Sections as wide as the terminal.
    pub(crate) fn new(ui: &'a Ui) -> Sections<'a> {
        Sections { ui, columns: ui.columns(), first: true }
    }

    /// A section of labels and values.
    pub(crate) fn rows(&mut self, title: &str, rows: &[Row]) -> Result<()> {
        self.heading(title)?;
        let room = self.columns.saturating_sub(LABEL + 2).max(20);
        for (label, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
            for (n, line) in wrap(value, room).into_iter().enumerate() {
                let label = if n == 0 { label } else { "" };
                self.ui.line(format_args!("  {label:<LABEL$}{}", line.replace(HELD, " ")))?;
            }
        }
        Ok(())
    }

    /// A section of one table.
    pub(crate) fn table(&mut self, title: &str, table: &Table) -> Result<()> {
        self.heading(title)?;
        table.to_string().lines().try_for_each(|line| self.ui.line(format_args!("  {line}")))
    }

    /// Text behind a section, set in and wrapped.
    pub(crate) fn remark(&self, text: &str) -> Result<()> {
        let lines = wrap(text, self.columns.saturating_sub(2).min(100));
        lines.iter().try_for_each(|line| self.ui.line(format_args!("  {line}")))
    }

    fn heading(&mut self, title: &str) -> Result<()> {
        if !std::mem::take(&mut self.first) {
            self.ui.line("")?;
        }
        self.ui.heading(title)
    }
}

/// Cuts a text between words into lines of at most `room` characters, where words are not longer.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if lines[last].is_empty() {
            lines[last] = word.to_owned();
        } else if lines[last].chars().count() + 1 + word.chars().count() <= room {
            lines[last] += " ";
            lines[last] += word;
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        let cases: [(&str, usize, &[&str]); 4] = [
            ("", 5, &[""]),
            ("a bc def", 4, &["a bc", "def"]),
            ("a bc def", 80, &["a bc def"]),
            ("longer than", 4, &["longer", "than"]),
        ];
        for (text, room, lines) in cases {
            assert_eq!(wrap(text, room), lines);
        }
    }
}
