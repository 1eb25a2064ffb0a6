//! Activations in 8 bits, and in 16 where 8 would lose too much: each 32 columns of a row, a *group*, share one scale.
//!
//! ```text
//! row     [coarse layer][fine layer][mask: a bit for each group that has a fine part, a byte for 8]
//! layer   [codes: i8 x cols][scale: f32 x groups][scale * sum: f32 x groups][-sum: i32 x groups][-sum of 16: i32 x 2 groups]
//! ```
//!
//! `code = round(x * (127 / max|x|))`, to nearest, halves to even; `x` is within `scale * 0.501` of `scale * code`.
//! A group with a value beyond [`FINE`] times the row's root mean square would spoil its other values, and those of the
//! row by the same error: what it rounded off becomes the codes of the fine layer, whose scale is 1/254 of the coarse
//! one. Other groups leave the fine layer unwritten. Products add both layers alike, so that exactness in the few groups
//! that matter costs their share of time, and no second kernel.
//!
//! Groups whose scale would not be a normal float are all zero; NaN and infinity make their group's products NaN.
//! The sums serve minima and zero points.

use kinglet_simd::{Isa, Kernel, Level, dispatch};

use super::stream::{CHUNK, GROUP};
use crate::ops::vec::sum_squares;

/// A group with a larger value, in units of the row's root mean square, has a fine part.
const FINE: f32 = 5.0;
/// Fine steps in a coarse one: half a coarse step is 127 of them.
const FINE_STEPS: f32 = 254.0;

/// Bytes of a quantised row of `cols` columns, a multiple of 4.
pub const fn quant_row_bytes(cols: usize) -> usize {
    2 * layer_bytes(cols) + mask_bytes(cols)
}

const fn layer_bytes(cols: usize) -> usize {
    cols + cols / GROUP * 20
}

const fn mask_bytes(cols: usize) -> usize {
    cols.div_ceil(GROUP * CHUNK).next_multiple_of(4)
}

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
        let groups = self.cols / GROUP;
        Rows { base: self.bytes.as_ptr(), stride: quant_row_bytes(self.cols), groups, first: 0 }
    }

    /// What stands for one value, for tests and traces.
    pub fn value(&self, row: usize, col: usize) -> f64 {
        let part = |(code, scale): (i8, f32)| f64::from(code) * f64::from(scale);
        part(self.coarse(row, col)) + self.fine(row, col).map_or(0.0, part)
    }

    /// Coarse code and scale of one value.
    pub fn coarse(&self, row: usize, col: usize) -> (i8, f32) {
        self.part(row, 0, col)
    }

    /// Fine code and scale of one value, if its group has a fine part.
    pub fn fine(&self, row: usize, col: usize) -> Option<(i8, f32)> {
        let (layer, group) = (layer_bytes(self.cols), col / GROUP);
        let mask = self.bytes[row * quant_row_bytes(self.cols) + 2 * layer + group / CHUNK];
        (mask >> (group % CHUNK) & 1 != 0).then(|| self.part(row, layer, col))
    }

    fn part(&self, row: usize, layer: usize, col: usize) -> (i8, f32) {
        let row = &self.bytes[row * quant_row_bytes(self.cols) + layer..];
        let at = self.cols + col / GROUP * 4;
        (row[col] as i8, f32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]))
    }
}

/// Where the parts of quantised rows lie, from group `first` on.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    base: *const u8,
    stride: usize,
    groups: usize,
    first: usize,
}

impl Rows {
    /// The same rows without the first `rows`, seen from group `first` on.
    #[inline(always)]
    pub(super) fn from(self, rows: usize, first: usize) -> Self {
        Self { base: self.base.wrapping_add(rows * self.stride), first, ..self }
    }

    /// The fine layers of the rows.
    #[inline(always)]
    pub(super) fn fine(self) -> Self {
        Self { base: self.base.wrapping_add(layer_bytes(self.groups * GROUP)), ..self }
    }

    /// The groups of chunk `chunk` (counted from the first group, which starts one) that have a fine part, as bits.
    /// Not of fine layers.
    ///
    /// # Safety
    /// Row and chunk exist.
    #[inline(always)]
    pub(super) unsafe fn fine_groups(self, row: usize, chunk: usize) -> u32 {
        let mask = row * self.stride + 2 * layer_bytes(self.groups * GROUP);
        // SAFETY: by the caller's promise.
        unsafe { self.base.add(mask + self.first / CHUNK + chunk).read().into() }
    }

    /// Element `index` of the 32-bit array that starts `arrays` times `groups` elements behind the codes.
    ///
    /// # Safety
    /// Row and element exist.
    #[inline(always)]
    unsafe fn word<T: Copy>(self, row: usize, arrays: usize, index: usize) -> T {
        let at = row * self.stride + self.groups * (GROUP + 4 * arrays) + 4 * index;
        // SAFETY: by the caller's promise.
        unsafe { self.base.add(at).cast::<T>().read_unaligned() }
    }

    /// The codes of a group.
    ///
    /// # Safety
    /// Row and group exist.
    #[inline(always)]
    pub(super) unsafe fn codes(self, row: usize, group: usize) -> *const i8 {
        // SAFETY: by the caller's promise.
        unsafe { self.base.add(row * self.stride + (self.first + group) * GROUP).cast() }
    }

