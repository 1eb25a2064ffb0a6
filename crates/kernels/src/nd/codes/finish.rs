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

/// Leaves the sums, and stores what becomes of them: loops over sums in registers would have to be unrolled whole.
///
/// # Safety
/// As for [`TileFn`](super::tile::TileFn).
#[inline(always)]
pub(super) unsafe fn end<I: Isa, const MR: usize, const NV: usize>(
    isa: I,
    t: &Tile<'_>,
    acc: &[[I::I32; NV]; MR],
) {
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
                Result8::Codes { to, line: None, join: None, table: None } if self.is_dense::<I>() => {
                    self.fours(isa, to);
                }
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
    /// As for [`TileFn`](super::tile::TileFn).
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
                let mut line = self.line(isa, v);
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

    /// Whether vectors are whole blocks, all of them stored, and pixels lie side by side.
    #[inline(always)]
    fn is_dense<I: Isa>(&self) -> bool {
        let t = self.tile;
        I::LANES == BLOCK && t.out_pitch == BLOCK && t.valid >= self.vectors * BLOCK
    }

    /// Stores the codes of each number, four pixels at a time.
    ///
    /// # Safety
    /// As for [`TileFn`](super::tile::TileFn); the tile is [dense](Self::is_dense).
    #[inline(always)]
    unsafe fn fours<I: Isa>(&self, isa: I, to: &Recode) {
        for v in 0..self.vectors {
            // SAFETY: only existing outputs are stored.
            unsafe {
                let affine = self.line(isa, v);
                let out = self.tile.out.wrapping_add(column::<I>(self.tile, v, 1));
                let whole = self.pixels / 4 * 4;
                for m in (0..whole).step_by(4) {
                    let mut four = [isa.splat_i32(0); 4];
                    for (i, code) in four.iter_mut().enumerate() {
                        *code = self.unsigned(isa, m + i, v, affine, to);
                    }
                    isa.store_four_u8_ptr(four, out.wrapping_add(m * BLOCK));
                }
                for m in whole..self.pixels {
                    let code = self.unsigned(isa, m, v, affine, to);
                    isa.store_u8_ptr(code, out.wrapping_add(m * BLOCK));
                }
            }
        }
    }

    /// A number's code, or less where storing cuts it off at zero.
    ///
    /// # Safety
    /// As for [`TileFn`](super::tile::TileFn).
    #[inline(always)]
    unsafe fn unsigned<I: Isa>(
        &self,
        isa: I,
        m: usize,
        v: usize,
        affine: (I::F32, I::F32),
        to: &Recode,
    ) -> I::I32 {
        // SAFETY: by the caller's promise.
        let number = unsafe { self.number(isa, m, v, affine) };
        if to.zero == 0 && to.lo == 0.0 {
            return isa.to_i32(isa.min(number, isa.splat(to.hi)));
        }
        isa.add_i32(to.round(isa, number), isa.splat_i32(to.zero))
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
