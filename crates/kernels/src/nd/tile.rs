//! The micro-kernel under every f32 product: some pixels (or rows) times a panel of outputs, held in registers.
//!
//! `out[m][n] = finish(start[n] + sum over taps and k of a[m * pitch + tap + k] * w[tap][k][n])`, or, channel by channel,
//! `… a[m * pitch + tap][n] * w[tap][n]`, or with two neighbouring bfloat16 values in the place of each float of `a` and
//! `w` (see [`Operand`]). Taps are three nested loops with strides of their own, so that one kernel serves convolutions over
//! either layout and plain products. The order of additions is that of the loops, whatever the tile's height: a result does
//! not depend on how the work was cut. Each call sums from zero and adds its part to the bias, or to what earlier ones left, at
//! the end: errors grow with the length of a part rather than of the whole, and a large bias that the sum takes away does not
//! coarsen it.

mod finish;

use std::hint::black_box;
use std::marker::PhantomData;

use kinglet_simd::{Isa, Kernel};

use self::finish::finish;
use super::act::Act;
use super::layout::BLOCK;

/// Distance in floats between neighbouring pixels of a tile.
pub(super) trait Pitch: Send + Sync + 'static {
    fn floats(dynamic: usize) -> usize;
}

/// Known when compiling, so that a tile needs one pointer.
pub(super) struct Fixed<const N: usize>;

impl<const N: usize> Pitch for Fixed<N> {
    #[inline(always)]
    fn floats(_: usize) -> usize {
        N
    }
}

/// Known when running.
pub(super) struct Dynamic;

impl Pitch for Dynamic {
    #[inline(always)]
    fn floats(dynamic: usize) -> usize {
        dynamic
    }
}

/// How the input meets the weights.
pub(super) trait Operand: Send + Sync + 'static {
    /// Weight vectors that share a vector of inputs.
    const SHARED: usize;
    /// Whether kernels want the instructions for bfloat16.
    const BF16: bool = false;

    /// `sum` and the product of vector `v` of the weights with what belongs to it at `a`.
    ///
    /// # Safety
    /// `a` is valid for reading a value, or a block of sixteen.
    unsafe fn add<I: Isa>(isa: I, a: *const f32, v: usize, weights: I::F32, sum: I::F32) -> I::F32;
}

/// Every input belongs to every output: one value for all lanes.
pub(super) struct Dense;

impl Operand for Dense {
    const SHARED: usize = 0;

    #[inline(always)]
    unsafe fn add<I: Isa>(isa: I, a: *const f32, _: usize, weights: I::F32, sum: I::F32) -> I::F32 {
        // SAFETY: by the caller's promise.
        isa.fma(isa.splat(unsafe { *a }), weights, sum)
    }
}

/// Every input belongs to every output; where a float would be stand two neighbouring inputs in bfloat16, the first one in
/// the low half, and likewise two neighbouring weights of an output.
pub(super) struct Pairs;

impl Operand for Pairs {
    const SHARED: usize = 0;
    const BF16: bool = true;

    #[inline(always)]
    unsafe fn add<I: Isa>(isa: I, a: *const f32, _: usize, weights: I::F32, sum: I::F32) -> I::F32 {
        // SAFETY: by the caller's promise.
        isa.dot_bf16(sum, isa.splat_i32(unsafe { *a.cast() }), isa.bits_of(weights))
    }
}

/// Lane by lane: every channel has `EACH` outputs of its own, one or two, which lie side by side.
pub(super) struct Lanes<const EACH: usize>;

impl<const EACH: usize> Operand for Lanes<EACH> {
    const SHARED: usize = EACH;

    #[inline(always)]
    unsafe fn add<I: Isa>(isa: I, a: *const f32, v: usize, weights: I::F32, sum: I::F32) -> I::F32 {
        // SAFETY: by the caller's promise; a block is sixteen values on every instruction set.
        isa.fma(unsafe { isa.load_ptr(a.add(v / EACH * I::LANES)) }, weights, sum)
    }
}

