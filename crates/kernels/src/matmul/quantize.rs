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

use kinglet_simd::{Isa, Kernel, Level, dispatch};

use super::stream::{CHUNK, GROUP};
use crate::ops::vec::sum_squares;

/// Larger values have an upper code, in units of the row's root mean square.
const WIDE: f32 = 5.0;
/// What an upper code counts.
pub(super) const UPPER: f32 = 128.0;

/// Bytes of a quantised row of `cols` columns, a multiple of 4.
pub const fn quant_row_bytes(cols: usize) -> usize {
    let groups = cols / GROUP;
    groups * GROUP_BYTES + cols + (groups + groups.div_ceil(CHUNK)).next_multiple_of(4)
}

/// Bytes of a group without its upper codes.
const GROUP_BYTES: usize = GROUP + 16;
/// Where a group's scale, scaled sum, negated sum and negated sum of the first half lie in it.
const SCALE: usize = GROUP;
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
    /// Rows that [`quantize_rows`] wrote. Panics when the length is not `rows * quant_row_bytes(cols)` or `cols` is not
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
    pub(super) fn part(self, row: usize, group: usize) -> Part {
        Part(self.base.wrapping_add(row * self.stride + group * GROUP_BYTES))
    }

    /// The groups of chunk `chunk` that have wide values, as bits.
    ///
    /// # Safety
    /// Row and chunk exist.
    #[inline(always)]
    pub(super) unsafe fn wide_groups(self, row: usize, chunk: usize) -> u32 {
        // SAFETY: by the caller's promise.
        unsafe { self.wide.add(row * self.stride + chunk).read().into() }
    }

    /// The steps of a group that have wide values, as bits.
    ///
    /// # Safety
    /// Row and group exist, and the group has wide values.
    #[inline(always)]
    pub(super) unsafe fn wide_steps(self, row: usize, group: usize) -> u32 {
        // SAFETY: by the caller's promise.
        unsafe { self.steps.add(row * self.stride + group).read().into() }
    }

    /// The four upper codes of a step that has wide values.
    #[inline(always)]
    pub(super) fn upper(self, row: usize, group: usize, step: usize) -> *const i8 {
        self.upper.wrapping_add(row * self.stride + group * GROUP + 4 * step).cast()
    }
}

/// Where a group of a row lies. What it gives exists if the group does.
#[derive(Clone, Copy)]
pub(super) struct Part(*const u8);

impl Part {
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

/// Quantises rows of `cols` floats (`x` is whole rows) into `out`, their bytes.
///
/// Panics when `cols` is not a multiple of 32 or the lengths do not fit. Rows are independent, so that workers may
/// each do some.
pub fn quantize_rows(level: Level, x: &[f32], cols: usize, out: &mut [u8]) {
    assert!(cols > 0 && cols.is_multiple_of(GROUP), "{cols} columns do not fill groups of {GROUP}");
    assert!(x.len().is_multiple_of(cols), "{} values are not rows of {cols}", x.len());
    assert_eq!(out.len(), x.len() / cols * quant_row_bytes(cols), "bytes of quantised rows");
    dispatch(level, Quantize { x, cols, out });
}

struct Quantize<'a> {
    x: &'a [f32],
    cols: usize,
    out: &'a mut [u8],
}

impl Kernel for Quantize<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let rows = self.out.chunks_exact_mut(quant_row_bytes(self.cols));
        for (x, out) in self.x.chunks_exact(self.cols).zip(rows) {
            quantize_row(isa, x, out);
        }
    }
}

/// Quantises one row: `x.len()` is a multiple of 32 and `out` holds `quant_row_bytes(x.len())`.
#[inline(always)]
pub fn quantize_row<I: Isa>(isa: I, x: &[f32], out: &mut [u8]) {
    let squares = sum_squares(isa, x, 0.0);
    let limit = WIDE * (squares / x.len() as f32).sqrt();
    let groups = x.len() / GROUP;
    let (parts, rest) = out.split_at_mut(groups * GROUP_BYTES);
    let (upper, rest) = rest.split_at_mut(x.len());
    let (steps, wide) = rest.split_at_mut(groups);
    wide.fill(0);
    for (group, x) in x.chunks_exact(GROUP).enumerate() {
        let max = largest(isa, x) + if squares.is_finite() { 0.0 } else { poison(isa, x) };
        let part = &mut parts[group * GROUP_BYTES..(group + 1) * GROUP_BYTES];
        if max > limit {
            // Upper codes have eight bits as well.
            let scale = largest_below(isa, x, limit).max(max * (1.0 / 127.0)) * (1.0 / 127.0);
            let upper = &mut upper[group * GROUP..(group + 1) * GROUP];
            steps[group] = put_wide(isa, x, scale, part, upper);
            wide[group / CHUNK] |= u8::from(steps[group] != 0) << (group % CHUNK);
        } else {
            put_group(isa, x, max * (1.0 / 127.0), part);
        }
    }
}

/// The largest magnitude of a group.
#[inline(always)]
fn largest<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let mut max = isa.zero();
    for x in x.chunks_exact(I::LANES) {
        max = isa.max(isa.abs(isa.load(x)), max);
    }
    isa.reduce_max(max)
}

/// NaN if one of the values is NaN or infinite, else zero.
#[inline(always)]
fn poison<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let mut poison = isa.zero();
    for x in x.chunks_exact(I::LANES) {
        poison = isa.fma(isa.load(x), isa.zero(), poison);
    }
    isa.reduce_sum(poison)
}

