//! Tables of text: columns as wide as their widest cell, two blanks between them.

use std::fmt;

/// Rows under a head line; numbers are set to the right.
pub(crate) struct Table {
    head: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; a name that starts with `>` sets its column to the right.
    pub(crate) fn new(columns: &[&'static str]) -> Table {
        Table {
            head: columns.iter().map(|c| c.trim_start_matches('>')).collect(),
            right: columns.iter().map(|c| c.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; a missing cell stays empty.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
            cells.chain([self.head[column].chars().count()]).max().unwrap_or(0)
        };
        (0..self.head.len()).map(width).collect()
    }

    fn write_row<'a>(&self, f: &mut fmt::Formatter<'_>, cells: impl Iterator<Item = &'a str>) -> fmt::Result {
        let mut line = String::new();
        for ((cell, width), right) in cells.zip(self.widths()).zip(&self.right) {
            let padded = if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line += &padded;
            line += "  ";
        }
        f.write_str(line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_row(f, self.head.iter().copied())?;
        for row in &self.rows {
            writeln!(f)?;
            self.write_row(f, row.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", ">SIZE", "FROM"]);
        table.row(["smollm2:135m".into(), "98.4 MB".into(), "here".into()]);
        table.row(["x".into(), "1 B".into(), String::new()]);
        assert_eq!(
            table.to_string(),
            "NAME             SIZE  FROM\nsmollm2:135m  98.4 MB  here\nx                 1 B"
        );
    }
}
