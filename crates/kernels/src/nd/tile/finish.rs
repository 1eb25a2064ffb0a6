//! How a tile's sums become outputs: residual, bounds and activation, stored as floats or as bfloat16.

use std::mem::MaybeUninit;

use kinglet_simd::{Isa, Kernel};

use super::{TALLEST, Tile, column, load};
use crate::nd::act::{Apply, Runs, clip};
use crate::nd::layout::BLOCK;

/// # Safety
/// As for [`TileFn`](super::TileFn).
#[inline(always)]
pub(super) unsafe fn finish<I: Isa, const MR: usize, const NV: usize>(
    isa: I,
    t: &Tile,
    acc: &[[I::F32; NV]; MR],
) {
    let later = t.act.split().2 && t.last;
    // SAFETY: by the caller's promise.
    unsafe {
        if !t.halves {
            finish_all::<I, MR, NV, false>(isa, t, acc);
            if later {
                activate::<I>(isa, t, MR);
            }
        } else if I::BF16 && !later && t.valid == NV * I::LANES {
            finish_all::<I, MR, NV, true>(isa, t, acc);
        } else {
            finish_held(isa, t, acc);
        }
    }
}

/// Stores all sums, complete ones with the residual, between the bounds; as bfloat16 with `HALVES`, all of which exist then.
///
/// # Safety
/// As for [`TileFn`](super::TileFn).
#[inline(always)]
unsafe fn finish_all<I: Isa, const MR: usize, const NV: usize, const HALVES: bool>(
    isa: I,
    t: &Tile,
    acc: &[[I::F32; NV]; MR],
) {
    // SAFETY: by the caller's promise. Loops of few rounds are unrolled; in a longer one, sums would lie in memory.
    unsafe {
        finish_four::<I, MR, NV, HALVES, 0>(isa, t, acc);
        finish_four::<I, MR, NV, HALVES, 4>(isa, t, acc);
        finish_four::<I, MR, NV, HALVES, 8>(isa, t, acc);
        finish_four::<I, MR, NV, HALVES, 12>(isa, t, acc);
    }
}

/// [`finish_all`] for those of the tile's pixels that are among the four from `FIRST` on.
///
/// # Safety
/// As for [`TileFn`](super::TileFn).
#[expect(clippy::needless_range_loop, reason = "bounds known when compiling, so that it is unrolled")]
#[inline(always)]
unsafe fn finish_four<I: Isa, const MR: usize, const NV: usize, const HALVES: bool, const FIRST: usize>(
    isa: I,
    t: &Tile,
    acc: &[[I::F32; NV]; MR],
) {
    for m in FIRST..MR.min(FIRST + 4) {
        for v in 0..NV {
            // SAFETY: pixel `m` is one of the tile.
            unsafe {
                if HALVES {
                    let at = t.out.cast::<u16>().add(half_at::<I>(t, m, v));
                    isa.store_bf16_ptr(complete(isa, t, acc[m][v], m, v), at);
                } else {
                    settle(isa, t, acc[m][v], m, v);
                }
            }
        }
    }
}

/// Stores what a sum is added to, with it; if that is complete, with the residual and between the bounds.
///
/// # Safety
/// Pixel `m` is one of the tile.
#[inline(always)]
unsafe fn settle<I: Isa>(isa: I, t: &Tile, mut sum: I::F32, m: usize, v: usize) {
    let (lo, hi, _) = t.act.split();
    // SAFETY: by the caller's promise; only existing outputs are touched; start values fill a panel.
    unsafe {
        let before = if t.start.is_null() {
            load(isa, t, t.out.add(m * t.out_pitch), v)
        } else {
            isa.load_ptr(t.start.add(v * I::LANES))
        };
        sum = isa.add(before, sum);
        if t.last {
            if !t.residual.is_null() {
                sum = isa.add(sum, load(isa, t, t.residual.add(m * t.out_pitch), v));
            }
            sum = clip(isa, sum, lo, hi);
        }
        store(isa, t, sum, t.out.add(m * t.out_pitch), v);
    }
}

