//! Windows of channels that each have one output: four pixels of a row at a time meet four weights, channel by channel.

use kinglet_simd::{Isa, Kernel};

use super::finish::end;
use super::tile::{Given, QUAD, Tile, begin};
use crate::nd::layout::BLOCK;

/// Pixels of the longest tile.
pub(super) const LONGEST: usize = 14;
/// Bytes behind the last pixel that a tile may read, and that must be there.
pub(super) const SLACK: usize = 4 * BLOCK;

/// Computes a block of sixteen channels of some pixels. `taps[1]` rows of `taps[2]` taps, `a_step[1]` and `a_step[2]`
/// bytes apart; the weights are, for each row of taps, channels by fours, one vector a [place](places) where a window can
/// begin before or among four pixels.
pub(super) struct Lanes<'a> {
    pub(super) tile: &'a Tile<'a>,
    pub(super) pixels: usize,
}

impl Kernel for Lanes<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: who made the tile vouches for it, and for the slack.
        unsafe {
            match self.pixels {
                14 => self.each::<I, 14>(isa),
                7.. => self.cut::<I, 7>(isa),
                4.. => self.cut::<I, 4>(isa),
                _ => self.cut::<I, 1>(isa),
            }
        }
    }
}

impl Lanes<'_> {
    /// The first `M` pixels, then the others.
    ///
    /// # Safety
    /// As for a tile, with the slack.
    #[inline(always)]
    unsafe fn cut<I: Isa, const M: usize>(&self, isa: I) {
        let t = self.tile;
        // SAFETY: the same promise.
        unsafe { self.each::<I, M>(isa) };
        if self.pixels > M {
            let out = M * t.out_pitch;
            let rest = Tile {
                a: t.a.wrapping_add(M * t.pitch),
                out: t.out.wrapping_add(out),
                residual: if t.residual.is_null() { t.residual } else { t.residual.wrapping_add(out) },
                given: Given { at: t.given.at.wrapping_add(M * t.given.step), ..t.given },
                ..*t
            };
            isa.dispatch(Lanes { tile: &rest, pixels: self.pixels - M });
        }
    }

    /// # Safety
    /// As for a tile of `M` pixels, with the slack.
    #[inline(always)]
    unsafe fn each<I: Isa, const M: usize>(&self, isa: I) {
        for lane in (0..BLOCK).step_by(I::LANES) {
            // SAFETY: by the caller's promise.
            unsafe { self.vector::<I, M>(isa, lane) };
        }
    }

    /// The channels from `lane` on that fill a vector.
    ///
    /// # Safety
    /// As for [`each`](Self::each).
    #[inline(always)]
    unsafe fn vector<I: Isa, const M: usize>(&self, isa: I, lane: usize) {
        let (residual, width) = (self.tile.residual, if self.tile.ending.codes() { 1 } else { 4 });
        let weights = self.tile.given.weights;
        let t = Tile {
            a: self.tile.a.wrapping_add(lane),
            w: self.tile.w.wrapping_add(lane * QUAD),
            sums: self.tile.sums.wrapping_add(lane),
            first: self.tile.first + lane,
            out: self.tile.out.wrapping_add(width * lane),
            residual: if residual.is_null() { residual } else { residual.wrapping_add(width * lane) },
            given: Given {
                weights: if weights.is_null() { weights } else { weights.wrapping_add(lane) },
                ..self.tile.given
            },
            valid: I::LANES,
            ..*self.tile
        };
        let pitch = if t.a_step[2] == BLOCK { t.pitch / BLOCK } else { 0 };
        // SAFETY: by the caller's promise.
        unsafe {
            match (t.taps[2], pitch) {
                (3, 1) => slide::<I, M, 3, 1>(isa, &t),
                (3, 2) => slide::<I, M, 3, 2>(isa, &t),
                (5, 1) => slide::<I, M, 5, 1>(isa, &t),
                (5, 2) => slide::<I, M, 5, 2>(isa, &t),
                (7, 1) => slide::<I, M, 7, 1>(isa, &t),
                _ => apart::<I, M>(isa, &t),
            }
        }
    }
}

