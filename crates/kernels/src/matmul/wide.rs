//! The upper codes of a panel's columns: one list for many rows, so that they are looked for once and then multiplied with
//! each pair of tiles, without a branch that depends on them.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use kinglet_simd::{Isa, Kernel};

use super::panel::PANEL_GROUPS;
use super::rows::{Rows, WidePlaces};
use super::stream::{STEPS, Scales, Stream};

/// One step of one row that has wide values, and all that its products take.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(super) struct Wide {
    /// Counted from the first row that was looked at.
    row: u16,
    /// Counted from the first step of the panel.
    step: u16,
    /// The upper codes of its four columns.
    pub(super) upper: [i8; 4],
    /// What an upper code counts.
    pub(super) scale: f32,
    /// What the weights' zero point adds to the dot product, negated.
    pub(super) taken: i32,
}

impl Wide {
    /// Step `step` of group `group` of row `row`; weights have the zero point `zero`.
    ///
    /// # Safety
    /// `x` has the row and the group, in which the step is marked.
    #[inline(always)]
    pub(super) unsafe fn new(x: Rows, row: usize, (group, step): (usize, usize), zero: i32) -> Self {
        // SAFETY: by the caller's promise.
        let (upper, scale) =
            unsafe { (x.upper(row, group, step).cast::<[i8; 4]>().read(), x.upper_scale(row, group)) };
        let mut sum = 0;
        for code in upper {
            sum += i32::from(code);
        }
        Self { row: row as u16, step: (group * STEPS + step) as u16, upper, scale, taken: -zero * sum }
    }

    /// The row, counted from the first that was looked at.
    #[inline(always)]
    pub(super) fn row(&self) -> usize {
        self.row.into()
    }

    /// The group, counted from the first of the panel.
    #[inline(always)]
    pub(super) fn group(&self) -> usize {
        usize::from(self.step) / STEPS
    }

    /// The step of the group.
    #[inline(always)]
    pub(super) fn step(&self) -> usize {
        usize::from(self.step) % STEPS
    }
}

/// Steps at most: more than a few in each group are rare.
const STEPS_LISTED: usize = WideList::ROWS * PANEL_GROUPS / 2;
/// Steps of a row at most.
const STEPS_OF_ROW: usize = PANEL_GROUPS * STEPS;
/// Rows of the largest block.
const BLOCK_ROWS: usize = 6;

/// Rows that go over a panel at once, as many as registers hold sums for.
#[inline(always)]
pub(super) const fn block_rows<I: Isa, P: Stream>() -> usize {
    match I::REGISTERS {
        32.. if P::Scales::PARTS == 2 => 4,
        32.. => BLOCK_ROWS,
        16.. => 4,
        _ => 1,
    }
}

/// Rows of the next block when `left` are to do and whole blocks have `whole`.
#[inline(always)]
pub(super) const fn next_block(left: usize, whole: usize) -> usize {
    match left {
        _ if left >= whole => whole,
        2.. => 2,
        _ => 1,
    }
}

/// Those of some rows in the groups of a panel. Those of a block of rows lie together, the first of each row, then the
/// second: sums of one row are in memory, and would wait for each other.
pub(super) struct WideList {
    found: [MaybeUninit<Wide>; STEPS_LISTED],
    /// Where each block's begin, by its first row, and behind the last row, where they end.
    starts: [MaybeUninit<u16>; WideList::ROWS + 1],
}

impl WideList {
    /// Rows at most: so many that unpacking a panel for them hardly counts.
    pub(super) const ROWS: usize = 264;

    /// An empty one. Nothing in it is written, so that nothing is copied either.
    pub(super) const fn new() -> Self {
        Self { found: [MaybeUninit::uninit(); STEPS_LISTED], starts: [MaybeUninit::uninit(); Self::ROWS + 1] }
    }

    /// How many of `rows` rows to take at a time: in as few turns as it takes, all about the same.
    pub(super) fn turn(rows: usize) -> usize {
        let turns = rows.div_ceil(Self::ROWS).max(1);
        rows.div_ceil(turns).next_multiple_of(BLOCK_ROWS).min(Self::ROWS)
    }

    /// Looks for them among `rows` rows of `x` in `groups` groups, for weights with the zero point `zero`, in blocks of `whole`
    /// rows. Returns how many rows it took: all but if they have more than the list holds, and at least one block.
    ///
    /// # Safety
    /// `x` has as many rows and groups, which are at most [`Self::ROWS`] and [`PANEL_GROUPS`].
    unsafe fn find(&mut self, x: Rows, rows: usize, groups: usize, zero: i32, whole: usize) -> usize {
        let (mut row, mut count) = (0, 0);
        while row < rows {
            self.starts[row].write(count as u16);
            let block = next_block(rows - row, whole);
            if count + block * STEPS_OF_ROW > STEPS_LISTED {
                return row;
            }
            // SAFETY: by the caller's promise.
            unsafe {
                let places = std::array::from_fn(|r| (r < block).then(|| x.wide_places(row + r, 0..groups)));
                count = self.take_turns(x, row, places, zero, count);
            }
            row += block;
        }
        self.starts[rows].write(count as u16);
        rows
    }

    /// Lists the places of the rows from `row` on by turns, from entry `count` on; returns where they end.
    ///
    /// # Safety
    /// They are those of rows of `x`, and the list has room.
    unsafe fn take_turns(
        &mut self,
        x: Rows,
        row: usize,
        mut places: [Option<WidePlaces>; BLOCK_ROWS],
        zero: i32,
        mut count: usize,
    ) -> usize {
        loop {
            let before = count;
            for (r, places) in places.iter_mut().enumerate() {
                if let Some(place) = places.as_mut().and_then(Iterator::next) {
                    // SAFETY: places that are marked exist.
                    self.found[count].write(unsafe { Wide::new(x, row + r, place, zero) });
                    count += 1;
                }
            }
            if count == before {
                return count;
            }
        }
    }

