//! Lines of text in the order in which people read them.

use crate::image::Quad;

/// A line of text in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Where it is, in pixels of the picture.
    pub quad: Quad,
    /// What it says.
    pub text: String,
    /// Mean probability of its characters.
    pub score: f32,
}

impl Line {
    fn span(&self, axis: usize) -> [f32; 2] {
        let places = self.quad.map(|p| p[axis]);
        [
            places.into_iter().fold(f32::INFINITY, f32::min),
            places.into_iter().fold(f32::NEG_INFINITY, f32::max),
        ]
    }

    fn middle(&self) -> f32 {
        let [top, bottom] = self.span(1);
        (top + bottom) / 2.0
    }

    fn height(&self) -> f32 {
        let [top, bottom] = self.span(1);
        bottom - top
    }
}

/// Rows from the top, each from the left. A line belongs to a row when its middle is less than half a line's height from
/// the middle of the row's latest line.
pub fn reading_order(mut lines: Vec<Line>) -> Vec<Vec<Line>> {
    lines.sort_by(|a, b| a.middle().total_cmp(&b.middle()));
    let mut rows: Vec<Vec<Line>> = Vec::new();
    for line in lines {
        let beside = |row: &Vec<Line>| {
            let last = &row[row.len() - 1];
            (line.middle() - last.middle()).abs() < line.height().min(last.height()) / 2.0
        };
        match rows.last_mut() {
            Some(row) if beside(row) => row.push(line),
            _ => rows.push(vec![line]),
        }
    }
    rows.iter_mut().for_each(|row| row.sort_by(|a, b| a.span(0)[0].total_cmp(&b.span(0)[0])));
    rows
}

/// The text of rows: a line break after each, a blank between lines beside each other.
pub fn text(rows: &[Vec<Line>]) -> String {
    let row = |row: &Vec<Line>| row.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join(" ");
    rows.iter().map(|r| row(r) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_from_the_top_and_from_the_left() {
        let line = |x: f32, y: f32, height: f32, text: &str| Line {
            quad: [[x, y], [x + 50.0, y], [x + 50.0, y + height], [x, y + height]],
            text: text.into(),
            score: 1.0,
        };
        let lines = vec![
            line(100.0, 2.0, 20.0, "price"),
            line(0.0, 30.0, 20.0, "second"),
            line(0.0, 0.0, 20.0, "first"),
            line(200.0, 8.0, 20.0, "lower"),
            line(0.0, 60.0, 40.0, "big"),
        ];
        assert_eq!(text(&reading_order(lines)), "first price lower\nsecond\nbig\n");
        assert_eq!(text(&reading_order(Vec::new())), "");
    }
}
