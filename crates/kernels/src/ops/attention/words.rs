//! What keys, values and weights are multiplied as: 32-bit *words*, each a float, or two 16-bit codes.

use kinglet_simd::Isa;

use super::tile::BATCH;
use crate::kv::HeadPage;
use crate::kv_codec::Rows;
use crate::kv_codec::q16::{inverse, narrow, query_words, weight_scale};

/// A kind of word. Implementations are `#[inline(always)]`.
pub(super) trait Words: Copy {
    /// Numbers in a word.
    const NUMBERS: usize;
    /// Whether keys and values have scales of their own.
    const SCALED: bool;
    /// Sums of products of words, one in each lane.
    type Sum<I: Isa>: Copy;

    fn zero<I: Isa>(isa: I) -> Self::Sum<I>;

    /// `sum` plus the products of the numbers of `a` and `b`, lane by lane.
    fn multiply_add<I: Isa>(isa: I, a: I::I32, b: I::I32, sum: Self::Sum<I>) -> Self::Sum<I>;

    /// Where sums start that are added to the floats at `from`.
    ///
    /// # Safety
    /// `from` is valid for reading a vector.
    unsafe fn begin<I: Isa>(isa: I, from: *const f32) -> Self::Sum<I>;

    /// Leaves at `to` what was there at the beginning and the products, which have this scale.
    ///
    /// # Safety
    /// `to` is valid for reading and writing a vector.
    unsafe fn end<I: Isa>(isa: I, sum: Self::Sum<I>, scale: f32, to: *mut f32);

    /// Makes words of a scaled query in the first part of its memory; returns the query's scale.
    fn query<I: Isa>(isa: I, q: &mut [f32]) -> f32;

    /// Scores: sums of products of a query of this scale and keys of a group, those of lanes from `lane` on.
    ///
    /// # Safety
    /// `keys` are those of a group, as [`keys`](Self::keys) gave them.
    unsafe fn scores<I: Isa>(
        isa: I,
        sum: Self::Sum<I>,
        query: f32,
        rows: Rows,
        keys: *const u8,
        lane: usize,
    ) -> I::F32;

    /// Makes words of weights, whole batches of numbers that are not negative, each batch in the first part of its memory;
    /// `values` are the scales of what they weigh. Returns the sum of weights, in an order that whole batches of zeros before
    /// and behind do not change, and leaves in `scales` the scale of each batch's sums of products.
    fn weights<I: Isa>(isa: I, row: &mut [f32], values: &[f32], scales: &mut [f32]) -> f32;

    /// The words of the keys of a group, `[words][GROUP]`: where they lie, or in `room`.
    ///
    /// # Safety
    /// As for [`Rows::keys`].
    unsafe fn keys<I: Isa>(isa: I, rows: Rows, page: HeadPage, group: usize, room: *mut f32) -> *const u8;

    /// The words of the values of the first `count` tokens of the group that starts at `at`, `[words][padded]`: where they
    /// lie, or in `room`.
    ///
    /// # Safety
    /// As for [`Rows::values`].
    unsafe fn values<I: Isa>(
        isa: I,
        rows: Rows,
        page: HeadPage,
        at: usize,
        count: usize,
        room: *mut f32,
    ) -> *const u8;
}

/// A float: for everything that is stored as floats, or made floats first.
#[derive(Clone, Copy)]
pub(super) struct Float;

impl Words for Float {
    const NUMBERS: usize = 1;
    const SCALED: bool = false;
    type Sum<I: Isa> = I::F32;

    #[inline(always)]
    fn zero<I: Isa>(isa: I) -> I::F32 {
        isa.zero()
    }

    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::I32, b: I::I32, sum: I::F32) -> I::F32 {
        isa.fma(isa.float_of_bits(a), isa.float_of_bits(b), sum)
    }

    #[inline(always)]
    unsafe fn begin<I: Isa>(isa: I, from: *const f32) -> I::F32 {
        // SAFETY: by the caller's promise.
        unsafe { isa.load_ptr(from) }
    }

    #[inline(always)]
    unsafe fn end<I: Isa>(isa: I, sum: I::F32, _: f32, to: *mut f32) {
        // SAFETY: by the caller's promise.
        unsafe { isa.store_ptr(sum, to) }
    }

    #[inline(always)]
    fn query<I: Isa>(_: I, _: &mut [f32]) -> f32 {
        1.0
    }

    #[inline(always)]
    unsafe fn scores<I: Isa>(_: I, sum: I::F32, _: f32, _: Rows, _: *const u8, _: usize) -> I::F32 {
        sum
    }

    #[inline(always)]
    fn weights<I: Isa>(isa: I, row: &mut [f32], _: &[f32], _: &mut [f32]) -> f32 {
        let mut sum = isa.zero();
        for weights in row.chunks_exact(I::LANES) {
            sum = isa.add(sum, isa.load(weights));
        }
        isa.reduce_sum(sum)
    }

    #[inline(always)]
    unsafe fn keys<I: Isa>(isa: I, rows: Rows, page: HeadPage, group: usize, room: *mut f32) -> *const u8 {
        // SAFETY: by the caller's promise.
        unsafe { rows.keys(isa, page, group, room) }.cast()
    }

    #[inline(always)]
    unsafe fn values<I: Isa>(
        isa: I,
        rows: Rows,
        page: HeadPage,
        at: usize,
        count: usize,
        room: *mut f32,
    ) -> *const u8 {
        // SAFETY: by the caller's promise.
        unsafe { rows.values(isa, page, at, count, room) }.cast()
    }
}

