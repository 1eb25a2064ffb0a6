//! The micro-kernel under every product of codes: some pixels (or rows) times a panel of outputs, held in registers.
//!
//! Four input channels at a time meet four weights of each output. Taps are two nested loops within blocks of sixteen
//! channels; weights lie in the order in which they are read. Sums are exact.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use kinglet_simd::{Isa, Kernel};

use super::ending::{Join, Line, Padded, Recode, Result8};
use crate::nd::act::{Act, Apply, Runs, clip};
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
    /// What codes are joined with. Lies like `out`.
    pub(super) residual: *const u8,
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

/// Bytes from the first output of a pixel to vector `v`, when an output takes `width` bytes.
#[inline(always)]
fn column<I: Isa>(t: &Tile<'_>, v: usize, width: usize) -> usize {
    v * I::LANES / BLOCK * t.out_block + v * I::LANES % BLOCK * width
}

/// Sums of the largest tile.
const MOST: usize = 14 * 2 * BLOCK;

/// Leaves the sums, and stores what becomes of them: loops over sums in registers would have to be unrolled whole.
///
/// # Safety
/// As for [`TileFn`].
#[inline(always)]
pub(super) unsafe fn end<I: Isa, const MR: usize, const NV: usize>(
    isa: I,
    t: &Tile<'_>,
    acc: &[[I::I32; NV]; MR],
) {
    let mut sums = MaybeUninit::<[i32; MOST]>::uninit();
    let sums = sums.as_mut_ptr().cast::<i32>();
    for (m, row) in acc.iter().enumerate() {
        for (v, sum) in row.iter().enumerate() {
            // SAFETY: no tile has more sums.
            unsafe { isa.store_i32_ptr(*sum, sums.add((m * NV + v) * I::LANES)) };
        }
    }
    isa.dispatch(Finish { tile: t, sums, pixels: MR, vectors: NV });
}

/// What becomes of the sums of a tile, `[pixel][vector]`.
struct Finish<'a> {
    tile: &'a Tile<'a>,
    sums: *const i32,
    pixels: usize,
    vectors: usize,
}

impl Kernel for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: who made the tile vouches for it, and its sums were stored.
        unsafe {
            match &self.tile.ending.result {
                Result8::Floats(act) => self.floats(isa, *act),
                Result8::Codes { to, line: None, join: None, table } => {
                    self.codes::<I, false>(isa, to, (None, None), table.as_deref());
                }
                Result8::Codes { to, line, join, table } => {
                    self.codes::<I, true>(isa, to, (line.as_ref(), join.as_ref()), table.as_deref());
                }
            }
        }
    }
}

