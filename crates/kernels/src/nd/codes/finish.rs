//! What becomes of the sums of a tile: numbers, or codes, in memory.

use std::mem::MaybeUninit;

use kinglet_simd::{Isa, Kernel};

use super::ending::{Join, Line, Recode, Result8};
use super::tile::Tile;
use crate::nd::act::{Act, Apply, Runs, clip};
use crate::nd::layout::BLOCK;

/// Bytes from the first output of a pixel to vector `v`, when an output takes `width` bytes.
#[inline(always)]
fn column<I: Isa>(t: &Tile<'_>, v: usize, width: usize) -> usize {
    v * I::LANES / BLOCK * t.out_block + v * I::LANES % BLOCK * width
}

/// Sums of the largest tile.
const MOST: usize = 14 * 2 * BLOCK;

/// Room for them in whole cache lines.
#[repr(align(64))]
#[allow(dead_code, reason = "only its place is used")]
struct Sums([i32; MOST]);

/// Stores what becomes of the sums.
///
/// # Safety
/// As for [`TileFn`](super::tile::TileFn).
#[inline(always)]
pub(super) unsafe fn end<I: Isa, const MR: usize, const NV: usize>(
    isa: I,
    t: &Tile<'_>,
    acc: &[[I::I32; NV]; MR],
) {
    // SAFETY: by the caller's promise.
    unsafe {
        match &t.ending.result {
            Result8::Codes { to, line: None, join, table } if is_dense::<I, NV>(t, to, join.as_ref()) => {
                let codes = Codes { to, join: join.as_ref() };
                match join {
                    None => all::<I, MR, NV, false>(isa, t, acc, &codes),
                    Some(_) => all::<I, MR, NV, true>(isa, t, acc, &codes),
                }
                if let Some(table) = table {
                    isa.dispatch(Translate { tile: t, table, pixels: MR });
                }
            }
            _ => held(isa, t, acc),
        }
    }
}

/// Whether vectors are whole blocks, all of them stored, pixels lie side by side, and codes are bounded by what a byte holds
/// from below.
#[inline(always)]
fn is_dense<I: Isa, const NV: usize>(t: &Tile<'_>, to: &Recode, join: Option<&Join>) -> bool {
    let last = join.map_or(to, |join| &join.to);
    I::LANES == BLOCK && t.out_pitch == BLOCK && t.valid >= NV * BLOCK && last.lo == -(last.zero as f32)
}

/// Codes of sums, and with which others they are joined.
struct Codes<'a> {
    to: &'a Recode,
    join: Option<&'a Join>,
}

impl Codes<'_> {
    /// The code of a sum, or less than zero where storing cuts it off; with `JOIN`, joined with the code at `other`.
    ///
    /// # Safety
    /// With `JOIN`, `other` can be read.
    #[inline(always)]
    unsafe fn of<I: Isa, const JOIN: bool>(
        &self,
        isa: I,
        sum: I::I32,
        (factor, shift): (I::F32, I::F32),
        other: *const u8,
    ) -> I::I32 {
        let (mut number, mut to) = (isa.fma(isa.to_f32(sum), factor, shift), self.to);
        if JOIN && let Some(join) = self.join {
            let Join { own, theirs, shift, .. } = *join;
            // SAFETY: by the caller's promise.
            let other = isa.to_f32(unsafe { isa.load_u8_ptr(other) });
            let shift = isa.fma(other, isa.splat(theirs), isa.splat(shift));
            number = isa.fma(isa.to_f32(to.round(isa, number)), isa.splat(own), shift);
            to = &join.to;
        }
        isa.add_i32(isa.to_i32(isa.min(number, isa.splat(to.hi))), isa.splat_i32(to.zero))
    }
}

/// Stores codes from the registers. Loops of few rounds are unrolled; in a longer one, sums would lie in memory.
///
/// # Safety
/// As for [`TileFn`](super::tile::TileFn); the tile is [dense](is_dense).
#[inline(always)]
unsafe fn all<I: Isa, const MR: usize, const NV: usize, const JOIN: bool>(
    isa: I,
    t: &Tile<'_>,
    acc: &[[I::I32; NV]; MR],
    codes: &Codes<'_>,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        four::<I, MR, NV, JOIN, 0>(isa, t, acc, codes);
        four::<I, MR, NV, JOIN, 4>(isa, t, acc, codes);
        four::<I, MR, NV, JOIN, 8>(isa, t, acc, codes);
        four::<I, MR, NV, JOIN, 12>(isa, t, acc, codes);
    }
}