/// What one call of a tile works on. Strides are in floats.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// First pixel, first tap.
    pub(super) a: *const f32,
    /// Between pixels, for [`Dynamic`].
    pub(super) pitch: usize,
    /// Counts of the three tap loops.
    pub(super) taps: [usize; 3],
    pub(super) a_step: [usize; 3],
    /// First tap's weights: `[k][panel width]`.
    pub(super) w: *const f32,
    pub(super) w_step: [usize; 3],
    /// Weights that are read later: so many cache lines of them are asked for with each row of taps, where
    /// inputs belong to all outputs. Null when there are none.
    pub(super) ahead: *const f32,
    pub(super) lines: usize,
    /// Values summed for each tap, and for taps of the last round of the outermost loop.
    pub(super) k: usize,
    pub(super) k_last: usize,
    /// A panel of values that the sum is added to; null to add it to what `out` holds, which are floats then.
    pub(super) start: *const f32,
    pub(super) out: *mut f32,
    /// Between pixels, and between blocks of sixteen outputs.
    pub(super) out_pitch: usize,
    pub(super) out_block: usize,
    /// Outputs of the panel that exist.
    pub(super) valid: usize,
    /// Whether the sums are complete.
    pub(super) last: bool,
    /// Added to complete sums; null when there is nothing to add. Lies like `out`.
    pub(super) residual: *const f32,
    pub(super) act: Act,
    /// Whether `out` and `residual` are bfloat16, in whole blocks, and the sums complete.
    pub(super) halves: bool,
}

/// Computes one tile.
///
/// # Safety
/// Every address that the tile's loops reach is valid; `out` is not otherwise in use.
pub(super) type TileFn<I> = unsafe fn(I, &Tile);

/// Most pixels of any tile.
pub(super) const TALLEST: usize = 14;
/// Most pixels of a tile of three blocks, which only instruction sets of sixteen lanes have.
pub(super) const TALLEST_WIDEST: usize = 9;

/// The tiles of one panel width and pitch, by their number of pixels less one.
pub(super) struct Tiles<I: 'static> {
    by_height: &'static [TileFn<I>],
}

impl<I: Isa> Tiles<I> {
    /// The kernel for `pixels`, at most as many as the panel has.
    #[inline(always)]
    pub(super) fn get(&self, pixels: usize) -> TileFn<I> {
        self.by_height[pixels - 1]
    }
}

/// Blocks of sixteen outputs in a full panel.
pub(super) const fn panel_blocks(lanes: usize) -> usize {
    if lanes >= 16 { 2 } else { 1 }
}

/// Tiles for panels of `blocks` blocks whose pixels lie `P` apart, of floats ([`Dense`]) or [`Pairs`].
pub(super) fn tiles<I: Isa, P: Pitch, O: Operand>(blocks: usize) -> Tiles<I> {
    let by_height = match blocks {
        1 => Table::<I, P, O>::NARROW,
        2 => Table::<I, P, O>::WIDE,
        _ => Table::<I, P, O>::WIDEST,
    };
    Tiles { by_height }
}

/// Tiles that go channel by channel, one block of inputs and `each` blocks of outputs.
pub(super) fn lane_tiles<I: Isa, P: Pitch>(each: usize) -> Tiles<I> {
    let by_height = if each > 1 { Table::<I, P, Lanes<2>>::PAIRS } else { Table::<I, P, Lanes<1>>::NARROW };
    Tiles { by_height }
}

/// The tallest tile on an instruction set, whatever the pitch.
pub(super) const fn tallest(lanes: usize, registers: usize) -> usize {
    match (lanes, registers) {
        (16, _) => TALLEST,
        (8, _) | (_, 32) => 6,
        _ => 2,
    }
}

/// The tallest tile for a panel of `blocks` blocks.
pub(super) const fn tallest_for(blocks: usize, lanes: usize, registers: usize) -> usize {
    if blocks > 2 { TALLEST_WIDEST } else { tallest(lanes, registers) }
}

/// The tallest tile with two outputs a channel.
pub(super) const fn tallest_pairs(lanes: usize, registers: usize) -> usize {
    match (lanes, registers) {
        (16, _) => 8,
        (_, 32) | (8, _) => 3,
        _ => 1,
    }
}

struct Table<I, P, O>(I, P, O);

/// A table of tiles of these heights and this many vectors.
macro_rules! heights {
    ($nv:literal: $($mr:literal)*) => { &[$(tile::<I, P, O, $mr, $nv>),*] };
}

impl<I: Isa, P: Pitch, O: Operand> Table<I, P, O> {
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
        (8, _) => heights!(2: 1 2 3 4 5 6),
        (_, 32) => heights!(4: 1 2 3 4 5 6),
        _ => heights!(4: 1 2),
    };
    const PAIRS: &'static [TileFn<I>] = match (I::LANES, I::REGISTERS) {
        (16, _) => heights!(2: 1 2 3 4 5 6 7 8),
        (8, _) => heights!(4: 1 2 3),
        (_, 32) => heights!(8: 1 2 3),
        _ => heights!(8: 1),
    };
}

/// # Safety
/// As for [`TileFn`].
unsafe fn tile<I: Isa, P: Pitch, O: Operand, const MR: usize, const NV: usize>(isa: I, tile: &Tile) {
    let run = Run::<P, O, MR, NV>(tile, PhantomData);
    if O::BF16 { isa.dispatch_bf16(run) } else { isa.dispatch(run) }
}