/// Vectors of weights of a row of taps: those of four neighbouring pixels for each place where a window can begin, from the
/// one whose last tap is the first pixel to the one whose first tap is the last pixel.
pub(super) const fn places(columns: usize) -> usize {
    columns + QUAD - 1
}

/// Outputs pixel by pixel: each reads the taps of its own window.
///
/// # Safety
/// As for [`Lanes::each`].
#[inline(always)]
unsafe fn apart<I: Isa, const M: usize>(isa: I, t: &Tile<'_>) {
    let columns = t.taps[2];
    // SAFETY: by the caller's promise.
    unsafe {
        let mut acc = begin::<I, M, 1>(isa, t);
        for y in 0..t.taps[1] {
            for quad in 0..columns.div_ceil(QUAD) {
                let place = y * places(columns) + columns - 1 - quad * QUAD;
                let taps = isa.taps(isa.load_bytes_ptr(t.w.add(place * BLOCK * QUAD).cast()));
                let a = t.a.add(y * t.a_step[1] + quad * QUAD * t.a_step[2]);
                for (m, row) in acc.iter_mut().enumerate() {
                    let codes = isa.codes(isa.load_quads_ptr(a.add(m * t.pitch), t.a_step[2]));
                    row[0] = isa.dot_codes(row[0], codes, taps);
                }
            }
        }
        end::<I, M, 1>(isa, t, &acc);
    }
}

/// Neighbouring outputs of windows of `KX` neighbouring columns, `ST` pixels apart: four pixels at a time meet all windows
/// that they lie in.
///
/// # Safety
/// As for [`Lanes::each`].
#[inline(always)]
unsafe fn slide<I: Isa, const M: usize, const KX: usize, const ST: usize>(isa: I, t: &Tile<'_>) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut acc = begin::<I, M, 1>(isa, t);
        for y in 0..t.taps[1] {
            let (a, w) = (t.a.add(y * t.a_step[1]), t.w.add(y * places(KX) * BLOCK * QUAD));
            // One by one, so that it is known which windows the pixels of each lie in.
            quad::<I, M, KX, ST>(isa, 0, a, w, &mut acc);
            quad::<I, M, KX, ST>(isa, 1, a, w, &mut acc);
            quad::<I, M, KX, ST>(isa, 2, a, w, &mut acc);
            quad::<I, M, KX, ST>(isa, 3, a, w, &mut acc);
            quad::<I, M, KX, ST>(isa, 4, a, w, &mut acc);
            quad::<I, M, KX, ST>(isa, 5, a, w, &mut acc);
            quad::<I, M, KX, ST>(isa, 6, a, w, &mut acc);
            quad::<I, M, KX, ST>(isa, 7, a, w, &mut acc);
        }
        end::<I, M, 1>(isa, t, &acc);
    }
}

/// The `q`th four pixels of a row, unless no window reaches them.
///
/// # Safety
/// As for [`Lanes::each`].
#[inline(always)]
unsafe fn quad<I: Isa, const M: usize, const KX: usize, const ST: usize>(
    isa: I,
    q: usize,
    a: *const u8,
    w: *const i8,
    acc: &mut [[I::I32; 1]; M],
) {
    const { assert!((13 * ST + KX).div_ceil(QUAD) <= 8, "eight times four pixels are all") };
    if q * QUAD >= (M - 1) * ST + KX {
        return;
    }
    // SAFETY: by the caller's promise.
    unsafe {
        let codes = isa.codes(isa.load_quads_ptr(a.add(q * QUAD * BLOCK), BLOCK));
        for (m, row) in acc.iter_mut().enumerate() {
            let place = (ST * m + KX - 1).wrapping_sub(q * QUAD);
            if place < places(KX) {
                let taps = isa.taps(isa.load_bytes_ptr(w.add(place * BLOCK * QUAD).cast()));
                row[0] = isa.dot_codes(row[0], codes, taps);
            }
        }
    }
}
