//! Which groups of a panel have wide values in which rows, one list for all of them: products over many rows look once, and
//! then go through the part of the list that is their rows'.

use super::panel::PANEL_GROUPS;
use super::quantize::Rows;
use super::stream::CHUNK;

/// Bits of a [`Wide`] that are the group.
const GROUP_BITS: u32 = PANEL_GROUPS.next_power_of_two().trailing_zeros();

/// One group of one row that has wide values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide(u16);

impl Wide {
    fn new(row: usize, group: usize) -> Self {
        Self((row << GROUP_BITS | group) as u16)
    }

    /// The row, counted from the first that was looked at.
    #[inline(always)]
    pub(super) fn row(self) -> usize {
        usize::from(self.0 >> GROUP_BITS)
    }

    /// The group, counted from the first of the panel.
    #[inline(always)]
    pub(super) fn group(self) -> usize {
        usize::from(self.0) % (1 << GROUP_BITS)
    }
}

/// Those of some rows in the groups of a panel, by row and then by group.
pub(super) struct WideList {
    found: [Wide; WideList::ROWS * PANEL_GROUPS],
    /// Where each row's begin, and behind the last row, where they end.
    starts: [u16; WideList::ROWS + 1],
}

impl WideList {
    /// Rows at most: so many that unpacking a panel for them hardly counts.
    pub(super) const ROWS: usize = 264;

    pub(super) const fn new() -> Self {
        Self { found: [Wide(0); Self::ROWS * PANEL_GROUPS], starts: [0; Self::ROWS + 1] }
    }

    /// How many of `rows` rows to take at a time: in as few turns as it takes, all about the same.
    pub(super) fn turn(rows: usize) -> usize {
        let turns = rows.div_ceil(Self::ROWS).max(1);
        rows.div_ceil(turns).next_multiple_of(12).min(Self::ROWS)
    }

    /// Looks for them among `rows` rows of `x` in `groups` groups.
    ///
    /// # Safety
    /// `x` has as many rows and groups, which are at most [`Self::ROWS`] and [`PANEL_GROUPS`].
    pub(super) unsafe fn find(&mut self, x: Rows, rows: usize, groups: usize) {
        let mut count = 0;
        for row in 0..rows {
            self.starts[row] = count as u16;
            for chunk in 0..groups.div_ceil(CHUNK) {
                // SAFETY: by the caller's promise.
                let mut bits = unsafe { x.wide_groups(row, chunk) };
                while bits != 0 {
                    self.found[count] = Wide::new(row, chunk * CHUNK + bits.trailing_zeros() as usize);
                    count += 1;
                    bits &= bits - 1;
                }
            }
        }
        self.starts[rows] = count as u16;
    }

    /// Those of `count` rows from `row` on.
    #[inline(always)]
    pub(super) fn of(&self, row: usize, count: usize) -> &[Wide] {
        &self.found[self.starts[row].into()..self.starts[row + count].into()]
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
        let (rows, cols) = (WideList::ROWS, PANEL_GROUPS * GROUP);
        let is_wide = |row: usize, group: usize| (row * 7 + group * 3).is_multiple_of(11);
        let value = |at: usize| {
            let (row, col) = (at / cols, at % cols);
            if col.is_multiple_of(GROUP) && is_wide(row, col / GROUP) { 100.0 } else { (col % 5) as f32 }
        };
        let x: Vec<f32> = (0..rows * cols).map(value).collect();
        let mut bytes = vec![0; rows * quant_row_bytes(cols)];
        quantize_rows(Level::SCALAR, &x, cols, &mut bytes);
        let mut list = WideList::new();
        for count in [rows, 1, 13] {
            // SAFETY: there are as many rows and groups.
            unsafe { list.find(QuantRows::new(&bytes, rows, cols).pointers(), count, PANEL_GROUPS) };
            for row in 0..count {
                let found: Vec<_> = list.of(row, 1).iter().map(|wide| (wide.row(), wide.group())).collect();
                let expected: Vec<_> = (0..PANEL_GROUPS)
                    .filter(|&group| is_wide(row, group))
                    .map(|group| (row, group))
                    .collect();
                assert_eq!(found, expected, "row {row} of {count}");
            }
        }
    }

    #[test]
    fn turns_are_even() {
        for (rows, turn) in [(2, 12), (264, 264), (265, 144), (512, 264), (600, 204), (4096, 264)] {
            assert_eq!(WideList::turn(rows), turn, "{rows} rows");
        }
    }
}
