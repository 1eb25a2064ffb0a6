//! Activations in 8 bits: each 32 columns of a row share one scale.
//!
//! ```text
//! row   [codes: i8 x cols][scale: f32 x groups][scale * sum: f32 x groups][-sum: i32 x groups][-sum of 16: i32 x 2 groups]
//! ```
//!
//! `code = round(x * (127 / max|x|))`, to nearest, halves to even; `x` is within `scale * 0.501` of `scale * code`.
//! Groups whose scale would not be a normal float are all zero; NaN and infinity make their group's products NaN.
//! The sums serve minima and zero points.

use kinglet_simd::{Isa, Kernel, Level, dispatch};

use super::stream::GROUP;

/// Bytes of a quantised row of `cols` columns, a multiple of 4.
pub const fn quant_row_bytes(cols: usize) -> usize {
    let groups = cols / GROUP;
    cols + groups * 20
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

    /// Code and scale of one value, for tests and traces.
    pub fn value(&self, row: usize, col: usize) -> (i8, f32) {
        let row = &self.bytes[row * quant_row_bytes(self.cols)..];
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
    let groups = x.len() / GROUP;
    let (codes, words) = out.split_at_mut(x.len());
    for (group, (x, codes)) in x.chunks_exact(GROUP).zip(codes.chunks_exact_mut(GROUP)).enumerate() {
        let (scale, halves) = quantize_group(isa, x, codes);
        let sum = halves[0].wrapping_add(halves[1]);
        put(words, group, scale.to_le_bytes());
        put(words, groups + group, (scale * sum as f32).to_le_bytes());
        put(words, 2 * groups + group, sum.wrapping_neg().to_le_bytes());
        put(words, 3 * groups + 2 * group, halves[0].wrapping_neg().to_le_bytes());
        put(words, 3 * groups + 2 * group + 1, halves[1].wrapping_neg().to_le_bytes());
    }
}

#[inline(always)]
fn put(words: &mut [u8], index: usize, word: [u8; 4]) {
    words[4 * index..4 * index + 4].copy_from_slice(&word);
}

/// Codes of 32 values, their scale, and the sums of both halves.
#[inline(always)]
fn quantize_group<I: Isa>(isa: I, x: &[f32], codes: &mut [u8]) -> (f32, [i32; 2]) {
    let (mut max, mut poison) = (isa.zero(), isa.zero());
    for x in x.chunks_exact(I::LANES) {
        let x = isa.load(x);
        max = isa.max(isa.abs(x), max);
        poison = isa.fma(x, isa.zero(), poison);
    }
    // NaN and infinity times zero are NaN, and stay.
    let scale = isa.reduce_max(max) * (1.0 / 127.0) + isa.reduce_sum(poison);
    let scale = if scale < f32::MIN_POSITIVE { 0.0 } else { scale };
    let inverse = isa.splat(if scale > 0.0 { 1.0 / scale } else { 0.0 });
    let mut sums = [0; 2];
    for (half, sum) in sums.iter_mut().enumerate() {
        let mut total = isa.zero();
        for at in (half * 16..half * 16 + 16).step_by(I::LANES) {
            let code = isa.to_i32(isa.mul(isa.load(&x[at..]), inverse));
            total = isa.add(total, isa.to_f32(code));
            // SAFETY: `codes` has 32 bytes, of which LANES follow `at`.
            unsafe { isa.store_i8_ptr(code, codes[at..at + I::LANES].as_mut_ptr().cast()) };
        }
        *sum = isa.reduce_sum(total) as i32;
    }
    (scale, sums)
}
