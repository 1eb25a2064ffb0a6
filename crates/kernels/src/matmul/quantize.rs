//! Quantises rows, as [`super::rows`] lays them out: as many groups at a time as a vector has lanes, so that what is one
//! number for each group (scales, their inverses, sums) is computed for all of them at once.
#![allow(clippy::needless_range_loop, reason = "groups of a batch are indexed alike")]

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, Level, MAX_LANES, dispatch};

use super::rows::{GROUP_BYTES, SCALE, UPPER, WIDE, quant_row_bytes};
use super::stream::{CHUNK, GROUP};
use crate::ops::vec::{Add, Max, fold_four, fold_fours, sum_squares};

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
    let groups = x.len() / GROUP;
    assert!(
        x.len().is_multiple_of(GROUP) && out.len() == quant_row_bytes(x.len()),
        "room for {} values",
        x.len()
    );
    let parts = out.as_mut_ptr();
    let upper = parts.wrapping_add(groups * GROUP_BYTES);
    let steps = upper.wrapping_add(x.len());
    let wide = steps.wrapping_add(groups);
    // SAFETY: the row has a mark for each chunk of groups.
    unsafe { wide.write_bytes(0, groups.div_ceil(CHUNK)) };
    let row = Row {
        x: x.as_ptr(),
        limit: if squares.is_finite() { WIDE * (squares / x.len() as f32).sqrt() } else { f32::INFINITY },
        finite: squares.is_finite(),
        parts,
        upper,
        steps,
    };
    let mut first = 0;
    while first < groups {
        let count = I::LANES.min(groups - first);
        // SAFETY: the row has these groups.
        let found = unsafe { row.quantize(isa, first, count) };
        let marks = found << (first % CHUNK);
        for chunk in 0..(first % CHUNK + count).div_ceil(CHUNK) {
            // SAFETY: as above.
            unsafe { *wide.add(first / CHUNK + chunk) |= (marks >> (chunk * CHUNK)) as u8 };
        }
        first += I::LANES;
    }
}

/// One number for each group of a batch, in the lanes of a vector.
type Each<I> = <I as Isa>::F32;

/// A row, and where its parts go.
#[derive(Clone, Copy)]
struct Row {
    x: *const f32,
    /// What is larger is wide.
    limit: f32,
    /// Whether the row has neither NaN nor infinity, nor squares that add up to it.
    finite: bool,
    parts: *mut u8,
    upper: *mut u8,
    steps: *mut u8,
}

impl Row {
    /// Writes `count` groups from `first` on; returns which have wide values, as bits.
    ///
    /// # Safety
    /// They exist, and are at most as many as a vector has lanes.
    #[inline(always)]
    unsafe fn quantize<I: Isa>(self, isa: I, first: usize, count: usize) -> u32 {
        let batch = Self {
            x: self.x.wrapping_add(first * GROUP),
            parts: self.parts.wrapping_add(first * GROUP_BYTES),
            upper: self.upper.wrapping_add(first * GROUP),
            steps: self.steps.wrapping_add(first),
            ..self
        };
        // SAFETY: by the caller's promise.
        unsafe {
            let (max, usual) = batch.largest(isa, count);
            // Upper codes have eight bits as well.
            let part = isa.mul(max, isa.splat(1.0 / 127.0));
            let scale = isa.mul(isa.max(part, usual), isa.splat(1.0 / 127.0));
            let scale = isa.select(isa.lt(scale, isa.splat(f32::MIN_POSITIVE)), isa.zero(), scale);
            let inverse = isa.div(isa.splat(1.0), scale);
            let inverse = isa.select(isa.lt(isa.zero(), scale), inverse, isa.zero());
            let (mut scales, mut inverses) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
            isa.store(scale, &mut scales);
            isa.store(inverse, &mut inverses);
            let codes = batch.put_groups(isa, &inverses, count);
            batch.put_words(isa, 0..count, [scale, codes, isa.zero()]);
            let found = isa.mask_bits(isa.lt(isa.splat(self.limit), max)) & ((1 << count) - 1);
            let mut left = found;
            while left != 0 {
                let g = left.trailing_zeros() as usize;
                let [codes, above] = batch.put_wide(isa, g, inverses[g]);
                batch.put_words(isa, g..g + 1, [isa.splat(scales[g]), codes, above]);
                left &= left - 1;
            }
            found
        }
    }

