//! What keys, values and weights are multiplied as: 32-bit *words*, each a float, or two 16-bit codes.

use kinglet_simd::{Isa, MAX_LANES};

use super::block::CHUNK;
use super::state::NONE;
use super::tile::{BATCH, BATCHES};
use crate::kv::{GROUP, HeadPage};
use crate::kv_codec::Rows;
use crate::kv_codec::q16::{inverse_each, narrow, query_words, weight_scale};
use crate::ops::vec::{Add, Max, exp2, fold_each};

/// A kind of word. Implementations are `#[inline(always)]`.
pub(super) trait Words: Copy {
    /// Numbers in a word.
    const NUMBERS: usize;
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

    /// Copies the scales of the values of the group that starts at `at`, if they have some.
    ///
    /// # Safety
    /// As for [`Rows::values`].
    unsafe fn value_scales(rows: Rows, page: HeadPage, at: usize, to: &mut [f32]);

    /// Makes words of weights of all rows. Sums of weights are in an order that whole batches of zeros before and behind do not
    /// change.
    fn weights<I: Isa>(isa: I, rows: Weighing<'_>);

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

/// Some rows of scores that become weights: `2^(score - max)`, or zero where the score is [`NONE`].
pub(super) struct Weighing<'a> {
    /// Scores, `[rows][CHUNK]`, then words of weights, those of each batch in the first part of its memory.
    pub(super) scores: &'a mut [f32],
    /// Scores of a row, whole batches.
    pub(super) len: usize,
    /// The scales of what they weigh.
    pub(super) values: &'a [f32],
    /// Each row's largest score.
    pub(super) max: &'a [f32],
    /// Receives each row's sum of weights.
    pub(super) total: &'a mut [f32],
    /// Receives the scales of sums of products, `[rows][BATCHES]`.
    pub(super) scales: &'a mut [f32],
}

impl Weighing<'_> {
    /// Rows that are best taken together: their batches fill the lanes of a vector.
    pub(super) const fn rows<I: Isa>() -> usize {
        if I::LANES < BATCHES { 1 } else { I::LANES / BATCHES }
    }
}

/// The weights of a vector of scores.
#[inline(always)]
fn weight<I: Isa>(isa: I, score: I::F32, max: I::F32) -> I::F32 {
    isa.select(isa.eq(score, isa.splat(NONE)), isa.zero(), exp2(isa, isa.sub(score, max)))
}

/// A float: for everything that is stored as floats, or made floats first.
#[derive(Clone, Copy)]
pub(super) struct Float;

impl Words for Float {
    const NUMBERS: usize = 1;
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
    unsafe fn value_scales(_: Rows, _: HeadPage, _: usize, _: &mut [f32]) {}

    #[inline(always)]
    fn weights<I: Isa>(isa: I, rows: Weighing<'_>) {
        let each = rows.scores.chunks_exact_mut(CHUNK).zip(rows.max).zip(rows.total);
        for ((scores, max), total) in each {
            let (max, mut sum) = (isa.splat(*max), isa.zero());
            for scores in scores[..rows.len].chunks_exact_mut(I::LANES) {
                let weight = weight(isa, isa.load(scores), max);
                sum = isa.add(sum, weight);
                isa.store(weight, scores);
            }
            *total = isa.reduce_sum(sum);
        }
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
    unsafe fn value_scales(rows: Rows, page: HeadPage, at: usize, to: &mut [f32]) {
        // SAFETY: by the caller's promise; pages hold whole groups.
        unsafe { rows.q16_value_scales(page, at).copy_to_nonoverlapping(to.as_mut_ptr(), GROUP) };
    }

    #[inline(always)]
    fn weights<I: Isa>(isa: I, mut rows: Weighing<'_>) {
        let each = scaled(isa, &mut rows);
        let scale = weight_scale(isa, fold_each(isa, Add, &each.sums), fold_each(isa, Max, &each.most));
        let (mut scales, mut inverses) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
        isa.store(scale, &mut scales);
        isa.store(inverse_each(isa, scale), &mut inverses);
        rows.scales.copy_from_slice(&scales[..rows.scales.len()]);
        for (scores, inverses) in rows.scores.chunks_exact_mut(CHUNK).zip(inverses.chunks_exact(BATCHES)) {
            for (batch, inverse) in scores[..rows.len].chunks_exact_mut(BATCH).zip(inverses) {
                narrow(isa, batch, *inverse);
            }
        }
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

/// What [`scaled`] finds of each batch of each row, [`BATCHES`] to a row.
struct Each<V> {
    /// Lanes that add up to the sum of its scaled weights.
    sums: [V; MAX_LANES],
    /// Lanes of which the largest is its largest scaled weight.
    most: [V; MAX_LANES],
}

/// Makes weights of scores, multiplied by the scales of the values that they weigh; leaves the sums of weights before that.
#[inline(always)]
fn scaled<I: Isa>(isa: I, rows: &mut Weighing<'_>) -> Each<I::F32> {
    let (zero, none) = (isa.zero(), isa.splat(NONE));
    let mut each = Each { sums: [zero; MAX_LANES], most: [zero; MAX_LANES] };
    for (r, scores) in rows.scores.chunks_exact_mut(CHUNK).enumerate() {
        let (max, mut total) = (isa.splat(rows.max[r]), zero);
        let batches = scores[..rows.len].chunks_exact_mut(BATCH).zip(rows.values.chunks_exact(BATCH));
        for (b, (scores, values)) in batches.enumerate() {
            let (mut sum, mut most) = (zero, zero);
            for (scores, values) in scores.chunks_exact_mut(I::LANES).zip(values.chunks_exact(I::LANES)) {
                let score = isa.load(scores);
                let weight = exp2(isa, isa.sub(score, max));
                // A value that is not seen may have any scale.
                let unseen = isa.eq(score, none);
                let scaled = isa.select(unseen, zero, isa.mul(weight, isa.load(values)));
                total = isa.add(total, isa.select(unseen, zero, weight));
                sum = isa.add(sum, scaled);
                most = isa.max(scaled, most);
                isa.store(scaled, scores);
            }
            (each.sums[r * BATCHES + b], each.most[r * BATCHES + b]) = (sum, most);
        }
        rows.total[r] = isa.reduce_sum(total);
    }
    each
}