struct Run<'a, P, O, const MR: usize, const NV: usize>(&'a Tile, PhantomData<(P, O)>);

impl<P: Pitch, O: Operand, const MR: usize, const NV: usize> Kernel for Run<'_, P, O, MR, NV> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let t = self.0;
        // SAFETY: the caller of the table's function vouches for the tile.
        unsafe {
            if O::BF16 && !I::BF16 {
                // No plan asks for it where there is no such instruction: small code matters more than speed.
                return (0..MR).for_each(|m| whole::<I, P, O, 1, NV>(isa, &t.pixel(m, P::floats(t.pitch))));
            }
            whole::<I, P, O, MR, NV>(isa, t);
        }
    }
}

impl Tile {
    /// The same tile from pixel `m` on.
    #[inline(always)]
    fn pixel(&self, m: usize, pitch: usize) -> Self {
        let out = m * self.out_pitch;
        let residual = if self.residual.is_null() { self.residual } else { self.residual.wrapping_add(out) };
        Self { a: self.a.wrapping_add(m * pitch), out: self.out.wrapping_add(out), residual, ..*self }
    }
}

/// # Safety
/// As for [`TileFn`].
#[inline(always)]
unsafe fn whole<I: Isa, P: Pitch, O: Operand, const MR: usize, const NV: usize>(isa: I, t: &Tile) {
    // SAFETY: by the caller's promise.
    unsafe {
        // A zero that the compiler does not see: sums that begin as a constant are moved around between the loops.
        let mut acc = [[isa.splat(black_box(0.0)); NV]; MR];
        accumulate::<I, P, O, MR, NV>(isa, t, &mut acc);
        if O::SHARED == 2 {
            interleave(isa, &mut acc);
        }
        finish::<I, MR, NV>(isa, t, &acc);
    }
}

/// Offset of vector `v` of a pixel's outputs.
#[inline(always)]
fn column<I: Isa>(t: &Tile, v: usize) -> usize {
    v * I::LANES / BLOCK * t.out_block + v * I::LANES % BLOCK
}

/// Loads vector `v` of the outputs at `p`, zeros where outputs do not exist.
///
/// # Safety
/// `p` lies like the tile's outputs.
#[inline(always)]
unsafe fn load<I: Isa>(isa: I, t: &Tile, p: *const f32, v: usize) -> I::F32 {
    let left = t.valid.saturating_sub(v * I::LANES);
    // SAFETY: existing outputs are valid.
    unsafe {
        let p = p.wrapping_add(column::<I>(t, v));
        if left >= I::LANES { isa.load_ptr(p) } else { isa.load_part_ptr(p, left) }
    }
}

/// # Safety
/// As for [`TileFn`].
#[inline(always)]
unsafe fn accumulate<I: Isa, P: Pitch, O: Operand, const MR: usize, const NV: usize>(
    isa: I,
    t: &Tile,
    acc: &mut [[I::F32; NV]; MR],
) {
    let (pitch, mut ahead) = (P::floats(t.pitch), t.ahead);
    for c in 0..t.taps[0] {
        let k = if c + 1 == t.taps[0] { t.k_last } else { t.k };
        for y in 0..t.taps[1] {
            if O::SHARED == 0 && !ahead.is_null() {
                for line in 0..t.lines {
                    isa.prefetch(ahead.wrapping_add(line * BLOCK));
                }
                ahead = ahead.wrapping_add(t.lines * BLOCK);
            }
            for x in 0..t.taps[2] {
                // SAFETY: the loops stay within what the caller vouches for.
                unsafe {
                    let mut a = t.a.add(c * t.a_step[0] + y * t.a_step[1] + x * t.a_step[2]);
                    let mut w = t.w.add(c * t.w_step[0] + y * t.w_step[1] + x * t.w_step[2]);
                    for _ in 0..k {
                        let mut weights = [isa.zero(); NV];
                        for (v, weight) in weights.iter_mut().enumerate() {
                            *weight = isa.load_ptr(w.add(v * I::LANES));
                        }
                        for (m, row) in acc.iter_mut().enumerate() {
                            let a = a.add(m * pitch);
                            for (v, sum) in row.iter_mut().enumerate() {
                                *sum = O::add(isa, a, v, weights[v], *sum);
                            }
                        }
                        a = a.add(1);
                        w = w.add(NV * I::LANES);
                    }
                }
            }
        }
    }
}

/// Brings the two outputs of each channel side by side.
#[inline(always)]
fn interleave<I: Isa, const MR: usize, const NV: usize>(isa: I, acc: &mut [[I::F32; NV]; MR]) {
    for row in acc {
        for pair in row.as_chunks_mut::<2>().0 {
            (pair[0], pair[1]) = isa.zip(pair[0], pair[1]);
        }
    }
}