/// A complete sum with bias and residual, between the bounds, for outputs in bfloat16.
///
/// # Safety
/// The tile has such a pixel, and starts at a bias.
#[inline(always)]
unsafe fn complete<I: Isa>(isa: I, t: &Tile, sum: I::F32, m: usize, v: usize) -> I::F32 {
    let (lo, hi, _) = t.act.split();
    // SAFETY: by the caller's promise; biases fill a panel.
    unsafe {
        let mut sum = isa.add(isa.load_ptr(t.start.add(v * I::LANES)), sum);
        if !t.residual.is_null() {
            let at = half_at::<I>(t, m, v);
            sum = isa.add(sum, isa.load_bf16_ptr(t.residual.cast::<u16>().add(at)));
        }
        clip(isa, sum, lo, hi)
    }
}

/// Where vector `v` of pixel `m` is among outputs in bfloat16, in values.
#[inline(always)]
fn half_at<I: Isa>(t: &Tile, m: usize, v: usize) -> usize {
    m * 2 * t.out_pitch + v * I::LANES / BLOCK * 2 * t.out_block + v * I::LANES % BLOCK
}

/// Room for a tile's sums in memory.
#[repr(align(64))]
struct Held(MaybeUninit<[f32; TALLEST * 2 * BLOCK]>);

/// [`finish`] in bfloat16 with the sums in memory: residual and activation in f32, rounded once.
///
/// # Safety
/// As for [`TileFn`](super::TileFn).
#[inline(always)]
unsafe fn finish_held<I: Isa, const MR: usize, const NV: usize>(isa: I, t: &Tile, acc: &[[I::F32; NV]; MR]) {
    // Nothing but stores here: sums would not stay in registers if loops over them were too long to be unrolled.
    let mut held = Held(MaybeUninit::uninit());
    let at = held.0.as_mut_ptr().cast::<f32>();
    for (m, row) in acc.iter().enumerate() {
        for (v, &sum) in row.iter().enumerate() {
            // SAFETY: no tile has more sums than there is room for.
            unsafe { isa.store_ptr(sum, at.add((m * NV + v) * I::LANES)) };
        }
    }
    isa.dispatch_bf16(Finish { tile: t, sums: at, size: [MR, NV] });
}

/// Completes sums in memory, `size` pixels by vectors; made by [`finish_held`] only, which was promised the tile.
struct Finish<'a> {
    tile: &'a Tile,
    sums: *mut f32,
    size: [usize; 2],
}

impl Kernel for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { tile: t, sums, size: [pixels, vectors] } = self;
        let existing = vectors.min(t.valid / I::LANES);
        // SAFETY: `finish_held` wrote all sums; pixels `m` are the tile's, and the vectors exist.
        unsafe {
            for m in 0..pixels {
                for v in 0..existing {
                    let sum = sums.add((m * vectors + v) * I::LANES);
                    isa.store_ptr(complete(isa, t, isa.load_ptr(sum), m, v), sum);
                }
            }
            if t.act.split().2 {
                let count = pixels * vectors * I::LANES;
                Apply::new(t.act, Runs { at: sums, rows: 1, pitch: 0, count }).run(isa);
            }
            for m in 0..pixels {
                for v in 0..existing {
                    let sum = isa.load_ptr(sums.add((m * vectors + v) * I::LANES));
                    isa.store_bf16_ptr(sum, t.out.cast::<u16>().add(half_at::<I>(t, m, v)));
                }
            }
        }
    }
}

/// # Safety
/// `p` lies like the tile's outputs.
#[inline(always)]
unsafe fn store<I: Isa>(isa: I, t: &Tile, sum: I::F32, p: *mut f32, v: usize) {
    let left = t.valid.saturating_sub(v * I::LANES);
    // SAFETY: existing outputs are valid.
    unsafe {
        let p = p.wrapping_add(column::<I>(t, v));
        if left >= I::LANES { isa.store_ptr(sum, p) } else { isa.store_part_ptr(sum, p, left) }
    }
}

/// Applies the activation to what was stored.
///
/// # Safety
/// As for [`TileFn`](super::TileFn), with `pixels` pixels.
unsafe fn activate<I: Isa>(isa: I, t: &Tile, pixels: usize) {
    for block in 0..t.valid.div_ceil(BLOCK) {
        let count = BLOCK.min(t.valid - block * BLOCK);
        let at = t.out.wrapping_add(block * t.out_block);
        // SAFETY: these are the tile's outputs.
        unsafe { isa.dispatch(Apply::new(t.act, Runs { at, rows: pixels, pitch: t.out_pitch, count })) };
    }
}