    /// The group of `count` that is number `i` of four number `n`, see [`fold_four`]: one that there is instead of one that
    /// there is not.
    #[inline(always)]
    fn group<I: Isa>(n: usize, i: usize, count: usize) -> usize {
        (n + i * (I::LANES / 4)).min(count - 1)
    }

    /// A vector of group `g`.
    #[inline(always)]
    unsafe fn load<I: Isa>(self, isa: I, g: usize, at: usize) -> I::F32 {
        // SAFETY: the caller vouches for the group, and `at` is within it.
        unsafe { isa.load_ptr(self.x.add(g * GROUP + at)) }
    }

    /// The largest magnitudes, and the largest that are not wide; both NaN for groups with NaN or infinity.
    #[inline(always)]
    unsafe fn largest<I: Isa>(self, isa: I, count: usize) -> (Each<I>, Each<I>) {
        let limit = isa.splat(self.limit);
        let (mut maxima, mut usuals) = ([isa.zero(); MAX_LANES / 4], [isa.zero(); MAX_LANES / 4]);
        for n in 0..count.min(I::LANES / 4) {
            let (mut max, mut usual) = ([isa.zero(); 4], [isa.zero(); 4]);
            for i in 0..4 {
                let g = Self::group::<I>(n, i, count);
                for at in (0..GROUP).step_by(I::LANES) {
                    // SAFETY: the group is one of the batch.
                    let x = isa.abs(unsafe { self.load(isa, g, at) });
                    max[i] = isa.max(x, max[i]);
                    usual[i] = isa.max(isa.select(isa.le(x, limit), x, isa.zero()), usual[i]);
                }
            }
            (maxima[n], usuals[n]) = (fold_four(isa, Max, max), fold_four(isa, Max, usual));
        }
        let (max, usual) = (fold_fours(isa, Max, maxima), fold_fours(isa, Max, usuals));
        if self.finite {
            return (max, usual);
        }
        // SAFETY: as above.
        let poison = unsafe { self.poison(isa, count) };
        (isa.add(max, poison), isa.add(usual, poison))
    }

    /// NaN for groups with NaN or infinity, else zero.
    #[inline(always)]
    unsafe fn poison<I: Isa>(self, isa: I, count: usize) -> Each<I> {
        let mut poison = [0.0; MAX_LANES];
        for g in 0..count {
            let mut sum = isa.zero();
            for at in (0..GROUP).step_by(I::LANES) {
                // SAFETY: the group is one of the batch.
                sum = isa.fma(unsafe { self.load(isa, g, at) }, isa.zero(), sum);
            }
            poison[g] = isa.reduce_sum(sum);
        }
        isa.load(&poison)
    }

    /// Writes the codes of all groups, as if none had wide values; returns their sums, [`APART`].
    #[inline(always)]
    unsafe fn put_groups<I: Isa>(self, isa: I, inverses: &[f32; MAX_LANES], count: usize) -> Each<I> {
        let mut fours = [isa.zero(); MAX_LANES / 4];
        for n in 0..count.min(I::LANES / 4) {
            let mut four = [isa.zero(); 4];
            for i in 0..4 {
                let g = Self::group::<I>(n, i, count);
                // SAFETY: the group is one of the batch.
                four[i] = unsafe { self.put_group(isa, g, inverses[g % MAX_LANES]) };
            }
            fours[n] = fold_four(isa, Add, four);
        }
        fold_fours(isa, Add, fours)
    }

    /// Writes the codes of a group without wide values; returns lanes that add up to their sums, [`APART`].
    #[inline(always)]
    unsafe fn put_group<I: Isa>(self, isa: I, g: usize, inverse: f32) -> I::F32 {
        let (inverse, mut halves) = (isa.splat(inverse), [isa.zero(); 2]);
        for at in (0..GROUP).step_by(I::LANES) {
            // SAFETY: the caller vouches for the group.
            unsafe {
                let code = isa.to_i32(isa.mul(self.load(isa, g, at), inverse));
                halves[at / 16] = isa.add(halves[at / 16], isa.to_f32(code));
                isa.store_i8_ptr(code, self.parts.add(g * GROUP_BYTES + at).cast());
            }
        }
        isa.fma(halves[1], isa.splat(APART as f32), halves[0])
    }

