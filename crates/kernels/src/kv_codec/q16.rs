//! Q16: signed 16-bit codes, two by two in words of 32 bits, with one float scale for each row.
//!
//! Products of codes are summed in 32-bit integers, which never overflow. Codes of a key have a Euclidean norm of at most
//! [`KEY_NORM`], those of a query [`QUERY_NORM`], so that by Cauchy and Schwarz no sum of their products exceeds the product
//! of the norms; rounding adds half the root of their count to each, at most 64. Codes of a value are at most [`MOST`], and
//! weights of a batch sum to at most [`WEIGHT_SUM`], to which rounding adds half their count, at most 32. A row with an
//! infinity or a NaN has a scale of NaN.

use kinglet_simd::Isa;

use super::Rows;
use crate::kv::{GROUP, HeadPage};

/// The largest code.
const MOST: f32 = 32_767.0;
/// The norm of a key's codes before they are rounded.
const KEY_NORM: f32 = 32_700.0;
/// The norm of a query's codes, at most, before they are rounded.
const QUERY_NORM: f32 = 65_400.0;
/// The sum of the codes of a batch's weights, at most, before they are rounded.
const WEIGHT_SUM: f32 = 65_400.0;
/// Rows of no greater element count as zeros: the inverse of their scale would overflow.
const TINY: f32 = 1e-30;
/// Pairs of tokens in a group.
const PAIRS: usize = GROUP / 2;

impl Rows {
    /// Words of a key.
    #[inline(always)]
    fn key_words(&self) -> usize {
        self.dim.div_ceil(2)
    }

    /// Bytes of a group of values.
    #[inline(always)]
    pub(super) fn q16_values_bytes(&self) -> usize {
        (self.padded() * PAIRS + GROUP) * size_of::<u32>()
    }

    /// The scales of a group of keys that starts at `group`, token by token.
    #[inline(always)]
    pub(crate) fn q16_key_scales(&self, group: *const u8) -> *const f32 {
        group.cast::<f32>().wrapping_add(self.key_words() * GROUP)
    }

    /// The scales of the group of values of token `at`, token by token.
    #[inline(always)]
    pub(crate) fn q16_value_scales(&self, page: HeadPage, at: usize) -> *const f32 {
        page.values
            .wrapping_add(at / GROUP * self.q16_values_bytes())
            .cast::<f32>()
            .wrapping_add(self.padded() * PAIRS)
    }

    /// # Safety
    /// As for `store_key`; `group` is the start of the token's group.
    #[inline(always)]
    pub(super) unsafe fn store_q16_key<I: Isa>(&self, isa: I, x: &[f32], group: *mut u8, lane: usize) {
        let scale = Extent::of(isa, x).of_norm(KEY_NORM);
        let (words, mut at) = (group.cast::<[u16; 2]>(), lane);
        for x in x.chunks(GROUP) {
            let codes = codes(isa, x, inverse(scale));
            for word in codes.as_chunks::<2>().0.iter().take(x.len().div_ceil(2)) {
                // SAFETY: one word of each key in the group.
                unsafe { words.add(at).write(*word) };
                at += GROUP;
            }
        }
        // SAFETY: the scales lie behind the words.
        unsafe { words.add(at).cast::<f32>().write(scale) };
    }

    /// # Safety
    /// As for `store_value`.
    #[inline(always)]
    pub(super) unsafe fn store_q16_value<I: Isa>(&self, isa: I, x: &[f32], page: HeadPage, at: usize) {
        let (group, lane) = (page.values.wrapping_add(at / GROUP * self.q16_values_bytes()), at % GROUP);
        let scale = Extent::of(isa, x).of_most();
        // Two tokens share words, which different workers may write: halves are written one by one.
        let halves = group.cast::<u16>().wrapping_add(lane / 2 * self.padded() * 2 + lane % 2);
        for (i, x) in x.chunks(GROUP).enumerate() {
            let codes = codes(isa, x, inverse(scale));
            for (d, code) in codes.iter().enumerate() {
                // SAFETY: rows are padded to whole groups of elements.
                unsafe { halves.add((i * GROUP + d) * 2).write(*code) };
            }
        }
        // SAFETY: the scales lie behind the words.
        unsafe { self.q16_value_scales(page, at).cast_mut().add(lane).write(scale) };
    }

    /// # Safety
    /// `source` is a group of keys; `out` has room for `dim * GROUP` floats.
    #[inline(always)]
    pub(super) unsafe fn load_q16_keys<I: Isa>(&self, isa: I, source: *const u8, out: *mut f32) {
        let scales = self.q16_key_scales(source);
        for lane in (0..GROUP).step_by(I::LANES) {
            for d in 0..self.dim {
                // SAFETY: within the group.
                unsafe {
                    let words = isa.load_i32_ptr(source.cast::<i32>().add(d / 2 * GROUP + lane));
                    let x = isa.mul(half(isa, words, d % 2), isa.load_ptr(scales.add(lane)));
                    isa.store_ptr(x, out.add(d * GROUP + lane));
                }
            }
        }
    }

