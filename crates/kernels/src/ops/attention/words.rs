//! What weights and values are made of while they are multiplied: 32-bit *words*, each a float, or two bfloat16 values of
//! positions that follow each other.

use std::marker::PhantomData;
use std::ops::Range;

use kinglet_simd::Isa;

use crate::kv::HeadPage;
use crate::kv_codec::{Rows, Stored, pair};

/// A kind of word. Implementations are `#[inline(always)]`.
pub(super) trait Words: Copy {
    /// Numbers in a word.
    const NUMBERS: usize;

    /// `acc` plus the products of the numbers of `a` and `b`, lane by lane.
    fn multiply_add<I: Isa>(isa: I, a: I::I32, b: I::I32, acc: I::F32) -> I::F32;

    /// Makes words of weights, which are a multiple of 32, in the first part of their row, and returns the sum of what they
    /// stand for, in an order that whole 32 zeros before and behind do not change.
    fn weights<I: Isa>(isa: I, row: &mut [f32]) -> f32;

    /// The words of the values of some tokens of a group, `[words][padded]`: where they lie, or in `room`.
    ///
    /// # Safety
    /// As for [`Rows::values`].
    unsafe fn values<I: Isa>(
        isa: I,
        rows: Rows,
        page: HeadPage,
        tokens: Range<usize>,
        room: *mut f32,
    ) -> *const u8;

    /// Columns `at..at + LANES` of the words that start at row `w * NUMBERS` of `rows` rows, `width` wide.
    ///
    /// # Safety
    /// The panel holds the rows, the word and the columns are among them.
    unsafe fn of_rows<I: Isa, S: Stored>(
        isa: I,
        panel: *const u8,
        shape: (usize, usize),
        w: usize,
        at: usize,
    ) -> I::I32;
}

/// How words of values lie in memory.
pub(super) trait Source: Copy {
    /// Whether that is how the state stores them.
    const IN_PLACE: bool;

    /// Columns `at..at + LANES` of word `w` of a panel of `rows` tokens, `width` wide. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// `panel` holds what the source says; the word and the columns are in it.
    unsafe fn word<I: Isa, W: Words>(
        isa: I,
        panel: *const u8,
        shape: (usize, usize),
        w: usize,
        at: usize,
    ) -> I::I32;
}

/// As words, `[words][width]`.
#[derive(Clone, Copy)]
pub(super) struct Ready;

impl Source for Ready {
    const IN_PLACE: bool = false;

    #[inline(always)]
    unsafe fn word<I: Isa, W: Words>(
        isa: I,
        panel: *const u8,
        (_, width): (usize, usize),
        w: usize,
        at: usize,
    ) -> I::I32 {
        // SAFETY: by the caller's promise.
        unsafe { isa.load_i32_ptr(panel.cast::<i32>().add(w * width + at)) }
    }
}

/// As they are stored, `[rows][width]`: words are made in registers.
#[derive(Clone, Copy)]
pub(super) struct InPlace<S>(PhantomData<S>);

impl<S: Stored> Source for InPlace<S> {
    const IN_PLACE: bool = true;

    #[inline(always)]
    unsafe fn word<I: Isa, W: Words>(
        isa: I,
        panel: *const u8,
        shape: (usize, usize),
        w: usize,
        at: usize,
    ) -> I::I32 {
        // SAFETY: by the caller's promise.
        unsafe { W::of_rows::<I, S>(isa, panel, shape, w, at) }
    }
}

/// A float.
#[derive(Clone, Copy)]
pub(super) struct Float;

impl Words for Float {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::I32, b: I::I32, acc: I::F32) -> I::F32 {
        isa.fma(isa.float_of_bits(a), isa.float_of_bits(b), acc)
    }

    #[inline(always)]
    fn weights<I: Isa>(isa: I, row: &mut [f32]) -> f32 {
        let mut sum = isa.zero();
        for weights in row.chunks_exact(I::LANES) {
            sum = isa.add(sum, isa.load(weights));
        }
        isa.reduce_sum(sum)
    }

    #[inline(always)]
    unsafe fn values<I: Isa>(
        isa: I,
        rows: Rows,
        page: HeadPage,
        tokens: Range<usize>,
        room: *mut f32,
    ) -> *const u8 {
        // SAFETY: by the caller's promise.
        unsafe { rows.values(isa, page, tokens.start, tokens.len(), room) }.cast()
    }

    #[inline(always)]
    unsafe fn of_rows<I: Isa, S: Stored>(
        isa: I,
        panel: *const u8,
        (_, width): (usize, usize),
        w: usize,
        at: usize,
    ) -> I::I32 {
        // SAFETY: by the caller's promise.
        unsafe { isa.bits_of(S::load(isa, panel, w * width + at)) }
    }
}

/// Two bfloat16 values, the first in the low half.
#[derive(Clone, Copy)]
pub(super) struct Pair;

impl Words for Pair {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::I32, b: I::I32, acc: I::F32) -> I::F32 {
        isa.dot_bf16(acc, a, b)
    }

    #[inline(always)]
    fn weights<I: Isa>(isa: I, row: &mut [f32]) -> f32 {
        let start = row.as_mut_ptr();
        let (mut sum, ones) = (isa.zero(), isa.splat_i32(0x3f80_3f80));
        // SAFETY: words are written where numbers were read before, two vectors to one.
        unsafe {
            for at in (0..row.len() / (2 * I::LANES) * I::LANES).step_by(I::LANES) {
                let numbers = start.add(2 * at);
                let [first, second] = [isa.load_ptr(numbers), isa.load_ptr(numbers.add(I::LANES))];
                let word = start.add(at);
                isa.store_bf16_ptr(first, word.cast());
                isa.store_bf16_ptr(second, word.cast::<u16>().add(I::LANES));
                sum = isa.dot_bf16(sum, isa.load_i32_ptr(word.cast()), ones);
            }
        }
        isa.reduce_sum(sum)
    }

    #[inline(always)]
    unsafe fn values<I: Isa>(
        isa: I,
        rows: Rows,
        page: HeadPage,
        tokens: Range<usize>,
        room: *mut f32,
    ) -> *const u8 {
        // SAFETY: by the caller's promise.
        unsafe { rows.value_pairs(isa, page, tokens.start, tokens.len(), room) }.cast()
    }

    #[inline(always)]
    unsafe fn of_rows<I: Isa, S: Stored>(
        isa: I,
        panel: *const u8,
        shape: (usize, usize),
        w: usize,
        at: usize,
    ) -> I::I32 {
        // SAFETY: by the caller's promise.
        unsafe { pair::<I, S>(isa, panel, shape, 2 * w, at) }
    }
}
