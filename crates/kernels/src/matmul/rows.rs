//! Activations in 8 bits, and in 16 where 8 would lose too much: each 32 columns of a row, a *group*, share one scale.
//!
//! ```text
//! row     [groups][upper codes: i8 x cols][wide steps: a byte for each group][wide groups: a bit for each, a byte for 8]
//! group   [codes: i8 x 32][scale: f32][scale * sum: f32][-sum of codes: i32][-sum of the first 16 codes: i32]
//! ```
//!
//! A value is `scale * (code + 128 * upper)`, where `code + 128 * upper = round(x / scale)`, to nearest, halves to even.
//! The scale is a 127th of the group's largest magnitude, *wide* values not counted: those beyond [`WIDE`] times the row's
//! root mean square, each of which would spoil the other values of its group, and those of the row by the same error. Wide
//! values have an upper code, all others have none. Four columns with wide values among them, a *wide step*, are marked, and
//! only their upper codes are written and multiplied: exactness in the few values that matter costs their share of time.
//!
//! Groups whose scale would not be a normal float are all zero; NaN and infinity make their group's products NaN.
//! The sums serve minima and zero points; the scaled one counts upper codes, the others do not.

use std::ops::Range;

use super::panel::PANEL_GROUPS;
use super::stream::{CHUNK, GROUP};

/// Larger values have an upper code, in units of the row's root mean square.
pub(super) const WIDE: f32 = 5.0;
/// What an upper code counts.
pub(super) const UPPER: f32 = 128.0;

/// Bytes of a quantised row of `cols` columns, a multiple of 4.
pub const fn quant_row_bytes(cols: usize) -> usize {
    let groups = cols / GROUP;
    groups * GROUP_BYTES + cols + (groups + groups.div_ceil(CHUNK)).next_multiple_of(4)
}

/// Bytes of a group without its upper codes.
pub(super) const GROUP_BYTES: usize = GROUP + 16;
/// Where a group's scale, scaled sum, negated sum and negated sum of the first half lie in it, one behind the other.
pub(super) const SCALE: usize = GROUP;
const SUM: usize = GROUP + 4;
const NEGATED: usize = GROUP + 8;
const NEGATED_HALF: usize = GROUP + 12;

/// Quantised rows, `[rows, cols]`.
#[derive(Clone, Copy, Debug)]
pub struct QuantRows<'a> {
    bytes: &'a [u8],
    rows: usize,
    cols: usize,
}

impl<'a> QuantRows<'a> {
    /// Rows that [`quantize_rows`](super::quantize_rows) wrote. Panics when the length is not `rows * quant_row_bytes(cols)` or `cols` is not
    /// a multiple of 32.
    pub fn new(bytes: &'a [u8], rows: usize, cols: usize) -> Self {
        assert!(cols.is_multiple_of(GROUP), "{cols} columns do not fill groups of {GROUP}");
        assert_eq!(bytes.len(), rows * quant_row_bytes(cols), "bytes of {rows} x {cols} quantised rows");
        Self { bytes, rows, cols }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn pointers(&self) -> Rows {
        let (base, groups) = (self.bytes.as_ptr(), self.cols / GROUP);
        let upper = base.wrapping_add(groups * GROUP_BYTES);
        let steps = upper.wrapping_add(self.cols);
        Rows { base, upper, steps, wide: steps.wrapping_add(groups), stride: quant_row_bytes(self.cols) }
    }

    /// What stands for one value, for tests and traces.
    pub fn value(&self, row: usize, col: usize) -> f64 {
        let (code, scale) = self.code(row, col);
        let whole = f64::from(code) + f64::from(UPPER) * f64::from(self.upper(row, col));
        whole * f64::from(scale)
    }

    /// Code and scale of one value.
    pub fn code(&self, row: usize, col: usize) -> (i8, f32) {
        let at = row * quant_row_bytes(self.cols) + col / GROUP * GROUP_BYTES;
        let group = &self.bytes[at..at + GROUP_BYTES];
        let scale = [group[SCALE], group[SCALE + 1], group[SCALE + 2], group[SCALE + 3]];
        (group[col % GROUP] as i8, f32::from_le_bytes(scale))
    }

    /// Upper code of one value: zero for all that are not wide.
    pub fn upper(&self, row: usize, col: usize) -> i8 {
        let (groups, group) = (self.cols / GROUP, col / GROUP);
        let upper = &self.bytes[row * quant_row_bytes(self.cols) + groups * GROUP_BYTES..];
        let (steps, wide) = (upper[self.cols + group], upper[self.cols + groups + group / CHUNK]);
        let marked = wide >> (group % CHUNK) & 1 != 0 && steps >> (col % GROUP / 4) & 1 != 0;
        if marked { upper[col] as i8 } else { 0 }
    }
}

/// Where quantised rows lie, from a group on that starts a chunk.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    base: *const u8,
    upper: *const u8,
    steps: *const u8,
    wide: *const u8,
    stride: usize,
}