    /// Those of the block of `count` rows from `row` on.
    ///
    /// # Safety
    /// It is a block of those that [`Find`] looked at last.
    #[inline(always)]
    pub(super) unsafe fn of(&self, row: usize, count: usize) -> &[Wide] {
        // SAFETY: `find` has written where blocks begin and end, and all up to where the last one ends.
        unsafe {
            let (start, end) = (self.starts[row].assume_init(), self.starts[row + count].assume_init());
            self.found[start.into()..end.into()].assume_init_ref()
        }
    }
}

/// Lists the wide values of rows that go over panels of `P`; gives how many rows the list took.
pub(super) struct Find<'a, P> {
    list: &'a mut WideList,
    x: Rows,
    rows: usize,
    groups: usize,
    stream: PhantomData<P>,
}

impl<'a, P> Find<'a, P> {
    /// # Safety
    /// When it runs, `x` has as many rows and groups, which are at most [`WideList::ROWS`] and [`PANEL_GROUPS`].
    pub(super) unsafe fn new(list: &'a mut WideList, x: Rows, rows: usize, groups: usize) -> Self {
        Self { list, x, rows, groups, stream: PhantomData }
    }
}

impl<P: Stream> Kernel for Find<'_, P> {
    type Out = usize;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> usize {
        let (zero, whole) = (P::ZERO.value(I::W_BIAS), block_rows::<I, P>());
        // SAFETY: by the promise to `new`.
        unsafe { self.list.find(self.x, self.rows, self.groups, zero, whole) }
    }
}

#[cfg(test)]
mod tests {
    use kinglet_simd::Level;

    use super::super::quantize::quantize_rows;
    use super::super::rows::{QuantRows, quant_row_bytes};
    use super::super::stream::GROUP;
    use super::*;

    const COLS: usize = PANEL_GROUPS * GROUP;

    /// Quantised rows of small values and of large ones where `is_wide` says, by row and group.
    fn rows_with(is_wide: impl Fn(usize, usize) -> bool) -> Vec<u8> {
        let value = |at: usize| {
            let (row, col) = (at / COLS, at % COLS);
            if col.is_multiple_of(GROUP) && is_wide(row, col / GROUP) { 100.0 } else { (col % 5) as f32 }
        };
        let x: Vec<f32> = (0..WideList::ROWS * COLS).map(value).collect();
        let mut bytes = vec![0; WideList::ROWS * quant_row_bytes(COLS)];
        quantize_rows(Level::SCALAR, &x, COLS, &mut bytes);
        bytes
    }

    #[test]
    fn rows_with_large_values_are_found() {
        let is_wide = |row: usize, group: usize| (row * 7 + group * 3).is_multiple_of(11);
        let bytes = rows_with(is_wide);
        let (mut list, x) = (WideList::new(), QuantRows::new(&bytes, WideList::ROWS, COLS));
        for (count, whole) in [(WideList::ROWS, 1), (1, 6), (17, 4), (13, 6), (263, 6)] {
            // SAFETY: there are as many rows and groups.
            let taken = unsafe { list.find(x.pointers(), count, PANEL_GROUPS, 8, whole) };
            assert_eq!(taken, count);
            let mut first = 0;
            while first < count {
                let block = next_block(count - first, whole);
                // SAFETY: it is a block of them.
                let found = unsafe { list.of(first, block) };
                for row in first..first + block {
                    let own = found.iter().filter(|wide| wide.row() == row).map(Wide::group);
                    let expected = (0..PANEL_GROUPS).filter(|&group| is_wide(row, group));
                    assert!(own.eq(expected), "row {row} of {count}");
                }
                let turns = found.iter().take(block).map(Wide::row);
                assert!(found.len() < block || turns.eq(first..first + block), "rows take turns");
                first += block;
            }
        }
    }

    #[test]
    fn a_full_list_takes_fewer_rows() {
        // One value in each group, far from the root mean square of zeros.
        let x: Vec<f32> = (0..WideList::ROWS * COLS).map(|at| f32::from(u8::from(at % GROUP == 3))).collect();
        let mut bytes = vec![0; WideList::ROWS * quant_row_bytes(COLS)];
        quantize_rows(Level::SCALAR, &x, COLS, &mut bytes);
        let (mut list, x) = (WideList::new(), QuantRows::new(&bytes, WideList::ROWS, COLS).pointers());
        let (mut first, mut found) = (0, 0);
        while first < WideList::ROWS {
            let left = WideList::ROWS - first;
            // SAFETY: there are as many rows and groups.
            let taken = unsafe { list.find(x.from(first, 0), left, PANEL_GROUPS, 0, 6) };
            assert!(taken > 0 && taken.is_multiple_of(6), "row {first}");
            // SAFETY: they are blocks of them.
            found += (0..taken).step_by(6).map(|row| unsafe { list.of(row, 6) }.len()).sum::<usize>();
            first += taken;
        }
        assert_eq!(found, WideList::ROWS * PANEL_GROUPS);
        assert!(found > STEPS_LISTED, "{found} steps fill no list");
    }

    #[test]
    fn turns_are_even() {
        for (rows, turn) in [(2, 6), (264, 264), (265, 138), (512, 258), (600, 204), (4096, 258)] {
            assert_eq!(WideList::turn(rows), turn, "{rows} rows");
        }
    }
}