/// The largest magnitude below a limit.
#[inline(always)]
fn largest_below<I: Isa>(isa: I, x: &[f32], limit: f32) -> f32 {
    let (mut max, limit) = (isa.zero(), isa.splat(limit));
    for x in x.chunks_exact(I::LANES) {
        let x = isa.abs(isa.load(x));
        max = isa.max(isa.select(isa.lt(x, limit), x, isa.zero()), max);
    }
    isa.reduce_max(max)
}

/// Writes a group without wide values.
#[inline(always)]
fn put_group<I: Isa>(isa: I, x: &[f32], scale: f32, part: &mut [u8]) {
    let (scale, inverse) = usable(scale);
    let inverse = isa.splat(inverse);
    let mut totals = [isa.zero(); 2];
    for (half, total) in totals.iter_mut().enumerate() {
        for at in (half * 16..half * 16 + 16).step_by(I::LANES) {
            let code = isa.to_i32(isa.mul(isa.load(&x[at..]), inverse));
            *total = isa.add(*total, isa.to_f32(code));
            put_codes(isa, code, &mut part[at..at + I::LANES]);
        }
    }
    put_sums(part, scale, reduce_both(isa, totals), 0);
}

/// Writes a group with wide values and its upper codes; returns which steps have some.
#[inline(always)]
fn put_wide<I: Isa>(isa: I, x: &[f32], scale: f32, part: &mut [u8], upper: &mut [u8]) -> u8 {
    let (scale, inverse) = usable(scale);
    let inverse = isa.splat(inverse);
    let (mut totals, mut above, mut highs) = ([isa.zero(); 2], isa.zero(), [0.0; GROUP]);
    for (half, total) in totals.iter_mut().enumerate() {
        for at in (half * 16..half * 16 + 16).step_by(I::LANES) {
            let whole = isa.to_f32(isa.to_i32(isa.mul(isa.load(&x[at..]), inverse)));
            let high = isa.sub(beyond(isa, whole), beyond(isa, isa.neg(whole)));
            let code = isa.fma(high, isa.splat(-UPPER), whole);
            (*total, above) = (isa.add(*total, code), isa.add(above, high));
            put_codes(isa, isa.to_i32(code), &mut part[at..at + I::LANES]);
            put_codes(isa, isa.to_i32(high), &mut upper[at..at + I::LANES]);
            // Floats can be read again at once; narrowed codes only when they have left for the cache.
            isa.store(high, &mut highs[at..]);
        }
    }
    put_sums(part, scale, reduce_both(isa, totals), isa.reduce_sum(above) as i32);
    let mut steps = 0;
    for (step, highs) in highs.as_chunks::<4>().0.iter().enumerate() {
        steps |= u8::from(*highs != [0.0; 4]) << step;
    }
    steps
}

/// The sums of the lanes of two vectors of integers that sum up to less than 4,096 in magnitude, as the codes of half a
/// group do: both in one float.
#[inline(always)]
fn reduce_both<I: Isa>(isa: I, totals: [I::F32; 2]) -> [i32; 2] {
    const APART: i32 = 8192;
    let both = isa.reduce_sum(isa.fma(totals[1], isa.splat(APART as f32), totals[0])) as i32;
    let second = (both + APART / 2).div_euclid(APART);
    [both - second * APART, second]
}

/// How many whole [`UPPER`] positive integers contain; zero for negative ones.
#[inline(always)]
fn beyond<I: Isa>(isa: I, whole: I::F32) -> I::F32 {
    // Less than half of it is taken off, so that the nearest is the one below.
    let above = isa.max(isa.sub(whole, isa.splat(0.5 * UPPER - 0.5)), isa.zero());
    isa.to_f32(isa.to_i32(isa.mul(above, isa.splat(1.0 / UPPER))))
}

/// The scale and its inverse; zero for both if it is not a normal float.
#[inline(always)]
fn usable(scale: f32) -> (f32, f32) {
    let scale = if scale < f32::MIN_POSITIVE { 0.0 } else { scale };
    (scale, if scale > 0.0 { 1.0 / scale } else { 0.0 })
}

/// Writes the codes of one vector.
#[inline(always)]
fn put_codes<I: Isa>(isa: I, codes: I::I32, out: &mut [u8]) {
    assert!(out.len() >= I::LANES);
    // SAFETY: there is a byte for each lane.
    unsafe { isa.store_i8_ptr(codes, out.as_mut_ptr().cast()) };
}

/// Writes scale and sums of a group; `sums` are those of both halves' codes, `above` is that of its upper codes.
#[inline(always)]
fn put_sums(part: &mut [u8], scale: f32, sums: [i32; 2], above: i32) {
    let sum = sums[0].wrapping_add(sums[1]);
    let whole = sum as f32 + UPPER * above as f32;
    put(part, SCALE, scale.to_le_bytes());
    put(part, SUM, (scale * whole).to_le_bytes());
    put(part, NEGATED, sum.wrapping_neg().to_le_bytes());
    put(part, NEGATED_HALF, sums[0].wrapping_neg().to_le_bytes());
}

#[inline(always)]
fn put(part: &mut [u8], at: usize, word: [u8; 4]) {
    part[at..at + 4].copy_from_slice(&word);
}
