//! The micro-kernel under every product of codes: some pixels (or rows) times a panel of outputs, held in registers.
//!
//! Four input channels at a time meet four weights of each output. Taps are two nested loops within blocks of sixteen
//! channels; weights lie in the order in which they are read. Sums are exact.

use std::marker::PhantomData;

use kinglet_simd::{Isa, Kernel};

use super::ending::Padded;
use super::finish::end;
use crate::nd::layout::BLOCK;
use crate::nd::tile::{Dynamic, Fixed, Pitch};

/// Four channels: what one step of a dot product takes.
pub(super) const QUAD: usize = 4;
/// Steps through a block of channels.
pub(super) const ROUNDS: usize = BLOCK / QUAD;

/// What one call of a tile works on. Strides are in bytes.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// First pixel, first tap.
    pub(super) a: *const u8,
    /// Between pixels, for [`Dynamic`].
    pub(super) pitch: usize,
    /// Counts of the tap loops: blocks of channels, rows and columns of taps.
    pub(super) taps: [usize; 3],
    pub(super) a_step: [usize; 3],
    /// Steps through the last block.
    pub(super) rounds_last: usize,
    pub(super) w: *const i8,
    /// Weights that are read later: so many cache lines of them are asked for with each row of taps. Null when there are none.
    pub(super) ahead: *const i8,
    pub(super) lines: usize,
    /// Sums of the weights of each output, and what each code has too much.
    pub(super) sums: *const i32,
    pub(super) zero: i32,
    pub(super) ending: &'a Padded,
    /// The panel's first output.
    pub(super) first: usize,
    pub(super) out: *mut u8,
    /// Between pixels, and between blocks of sixteen outputs.
    pub(super) out_pitch: usize,
    pub(super) out_block: usize,
    /// Outputs of the panel that are stored.
    pub(super) valid: usize,
    /// What codes are joined with, or numbers are added to. Lies like `out`.
    pub(super) residual: *const u8,
    /// What the codes stand for, where only the run decides.
    pub(super) given: Given,
}

/// What codes stand for that numbers were rounded to as they came.
#[derive(Clone, Copy)]
pub(super) struct Given {
    /// Scale and zero of the first pixel's codes; null when both are known beforehand.
    pub(super) at: *const [f32; 2],
    /// From a pixel to the next: 0 or 1.
    pub(super) step: usize,
    /// Scales of the panel's weights, one an output; null when the ending has them.
    pub(super) weights: *const f32,
}

impl Given {
    /// For codes that are known beforehand.
    pub(super) const NOTHING: Self = Self { at: std::ptr::null(), step: 0, weights: std::ptr::null() };

    /// Whether only the run decides.
    #[inline(always)]
    pub(super) fn is_given(&self) -> bool {
        !self.at.is_null()
    }

    /// Scale and zero of a pixel.
    ///
    /// # Safety
    /// They are given.
    #[inline(always)]
    pub(super) unsafe fn pixel(&self, m: usize) -> [f32; 2] {
        // SAFETY: by the caller's promise.
        unsafe { *self.at.add(m * self.step) }
    }
}

/// Computes one tile.
///
/// # Safety
/// Every address that the tile's loops reach is valid; `out` is not otherwise in use.
pub(super) type TileFn<I> = unsafe fn(I, &Tile<'_>);

/// The tiles of one panel width and pitch, by their number of pixels less one.
pub(super) struct Tiles<I: 'static>(&'static [TileFn<I>]);

impl<I: Isa> Tiles<I> {
    #[inline(always)]
    pub(super) fn get(&self, pixels: usize) -> TileFn<I> {
        self.0[pixels - 1]
    }
}

/// Tiles for panels of `blocks` blocks whose pixels lie `pitch` bytes apart.
pub(super) fn tiles<I: Isa>(blocks: usize, pitch: usize) -> Tiles<I> {
    Tiles(match (blocks, pitch) {
        (1, _) => Table::<I, Dynamic>::NARROW,
        (2, BLOCK) => Table::<I, Fixed<BLOCK>>::WIDE,
        (2, _) => Table::<I, Dynamic>::WIDE,
        (_, BLOCK) => Table::<I, Fixed<BLOCK>>::WIDEST,
        _ => Table::<I, Dynamic>::WIDEST,
    })
}

/// The tallest tile for a panel of `blocks` blocks.
pub(super) const fn tallest(blocks: usize, lanes: usize, registers: usize) -> usize {
    match (lanes, registers) {
        (16, _) if blocks > 2 => 9,
        (16, _) => 14,
        (8, _) | (_, 32) => 4,
        _ => 2,
    }
}

struct Table<I, P>(I, P);

/// A table of tiles of these heights and this many vectors.
macro_rules! heights {
    ($nv:literal: $($mr:literal)*) => { &[$(tile::<I, P, $mr, $nv>),*] };
}