impl Rows {
    /// The same rows without the first `rows`, seen from group `first` on, which starts a chunk.
    #[inline(always)]
    pub(super) fn from(self, rows: usize, first: usize) -> Self {
        let skip = rows * self.stride;
        Self {
            base: self.base.wrapping_add(skip + first * GROUP_BYTES),
            upper: self.upper.wrapping_add(skip + first * GROUP),
            steps: self.steps.wrapping_add(skip + first),
            wide: self.wide.wrapping_add(skip + first / CHUNK),
            ..self
        }
    }

    /// Group `group` of row `row`.
    #[inline(always)]
    pub(super) fn part(self, row: usize, group: usize) -> GroupAt {
        GroupAt(self.base.wrapping_add(row * self.stride + group * GROUP_BYTES))
    }

    /// The groups of `groups`, a panel's at most, and the steps in them that have wide values. The first starts a chunk.
    ///
    /// # Safety
    /// Row and groups exist, as long as the places are in use.
    #[inline(always)]
    pub(super) unsafe fn wide_places(self, row: usize, groups: Range<usize>) -> WidePlaces {
        const { assert!(PANEL_GROUPS <= 32) };
        let skip = row * self.stride;
        let mut marks = 0;
        for chunk in 0..groups.len().div_ceil(CHUNK) {
            // SAFETY: by the caller's promise.
            let mark = unsafe { self.wide.add(skip + groups.start / CHUNK + chunk).read() };
            marks |= u32::from(mark) << (chunk * CHUNK);
        }
        WidePlaces {
            all_steps: self.steps.wrapping_add(skip),
            first: groups.start,
            marks,
            group: 0,
            steps: 0,
        }
    }

    /// The four upper codes of a step. They are there if the step is marked.
    #[inline(always)]
    pub(super) fn upper(self, row: usize, group: usize, step: usize) -> *const i8 {
        self.upper.wrapping_add(row * self.stride + group * GROUP + 4 * step).cast()
    }

    /// What an upper code of a group counts.
    ///
    /// # Safety
    /// Row and group exist.
    #[inline(always)]
    pub(super) unsafe fn upper_scale(self, row: usize, group: usize) -> f32 {
        // SAFETY: by the caller's promise.
        UPPER * unsafe { self.part(row, group).scale() }
    }
}

/// Groups, and steps in them, that have wide values, in their order.
pub(super) struct WidePlaces {
    /// The marks of the row's steps.
    all_steps: *const u8,
    /// The first group that was asked for.
    first: usize,
    /// The groups from it on that are left, as bits.
    marks: u32,
    /// The group.
    group: usize,
    /// The steps of it that are left, as bits.
    steps: u8,
}

impl Iterator for WidePlaces {
    type Item = (usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize)> {
        while self.steps == 0 {
            if self.marks == 0 {
                return None;
            }
            self.group = self.first + self.marks.trailing_zeros() as usize;
            self.marks &= self.marks - 1;
            // SAFETY: groups that are marked exist, by the promise to `wide_places`.
            self.steps = unsafe { self.all_steps.add(self.group).read() };
        }
        let step = self.steps.trailing_zeros() as usize;
        self.steps &= self.steps - 1;
        Some((self.group, step))
    }
}

/// Where a group of a row lies. What it gives exists if the group does.
#[derive(Clone, Copy)]
pub(super) struct GroupAt(*const u8);

impl GroupAt {
    /// The same of the next group.
    #[inline(always)]
    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(GROUP_BYTES))
    }

    /// The codes.
    #[inline(always)]
    pub(super) fn codes(self) -> *const i8 {
        self.0.cast()
    }

    /// # Safety
    /// The group exists.
    #[inline(always)]
    pub(super) unsafe fn scale(self) -> f32 {
        // SAFETY: by the caller's promise.
        unsafe { self.0.add(SCALE).cast::<f32>().read_unaligned() }
    }

    /// The scale times the sum of the codes.
    ///
    /// # Safety
    /// The group exists.
    #[inline(always)]
    pub(super) unsafe fn sum(self) -> f32 {
        // SAFETY: by the caller's promise.
        unsafe { self.0.add(SUM).cast::<f32>().read_unaligned() }
    }

    /// The negated sum of the codes.
    ///
    /// # Safety
    /// The group exists.
    #[inline(always)]
    pub(super) unsafe fn negated(self) -> i32 {
        // SAFETY: by the caller's promise.
        unsafe { self.0.add(NEGATED).cast::<i32>().read_unaligned() }
    }

    /// The negated sum of the first sixteen codes.
    ///
    /// # Safety
    /// The group exists.
    #[inline(always)]
    pub(super) unsafe fn negated_half(self) -> i32 {
        // SAFETY: by the caller's promise.
        unsafe { self.0.add(NEGATED_HALF).cast::<i32>().read_unaligned() }
    }
}
