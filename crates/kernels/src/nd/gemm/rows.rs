//! Rows that are copied before they are multiplied, so that neighbouring ones lie side by side.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel};

use super::Gemm;
use crate::SharedMut;
use crate::nd::layout::BLOCK;

/// Copies some rows of a part as `[k / BLOCK][pitch][BLOCK]`, in floats or bfloat16.
pub(super) struct CopyRows<'a> {
    pub(super) gemm: &'a Gemm,
    pub(super) part: &'a Range<usize>,
    /// Counted from the part's first.
    pub(super) rows: Range<usize>,
    pub(super) x: SharedMut<'a, f32>,
    pub(super) copy: SharedMut<'a, f32>,
}

impl Kernel for CopyRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if self.gemm.pairs { isa.dispatch_bf16(Rounded(self)) } else { self.copy(isa, false) }
    }
}

/// The same in bfloat16.
struct Rounded<'a>(CopyRows<'a>);

impl Kernel for Rounded<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.copy(isa, true);
    }
}

impl CopyRows<'_> {
    #[inline(always)]
    fn copy<I: Isa>(self, isa: I, rounded: bool) {
        let Self { gemm, part, rows, x, copy } = self;
        let (k, size, pitch) = (gemm.k, gemm.block(), pitch(part.len()));
        assert!(pitch * k.div_ceil(BLOCK) * size <= copy.len() && part.end * k <= x.len(), "rows");
        for first in rows.clone().step_by(TOGETHER) {
            for block in 0..k.div_ceil(BLOCK) {
                for row in first..rows.end.min(first + TOGETHER) {
                    // SAFETY: within the span and the scratch, as asserted; each worker copies its own rows.
                    unsafe {
                        let from = x.as_ptr().add((part.start + row) * k + block * BLOCK);
                        let to = copy.as_mut_ptr().add((block * pitch + row) * size);
                        let count = BLOCK.min(k - block * BLOCK);
                        if rounded {
                            round_block(isa, from, to.cast(), count);
                        } else {
                            copy_block(isa, from, to, count);
                        }
                    }
                }
            }
        }
    }
}

/// Rows that are copied side by side: few enough for the processor to follow each of them.
const TOGETHER: usize = 4;

/// Distance in blocks between neighbouring blocks of columns of so many copied rows: odd, so that they fall into
/// different sets of a cache.
pub(super) fn pitch(rows: usize) -> usize {
    rows | 1
}

/// Rounds `count` values to bfloat16, with zeros behind them.
///
/// # Safety
/// `from` is valid for `count <= BLOCK` values, `to` for a block.
#[inline(always)]
unsafe fn round_block<I: Isa>(isa: I, from: *const f32, to: *mut u16, count: usize) {
    for i in (0..BLOCK).step_by(I::LANES) {
        // SAFETY: by the caller's promise.
        unsafe {
            let left = count.saturating_sub(i);
            let values = if left >= I::LANES {
                isa.load_ptr(from.add(i))
            } else {
                isa.load_part_ptr(from.add(i.min(count)), left)
            };
            isa.store_bf16_ptr(values, to.add(i));
        }
    }
}

/// # Safety
/// Both are valid for `count <= BLOCK` values.
#[inline(always)]
unsafe fn copy_block<I: Isa>(isa: I, from: *const f32, to: *mut f32, count: usize) {
    for i in (0..count).step_by(I::LANES) {
        // SAFETY: by the caller's promise.
        unsafe {
            let (from, to, left) = (from.add(i), to.add(i), count - i);
            if left >= I::LANES {
                isa.store_ptr(isa.load_ptr(from), to);
            } else {
                isa.store_part_ptr(isa.load_part_ptr(from, left), to, left);
            }
        }
    }
}
