//! Which rows have a fine part in which group of a panel. Products over many rows gather them, so that fine parts too are
//! multiplied in blocks of rows.

use super::panel::PANEL_GROUPS;
use super::quantize::Rows;
use super::stream::CHUNK;

/// For each group of a panel, those of some rows that have a fine part.
pub(super) struct FineRows {
    rows: [[u8; FineRows::MOST]; PANEL_GROUPS],
    counts: [u8; PANEL_GROUPS],
}

impl FineRows {
    /// Rows at most: whole blocks of every size, and a number that fits a byte.
    pub(super) const MOST: usize = 240;

    pub(super) const fn new() -> Self {
        Self { rows: [[0; Self::MOST]; PANEL_GROUPS], counts: [0; PANEL_GROUPS] }
    }

    /// Looks for them among `rows` rows of `x` in `groups` groups.
    ///
    /// # Safety
    /// `x` has as many rows and groups, which are at most [`Self::MOST`] and [`PANEL_GROUPS`].
    pub(super) unsafe fn find(&mut self, x: Rows, rows: usize, groups: usize) {
        self.counts = [0; PANEL_GROUPS];
        for row in 0..rows {
            for first in (0..groups).step_by(CHUNK) {
                // SAFETY: by the caller's promise.
                let bits = unsafe { x.fine_groups(row, first / CHUNK) };
                for g in 0..CHUNK {
                    // Without a branch: what is not one of them is overwritten by the next.
                    let count = &mut self.counts[first + g];
                    self.rows[first + g][usize::from(*count)] = row as u8;
                    *count += (bits >> g & 1) as u8;
                }
            }
        }
    }

    /// The rows with a fine part in a group.
    #[inline(always)]
    pub(super) fn of(&self, group: usize) -> &[u8] {
        &self.rows[group][..usize::from(self.counts[group])]
    }
}

#[cfg(test)]
mod tests {
    use kinglet_simd::Level;

    use super::super::quantize::{QuantRows, quant_row_bytes, quantize_rows};
    use super::super::stream::GROUP;
    use super::*;

    #[test]
    fn rows_with_large_values_are_found() {
        let (rows, cols) = (FineRows::MOST, PANEL_GROUPS * GROUP);
        let is_fine = |row: usize, group: usize| (row * 7 + group * 3).is_multiple_of(11);
        let value = |at: usize| {
            let (row, col) = (at / cols, at % cols);
            if col.is_multiple_of(GROUP) && is_fine(row, col / GROUP) { 100.0 } else { (col % 5) as f32 }
        };
        let x: Vec<f32> = (0..rows * cols).map(value).collect();
        let mut bytes = vec![0; rows * quant_row_bytes(cols)];
        quantize_rows(Level::SCALAR, &x, cols, &mut bytes);
        let mut found = FineRows::new();
        for count in [rows, 1, 13] {
            // SAFETY: there are as many rows and groups.
            unsafe { found.find(QuantRows::new(&bytes, rows, cols).pointers(), count, PANEL_GROUPS) };
            for group in 0..PANEL_GROUPS {
                let expected: Vec<u8> =
                    (0..count).filter(|&row| is_fine(row, group)).map(|row| row as u8).collect();
                assert_eq!(found.of(group), expected, "group {group} of {count} rows");
            }
        }
    }
}