/// Two 16-bit codes, the first in the low half, of keys and values in Q16. Sums are of integers, hence exact.
#[derive(Clone, Copy)]
pub(super) struct Codes;

impl Words for Codes {
    const NUMBERS: usize = 2;
    const SCALED: bool = true;
    type Sum<I: Isa> = I::I32;

    #[inline(always)]
    fn zero<I: Isa>(isa: I) -> I::I32 {
        isa.splat_i32(0)
    }

    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::I32, b: I::I32, sum: I::I32) -> I::I32 {
        isa.dot_i16(sum, a, b)
    }

    #[inline(always)]
    unsafe fn begin<I: Isa>(isa: I, _: *const f32) -> I::I32 {
        Self::zero(isa)
    }

    #[inline(always)]
    unsafe fn end<I: Isa>(isa: I, sum: I::I32, scale: f32, to: *mut f32) {
        // SAFETY: by the caller's promise.
        unsafe { isa.store_ptr(isa.fma(isa.to_f32(sum), isa.splat(scale), isa.load_ptr(to)), to) }
    }

    #[inline(always)]
    fn query<I: Isa>(isa: I, q: &mut [f32]) -> f32 {
        query_words(isa, q)
    }

    #[inline(always)]
    unsafe fn scores<I: Isa>(
        isa: I,
        sum: I::I32,
        query: f32,
        rows: Rows,
        keys: *const u8,
        lane: usize,
    ) -> I::F32 {
        // SAFETY: by the caller's promise, `keys` lie where they are stored, with their scales.
        let scales = unsafe { isa.load_ptr(rows.q16_key_scales(keys).add(lane)) };
        isa.mul(isa.to_f32(sum), isa.mul(scales, isa.splat(query)))
    }

    #[inline(always)]
    fn weights<I: Isa>(isa: I, row: &mut [f32], values: &[f32], scales: &mut [f32]) -> f32 {
        let mut total = isa.zero();
        for ((row, values), scale) in row.chunks_exact_mut(BATCH).zip(values.chunks_exact(BATCH)).zip(scales)
        {
            let batch = scaled(isa, row, values, total);
            (total, *scale) = (batch.total, batch.scale);
            narrow(isa, row, inverse(batch.scale));
        }
        isa.reduce_sum(total)
    }

    #[inline(always)]
    unsafe fn keys<I: Isa>(_: I, rows: Rows, page: HeadPage, group: usize, _: *mut f32) -> *const u8 {
        rows.stored_keys(page, group).0
    }

    #[inline(always)]
    unsafe fn values<I: Isa>(
        _: I,
        rows: Rows,
        page: HeadPage,
        at: usize,
        _: usize,
        _: *mut f32,
    ) -> *const u8 {
        rows.stored_values(page, at).0
    }
}

/// What [`scaled`] finds.
struct Batch<V> {
    total: V,
    /// That of the codes to come.
    scale: f32,
}

/// Multiplies a batch of weights by the scales of the values that they weigh, and adds them to `total` before.
#[inline(always)]
fn scaled<I: Isa>(isa: I, row: &mut [f32], values: &[f32], mut total: I::F32) -> Batch<I::F32> {
    let (zero, mut sum, mut max) = (isa.zero(), isa.zero(), isa.zero());
    for (weights, values) in row.chunks_exact_mut(I::LANES).zip(values.chunks_exact(I::LANES)) {
        let weight = isa.load(weights);
        // A value that is not seen may have any scale.
        let scaled = isa.select(isa.eq(weight, zero), zero, isa.mul(weight, isa.load(values)));
        total = isa.add(total, weight);
        sum = isa.add(sum, scaled);
        max = isa.max(scaled, max);
        isa.store(scaled, weights);
    }
    Batch { total, scale: weight_scale(isa.reduce_sum(sum), isa.reduce_max(max)) }
}