impl Finish<'_> {
    /// Factor and summand of a vector of outputs.
    ///
    /// # Safety
    /// As for [`TileFn`].
    #[inline(always)]
    unsafe fn line<I: Isa>(&self, isa: I, v: usize) -> (I::F32, I::F32) {
        let (at, ending) = (self.tile.first + v * I::LANES, self.tile.ending);
        // SAFETY: factors and summands fill a panel.
        unsafe { (isa.load_ptr(ending.factor.as_ptr().add(at)), isa.load_ptr(ending.shift.as_ptr().add(at))) }
    }

    /// Codes less their zero, by the line's factors and summands.
    #[inline(always)]
    fn along<I: Isa>(&self, isa: I, v: usize, code: I::I32, to: &Recode) -> I::I32 {
        let (at, Some([factor, shift])) = (self.tile.first + v * I::LANES, &self.tile.ending.line) else {
            return code;
        };
        to.round(isa, isa.fma(isa.to_f32(code), isa.load(&factor[at..]), isa.load(&shift[at..])))
    }

    /// A pixel's sums as numbers.
    ///
    /// # Safety
    /// As for [`TileFn`].
    #[inline(always)]
    unsafe fn number<I: Isa>(&self, isa: I, m: usize, v: usize, line: (I::F32, I::F32)) -> I::F32 {
        // SAFETY: the sums were stored.
        let sum = unsafe { isa.load_i32_ptr(self.sums.add((m * self.vectors + v) * I::LANES)) };
        isa.fma(isa.to_f32(sum), line.0, line.1)
    }

    /// # Safety
    /// As for [`TileFn`].
    #[inline(always)]
    unsafe fn floats<I: Isa>(&self, isa: I, act: Act) {
        let (t, (lo, hi, later)) = (self.tile, act.split());
        for v in 0..self.vectors {
            let left = t.valid.saturating_sub(v * I::LANES).min(I::LANES);
            // SAFETY: only existing outputs are stored.
            unsafe {
                let line = self.line(isa, v);
                for m in 0..self.pixels {
                    let y = clip(isa, self.number(isa, m, v, line), lo, hi);
                    let at = t.out.wrapping_add(m * t.out_pitch + column::<I>(t, v, size_of::<f32>()));
                    if left == I::LANES {
                        isa.store_ptr(y, at.cast());
                    } else {
                        isa.store_part_ptr(y, at.cast(), left);
                    }
                }
            }
        }
        if !later {
            return;
        }
        let pitch = t.out_pitch / size_of::<f32>();
        for block in 0..t.valid.div_ceil(BLOCK) {
            let count = BLOCK.min(t.valid - block * BLOCK);
            let at = t.out.wrapping_add(block * t.out_block).cast();
            // SAFETY: these are the tile's outputs.
            unsafe { isa.dispatch(Apply::new(act, Runs { at, rows: self.pixels, pitch, count })) };
        }
    }

    /// Stores the codes of each number, translated; with `MORE`, a line and codes to join with are looked for.
    ///
    /// # Safety
    /// As for [`TileFn`].
    #[inline(always)]
    unsafe fn codes<I: Isa, const MORE: bool>(
        &self,
        isa: I,
        to: &Recode,
        (line, join): (Option<&Line>, Option<&Join>),
        table: Option<&[u8; 256]>,
    ) {
        let t = self.tile;
        for v in 0..self.vectors {
            let left = t.valid.saturating_sub(v * I::LANES).min(I::LANES);
            // SAFETY: only existing outputs are read and stored.
            unsafe {
                let affine = self.line(isa, v);
                for m in 0..self.pixels {
                    let at = m * t.out_pitch + column::<I>(t, v, 1);
                    let number = self.number(isa, m, v, affine);
                    let (mut code, mut zero) = (to.round(isa, number), to.zero);
                    if MORE && let Some(line) = line {
                        (code, zero) = (self.along(isa, v, code, &line.to), line.to.zero);
                    }
                    if MORE && let Some(join) = join {
                        let other = isa.to_f32(load::<I>(isa, t.residual.wrapping_add(at), left));
                        let shift = isa.fma(other, isa.splat(join.theirs), isa.splat(join.shift));
                        let both = isa.fma(isa.to_f32(code), isa.splat(join.own), shift);
                        (code, zero) = (join.to.round(isa, both), join.to.zero);
                    }
                    let code = isa.add_i32(code, isa.splat_i32(zero));
                    store::<I>(isa, code, t.out.wrapping_add(at), left);
                }
            }
        }
        if let Some(table) = table {
            // SAFETY: as above.
            unsafe { translate_tile(isa, t, table, self.pixels) };
        }
    }
}

/// `left` codes in the first lanes.
///
/// # Safety
/// They are valid for reading.
#[inline(always)]
unsafe fn load<I: Isa>(isa: I, p: *const u8, left: usize) -> I::I32 {
    // SAFETY: by the caller's promise.
    unsafe {
        if left == I::LANES {
            return isa.load_u8_ptr(p);
        }
        let mut part = [0u8; BLOCK];
        std::ptr::copy_nonoverlapping(p, part.as_mut_ptr(), left);
        isa.load_u8_ptr(part.as_ptr())
    }
}

/// Stores the first `left` lanes.
///
/// # Safety
/// There is room for them.
#[inline(always)]
unsafe fn store<I: Isa>(isa: I, codes: I::I32, p: *mut u8, left: usize) {
    // SAFETY: by the caller's promise.
    unsafe {
        if left == I::LANES {
            return isa.store_i8_ptr(codes, p.cast());
        }
        let mut part = [0u8; BLOCK];
        isa.store_i8_ptr(codes, part.as_mut_ptr().cast());
        std::ptr::copy_nonoverlapping(part.as_ptr(), p, left);
    }
}

/// Translates what was stored.
///
/// # Safety
/// As for [`TileFn`], with `pixels` pixels.
#[inline(always)]
unsafe fn translate_tile<I: Isa>(isa: I, t: &Tile<'_>, table: &[u8; 256], pixels: usize) {
    for block in 0..t.valid.div_ceil(BLOCK) {
        let count = BLOCK.min(t.valid - block * BLOCK);
        let at = t.out.wrapping_add(block * t.out_block);
        // SAFETY: these are the tile's outputs.
        unsafe {
            if t.out_pitch == count {
                isa.translate_ptr(table, at, pixels * count);
            } else {
                for pixel in 0..pixels {
                    isa.translate_ptr(table, at.wrapping_add(pixel * t.out_pitch), count);
                }
            }
        }
    }
}