    /// The scale of a group.
    ///
    /// # Safety
    /// Row and group exist.
    #[inline(always)]
    pub(super) unsafe fn scale(self, row: usize, group: usize) -> f32 {
        // SAFETY: by the caller's promise.
        unsafe { self.word(row, 0, self.first + group) }
    }

    /// The scaled sum of a group.
    ///
    /// # Safety
    /// Row and group exist.
    #[inline(always)]
    pub(super) unsafe fn sum(self, row: usize, group: usize) -> f32 {
        // SAFETY: by the caller's promise.
        unsafe { self.word(row, 1, self.first + group) }
    }

    /// The negated sum of the codes of a group (`parts` 1) or of one of its halves (`parts` 2).
    ///
    /// # Safety
    /// Row, group and part exist.
    #[inline(always)]
    pub(super) unsafe fn negated(self, row: usize, group: usize, parts: usize, part: usize) -> i32 {
        let at = self.first + group;
        // SAFETY: by the caller's promise.
        unsafe { self.word(row, 1 + parts, at * parts + part) }
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
    let limit = FINE * FINE * (sum_squares(isa, x, 0.0) / x.len() as f32);
    let (coarse, rest) = out.split_at_mut(layer_bytes(x.len()));
    let (fine, mask) = rest.split_at_mut(layer_bytes(x.len()));
    mask.fill(0);
    for (group, x) in x.chunks_exact(GROUP).enumerate() {
        let (scale, max) = range(isa, x);
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        put_group(isa, Coarse(inverse), x, scale, coarse, group);
        if max * max > limit {
            put_group(isa, Fine(inverse), x, scale * (1.0 / FINE_STEPS), fine, group);
            mask[group / CHUNK] |= 1 << (group % CHUNK);
        }
    }
}

/// The coarse scale of a group, and its largest magnitude.
#[inline(always)]
fn range<I: Isa>(isa: I, x: &[f32]) -> (f32, f32) {
    let (mut max, mut poison) = (isa.zero(), isa.zero());
    for x in x.chunks_exact(I::LANES) {
        let x = isa.load(x);
        max = isa.max(isa.abs(x), max);
        poison = isa.fma(x, isa.zero(), poison);
    }
    let max = isa.reduce_max(max);
    // NaN and infinity times zero are NaN, and stay.
    let scale = max * (1.0 / 127.0) + isa.reduce_sum(poison);
    (if scale < f32::MIN_POSITIVE { 0.0 } else { scale }, max)
}

/// How values become codes.
trait Coder: Copy {
    fn code<I: Isa>(self, isa: I, x: I::F32) -> I::I32;
}

/// The nearest multiple of the scale whose inverse this is.
#[derive(Clone, Copy)]
struct Coarse(f32);

impl Coder for Coarse {
    #[inline(always)]
    fn code<I: Isa>(self, isa: I, x: I::F32) -> I::I32 {
        isa.to_i32(isa.mul(x, isa.splat(self.0)))
    }
}

/// What [`Coarse`] rounds off, in fine steps.
#[derive(Clone, Copy)]
struct Fine(f32);

impl Coder for Fine {
    #[inline(always)]
    fn code<I: Isa>(self, isa: I, x: I::F32) -> I::I32 {
        let coarse = isa.to_f32(Coarse(self.0).code(isa, x));
        let rest = isa.fma(x, isa.splat(self.0), isa.neg(coarse));
        isa.to_i32(isa.mul(rest, isa.splat(FINE_STEPS)))
    }
}

/// Writes codes, scale and sums of a group into its layer.
#[inline(always)]
fn put_group<I: Isa>(isa: I, coder: impl Coder, x: &[f32], scale: f32, layer: &mut [u8], group: usize) {
    let groups = layer.len() / (GROUP + 20);
    let (codes, words) = layer.split_at_mut(groups * GROUP);
    let halves = put_codes(isa, coder, x, &mut codes[group * GROUP..(group + 1) * GROUP]);
    let sum = halves[0].wrapping_add(halves[1]);
    put(words, group, scale.to_le_bytes());
    put(words, groups + group, (scale * sum as f32).to_le_bytes());
    put(words, 2 * groups + group, sum.wrapping_neg().to_le_bytes());
    put(words, 3 * groups + 2 * group, halves[0].wrapping_neg().to_le_bytes());
    put(words, 3 * groups + 2 * group + 1, halves[1].wrapping_neg().to_le_bytes());
}

#[inline(always)]
fn put(words: &mut [u8], index: usize, word: [u8; 4]) {
    words[4 * index..4 * index + 4].copy_from_slice(&word);
}

/// Writes the codes of 32 values; returns the sums of both halves.
#[inline(always)]
fn put_codes<I: Isa>(isa: I, coder: impl Coder, x: &[f32], codes: &mut [u8]) -> [i32; 2] {
    let mut sums = [0; 2];
    for (half, sum) in sums.iter_mut().enumerate() {
        let mut total = isa.zero();
        for at in (half * 16..half * 16 + 16).step_by(I::LANES) {
            let code = coder.code(isa, isa.load(&x[at..]));
            total = isa.add(total, isa.to_f32(code));
            // SAFETY: `codes` has 32 bytes, of which LANES follow `at`.
            unsafe { isa.store_i8_ptr(code, codes[at..at + I::LANES].as_mut_ptr().cast()) };
        }
        *sum = isa.reduce_sum(total) as i32;
    }
    sums
}