impl<I: Isa, P: Pitch> Table<I, P> {
    const WIDEST: &'static [TileFn<I>] = match I::LANES {
        16 => heights!(3: 1 2 3 4 5 6 7 8 9),
        _ => Self::NARROW,
    };
    const WIDE: &'static [TileFn<I>] = match I::LANES {
        16 => heights!(2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        _ => Self::NARROW,
    };
    const NARROW: &'static [TileFn<I>] = match (I::LANES, I::REGISTERS) {
        (16, _) => heights!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (8, _) => heights!(2: 1 2 3 4),
        (_, 32) => heights!(4: 1 2 3 4),
        _ => heights!(4: 1 2),
    };
}

/// # Safety
/// As for [`TileFn`].
unsafe fn tile<I: Isa, P: Pitch, const MR: usize, const NV: usize>(isa: I, tile: &Tile<'_>) {
    isa.dispatch(Run::<P, MR, NV>(tile, PhantomData));
}

struct Run<'a, P, const MR: usize, const NV: usize>(&'a Tile<'a>, PhantomData<P>);

impl<P: Pitch, const MR: usize, const NV: usize> Kernel for Run<'_, P, MR, NV> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: the caller of the table's function vouches for the tile.
        unsafe {
            let mut acc = begin::<I, MR, NV>(isa, self.0);
            accumulate::<I, P, MR, NV>(isa, self.0, &mut acc);
            end::<I, MR, NV>(isa, self.0, &acc);
        }
    }
}

/// The sums of no products: what the codes' zero takes away.
///
/// # Safety
/// As for [`TileFn`].
#[inline(always)]
pub(super) unsafe fn begin<I: Isa, const MR: usize, const NV: usize>(
    isa: I,
    t: &Tile<'_>,
) -> [[I::I32; NV]; MR] {
    let mut acc = [[isa.splat_i32(0); NV]; MR];
    if t.given.is_given() {
        for v in 0..NV {
            // SAFETY: sums fill a panel, and every pixel has its zero.
            unsafe {
                let sums = isa.load_i32_ptr(t.sums.add(v * I::LANES));
                for (m, row) in acc.iter_mut().enumerate() {
                    let zero = isa.splat_i32(I::CODE_BIAS - t.given.pixel(m)[1] as i32);
                    row[v] = isa.mul_i32(zero, sums);
                }
            }
        }
        return acc;
    }
    let zero = isa.splat_i32(I::CODE_BIAS - t.zero);
    for v in 0..NV {
        // SAFETY: sums fill a panel.
        let start = isa.mul_i32(zero, unsafe { isa.load_i32_ptr(t.sums.add(v * I::LANES)) });
        for row in acc.iter_mut() {
            row[v] = start;
        }
    }
    acc
}

/// # Safety
/// As for [`TileFn`].
#[inline(always)]
unsafe fn accumulate<I: Isa, P: Pitch, const MR: usize, const NV: usize>(
    isa: I,
    t: &Tile<'_>,
    acc: &mut [[I::I32; NV]; MR],
) {
    let (pitch, mut w, mut ahead) = (P::floats(t.pitch), t.w, t.ahead);
    for c in 0..t.taps[0] {
        let rounds = if c + 1 == t.taps[0] { t.rounds_last } else { ROUNDS };
        for y in 0..t.taps[1] {
            if !ahead.is_null() {
                for line in 0..t.lines {
                    isa.prefetch(ahead.wrapping_add(line * LINE));
                }
                ahead = ahead.wrapping_add(t.lines * LINE);
            }
            for x in 0..t.taps[2] {
                // SAFETY: the loops stay within what the caller vouches for.
                unsafe {
                    let a = t.a.add(c * t.a_step[0] + y * t.a_step[1] + x * t.a_step[2]);
                    if rounds == ROUNDS {
                        for r in 0..ROUNDS {
                            let w = w.add(r * NV * I::LANES * QUAD);
                            round::<I, MR, NV>(isa, a.add(r * QUAD), pitch, w, acc);
                        }
                    } else {
                        for r in 0..rounds {
                            let w = w.add(r * NV * I::LANES * QUAD);
                            round::<I, MR, NV>(isa, a.add(r * QUAD), pitch, w, acc);
                        }
                    }
                    w = w.add(rounds * NV * I::LANES * QUAD);
                }
            }
        }
    }
}

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// # Safety
/// As for [`TileFn`].
#[inline(always)]
unsafe fn round<I: Isa, const MR: usize, const NV: usize>(
    isa: I,
    a: *const u8,
    pitch: usize,
    w: *const i8,
    acc: &mut [[I::I32; NV]; MR],
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut taps = [isa.taps(isa.splat_bytes(0)); NV];
        for (v, tap) in taps.iter_mut().enumerate() {
            *tap = isa.taps(isa.load_bytes_ptr(w.add(v * I::LANES * QUAD).cast()));
        }
        for (m, row) in acc.iter_mut().enumerate() {
            let codes = isa.codes(isa.broadcast4_ptr(a.add(m * pitch).cast()));
            for (v, sum) in row.iter_mut().enumerate() {
                *sum = isa.dot_codes(*sum, codes, taps[v]);
            }
        }
    }
}