/// [`all`] for those of the tile's pixels that are among the four from `FIRST` on.
///
/// # Safety
/// As for [`all`].
#[expect(clippy::needless_range_loop, reason = "bounds known when compiling, so that it is unrolled")]
#[inline(always)]
unsafe fn four<I: Isa, const MR: usize, const NV: usize, const JOIN: bool, const FIRST: usize>(
    isa: I,
    t: &Tile<'_>,
    acc: &[[I::I32; NV]; MR],
    codes: &Codes<'_>,
) {
    let count = MR.saturating_sub(FIRST).min(4);
    for v in 0..if count > 0 { NV } else { 0 } {
        let at = column::<I>(t, v, 1) + FIRST * BLOCK;
        // SAFETY: these pixels are the tile's, and so are the codes that they are joined with.
        unsafe {
            let affine = affine(isa, t, v);
            let mut four = [isa.splat_i32(0); 4];
            for i in 0..count {
                let other = t.residual.wrapping_add(at + i * BLOCK);
                four[i] = codes.of::<I, JOIN>(isa, acc[FIRST + i][v], affine, other);
            }
            if count == 4 {
                isa.store_four_u8_ptr(four, t.out.wrapping_add(at));
            } else {
                for i in 0..count {
                    isa.store_u8_ptr(four[i], t.out.wrapping_add(at + i * BLOCK));
                }
            }
        }
    }
}

/// Factor and summand of a vector of outputs.
///
/// # Safety
/// As for [`TileFn`](super::tile::TileFn).
#[inline(always)]
unsafe fn affine<I: Isa>(isa: I, t: &Tile<'_>, v: usize) -> (I::F32, I::F32) {
    let at = t.first + v * I::LANES;
    // SAFETY: factors and summands fill a panel.
    unsafe { (isa.load_ptr(t.ending.factor.as_ptr().add(at)), isa.load_ptr(t.ending.shift.as_ptr().add(at))) }
}

/// Leaves the sums in memory, and stores what becomes of them.
///
/// # Safety
/// As for [`TileFn`](super::tile::TileFn).
#[inline(always)]
unsafe fn held<I: Isa, const MR: usize, const NV: usize>(isa: I, t: &Tile<'_>, acc: &[[I::I32; NV]; MR]) {
    let mut sums = MaybeUninit::<Sums>::uninit();
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
                Result8::Floats(act) if self.tile.given.is_given() => self.floats::<I, true>(isa, *act),
                Result8::Floats(act) => self.floats::<I, false>(isa, *act),
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
    /// As for [`TileFn`](super::tile::TileFn).
    #[inline(always)]
    unsafe fn number<I: Isa>(&self, isa: I, m: usize, v: usize, line: (I::F32, I::F32)) -> I::F32 {
        // SAFETY: the sums were stored.
        let sum = unsafe { isa.load_i32_ptr(self.sums.add((m * self.vectors + v) * I::LANES)) };
        isa.fma(isa.to_f32(sum), line.0, line.1)
    }

    /// Stores numbers; with `GIVEN`, each pixel's codes have a scale of their own, and so may the weights.
    ///
    /// # Safety
    /// As for [`TileFn`](super::tile::TileFn).
    #[inline(always)]
    unsafe fn floats<I: Isa, const GIVEN: bool>(&self, isa: I, act: Act) {
        let (t, (lo, hi, later)) = (self.tile, act.split());
        for v in 0..self.vectors {
            let left = t.valid.saturating_sub(v * I::LANES).min(I::LANES);
            // SAFETY: only existing outputs are read and stored.
            unsafe {
                let mut line = affine(isa, t, v);
                if GIVEN && !t.given.weights.is_null() {
                    line.0 = isa.mul(line.0, isa.load_ptr(t.given.weights.add(v * I::LANES)));
                }
                for m in 0..self.pixels {
                    let mut affine = line;
                    if GIVEN {
                        affine.0 = isa.mul(line.0, isa.splat(t.given.pixel(m)[0]));
                    }
                    let mut y = self.number(isa, m, v, affine);
                    if !t.residual.is_null() {
                        let at = m * t.out_pitch + column::<I>(t, v, size_of::<f32>());
                        y = isa.add(y, isa.load_part_ptr(t.residual.wrapping_add(at).cast(), left));
                    }
                    let y = clip(isa, y, lo, hi);
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
    /// As for [`TileFn`](super::tile::TileFn).
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
                let affine = affine(isa, t, v);
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

/// [`translate_tile`] as a function of its own; made by [`end`] only, which was promised the tile.
struct Translate<'a> {
    tile: &'a Tile<'a>,
    table: &'a [u8; 256],
    pixels: usize,
}

impl Kernel for Translate<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: by the promise to `end`.
        unsafe { translate_tile(isa, self.tile, self.table, self.pixels) };
    }
}

/// Translates what was stored.
///
/// # Safety
/// As for [`TileFn`](super::tile::TileFn), with `pixels` pixels.
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