    /// # Safety
    /// The tokens are in the page; `out` has room for them.
    #[inline(always)]
    pub(super) unsafe fn load_q16_values<I: Isa>(
        &self,
        isa: I,
        page: HeadPage,
        first: usize,
        count: usize,
        out: *mut f32,
    ) {
        for t in 0..count {
            let at = first + t;
            let group = page.values.wrapping_add(at / GROUP * self.q16_values_bytes()).cast::<i32>();
            // SAFETY: the token is in the page.
            unsafe {
                let scale = isa.splat(*self.q16_value_scales(page, at).add(at % GROUP));
                for d in (0..self.padded()).step_by(I::LANES) {
                    let words = isa.load_i32_ptr(group.add(at % GROUP / 2 * self.padded() + d));
                    isa.store_ptr(isa.mul(half(isa, words, at % 2), scale), out.add(t * self.padded() + d));
                }
            }
        }
    }
}

/// Makes words of a query in the first part of its memory, and returns their scale.
#[inline(always)]
pub(crate) fn query_words<I: Isa>(isa: I, q: &mut [f32]) -> f32 {
    let extent = Extent::of(isa, q);
    // One large element must not exceed a code.
    let scale = extent.of_norm(QUERY_NORM).max(extent.of_most());
    let scale = if extent.root.is_nan() { f32::NAN } else { scale };
    narrow(isa, q, inverse(scale));
    scale
}

/// Makes codes of numbers, one behind the other in the first half of their memory; zero behind an odd count.
#[inline(always)]
pub(crate) fn narrow<I: Isa>(isa: I, numbers: &mut [f32], inverse: f32) {
    let inverse = isa.splat(inverse);
    let (whole, start) = (numbers.len() / I::LANES * I::LANES, numbers.as_mut_ptr());
    for at in (0..whole).step_by(I::LANES) {
        // SAFETY: a code is written where a number was read, or before it.
        unsafe {
            let codes = isa.to_i32(isa.mul(isa.load_ptr(start.add(at)), inverse));
            isa.store_u16_ptr(codes, start.cast::<u16>().add(at));
        }
    }
    let rest = numbers.len() - whole;
    if rest > 0 {
        let mut codes = [0; GROUP];
        // SAFETY: as above; a code more than there are numbers has room where there is one number at least.
        unsafe {
            let last = isa.to_i32(isa.mul(isa.load_part_ptr(start.add(whole), rest), inverse));
            isa.store_i32_ptr(last, codes.as_mut_ptr());
            for (i, code) in codes.iter().enumerate().take(rest.next_multiple_of(2)) {
                start.cast::<u16>().add(whole + i).write(*code as u16);
            }
        }
    }
}

/// The scales of the codes of batches of weights with these sums and these greatest ones.
#[inline(always)]
pub(crate) fn weight_scale<I: Isa>(isa: I, sum: I::F32, max: I::F32) -> I::F32 {
    let (whole, most) = (isa.mul(sum, isa.splat(1.0 / WEIGHT_SUM)), isa.mul(max, isa.splat(1.0 / MOST)));
    // Not `max`: a NaN stays one.
    isa.select(isa.lt(whole, most), most, whole)
}

/// One over scales; zero for none.
#[inline(always)]
pub(crate) fn inverse_each<I: Isa>(isa: I, scale: I::F32) -> I::F32 {
    let none = isa.lt(scale, isa.splat(TINY / QUERY_NORM));
    isa.select(none, isa.zero(), isa.div(isa.splat(1.0), scale))
}

/// How large the elements of a row are.
struct Extent {
    /// The greatest, without its sign.
    max: f32,
    /// The norm in units of `max`; NaN when an element is one, or infinite.
    root: f32,
}

impl Extent {
    #[inline(always)]
    fn of<I: Isa>(isa: I, x: &[f32]) -> Self {
        let mut max = isa.zero();
        for x in x.chunks(I::LANES) {
            max = isa.max(isa.abs(isa.load_part(x)), max);
        }
        let max = isa.reduce_max(max);
        let (unit, mut squares) = (isa.splat(inverse(max)), isa.zero());
        for x in x.chunks(I::LANES) {
            let x = isa.mul(isa.load_part(x), unit);
            squares = isa.fma(x, x, squares);
        }
        Self { max, root: isa.reduce_sum(squares).sqrt() }
    }

    /// The scale that gives codes this norm.
    #[inline(always)]
    fn of_norm(&self, norm: f32) -> f32 {
        self.max * self.root * (1.0 / norm)
    }

    /// The scale that makes the greatest code [`MOST`].
    #[inline(always)]
    fn of_most(&self) -> f32 {
        if self.root.is_nan() { f32::NAN } else { self.max * (1.0 / MOST) }
    }
}

/// One over a scale; zero for none.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale < TINY / QUERY_NORM { 0.0 } else { 1.0 / scale }
}

/// Codes of at most [`GROUP`] elements, zeros behind them.
#[inline(always)]
fn codes<I: Isa>(isa: I, x: &[f32], inverse: f32) -> [u16; GROUP] {
    let (mut codes, inverse) = ([0; GROUP], isa.splat(inverse));
    for (x, codes) in x.chunks(I::LANES).zip(codes.chunks_exact_mut(I::LANES)) {
        // SAFETY: the chunk is a whole vector.
        unsafe { isa.store_u16_ptr(isa.to_i32(isa.mul(isa.load_part(x), inverse)), codes.as_mut_ptr()) };
    }
    codes
}

/// The low (0) or high (1) codes of words, as floats.
#[inline(always)]
fn half<I: Isa>(isa: I, words: I::I32, half: usize) -> I::F32 {
    isa.to_f32(isa.sar_i32(isa.shl_i32(words, 16 - 16 * half as u32), 16))
}