    /// Writes the codes of a group with wide values, its upper codes, and marks the steps that have some. Returns the sums of
    /// both in all lanes, that of codes as [`APART`] says.
    #[inline(always)]
    unsafe fn put_wide<I: Isa>(self, isa: I, g: usize, inverse: f32) -> [Each<I>; 2] {
        let (inverse, mut halves) = (isa.splat(inverse), [isa.zero(); 2]);
        let (mut above, mut steps) = (isa.zero(), 0);
        for at in (0..GROUP).step_by(I::LANES) {
            // SAFETY: the caller vouches for the group.
            unsafe {
                let whole = isa.to_f32(isa.to_i32(isa.mul(self.load(isa, g, at), inverse)));
                let high = isa.sub(beyond(isa, whole), beyond(isa, isa.neg(whole)));
                let code = isa.fma(high, isa.splat(-UPPER), whole);
                (halves[at / 16], above) = (isa.add(halves[at / 16], code), isa.add(above, high));
                isa.store_i8_ptr(isa.to_i32(code), self.parts.add(g * GROUP_BYTES + at).cast());
                isa.store_i8_ptr(isa.to_i32(high), self.upper.add(g * GROUP + at).cast());
                let lanes = isa.mask_bits(isa.lt(isa.zero(), isa.abs(high)));
                for step in 0..I::LANES / 4 {
                    steps |= u8::from(lanes >> (4 * step) & 0xf != 0) << (at / 4 + step);
                }
            }
        }
        // SAFETY: as above.
        unsafe { self.steps.add(g).write(steps) };
        let codes = isa.fma(halves[1], isa.splat(APART as f32), halves[0]);
        [isa.splat(isa.reduce_sum(codes)), isa.splat(isa.reduce_sum(above))]
    }

    /// Writes scales and sums of some groups: those of the first lanes. Sums are of codes, [`APART`], and of upper ones.
    #[inline(always)]
    unsafe fn put_words<I: Isa>(self, isa: I, groups: Range<usize>, [scale, codes, above]: [Each<I>; 3]) {
        let codes = isa.to_i32(codes);
        let second = isa.sar_i32(isa.add_i32(codes, isa.splat_i32(APART / 2)), APART.trailing_zeros());
        let first = isa.sub_i32(codes, isa.shl_i32(second, APART.trailing_zeros()));
        let sum = isa.add_i32(first, second);
        let whole = isa.fma(above, isa.splat(UPPER), isa.to_f32(sum));
        let none = isa.splat_i32(0);
        let [sum, first] =
            [isa.float_of_bits(isa.sub_i32(none, sum)), isa.float_of_bits(isa.sub_i32(none, first))];
        let (even, odd) = (isa.zip(scale, sum), isa.zip(isa.mul(scale, whole), first));
        let (low, high) = (isa.zip(even.0, odd.0), isa.zip(even.1, odd.1));
        let mut words = [[0.0f32; 4]; MAX_LANES];
        for (n, vector) in [low.0, low.1, high.0, high.1].into_iter().enumerate() {
            isa.store(vector, &mut words.as_flattened_mut()[n * I::LANES..]);
        }
        for (g, words) in groups.zip(words) {
            // SAFETY: the caller vouches for the group.
            unsafe { self.parts.add(g * GROUP_BYTES + SCALE).cast::<[f32; 4]>().write_unaligned(words) };
        }
    }
}

/// How far the sums of both halves of a group are kept apart in one float: sixteen codes sum up to less than half of it in
/// magnitude, and both to less than `2^24`.
const APART: i32 = 8192;

/// How many whole [`UPPER`] positive integers contain; zero for negative ones.
#[inline(always)]
fn beyond<I: Isa>(isa: I, whole: I::F32) -> I::F32 {
    // Less than half of it is taken off, so that the nearest is the one below.
    let above = isa.max(isa.sub(whole, isa.splat(0.5 * UPPER - 0.5)), isa.zero());
    isa.to_f32(isa.to_i32(isa.mul(above, isa.splat(1.0 / UPPER))))
}
