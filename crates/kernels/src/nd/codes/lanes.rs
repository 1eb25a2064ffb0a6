//! Windows of channels that each have one output: four taps of a row at a time meet four weights, channel by channel.

use kinglet_simd::{Isa, Kernel};

use super::finish::end;
use super::tile::{Given, QUAD, Tile, begin};
use crate::nd::layout::BLOCK;

/// Pixels of the longest tile.
pub(super) const LONGEST: usize = 14;
/// Bytes behind the last pixel that a tile may read, and that must be there.
pub(super) const SLACK: usize = 4 * BLOCK;

/// Computes a block of sixteen channels of some pixels. `taps[1]` rows of `taps[2]` taps, `a_step[1]` and `a_step[2]`
/// bytes apart; the weights are those of a row's taps, four by four and zero behind the last, for each channel.
pub(super) struct Lanes<'a> {
    pub(super) tile: Tile<'a>,
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
        let t = &self.tile;
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
            isa.dispatch(Lanes { tile: rest, pixels: self.pixels - M });
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
            ..self.tile
        };
        let quads = t.taps[2].div_ceil(QUAD);
        // SAFETY: by the caller's promise.
        unsafe {
            let mut acc = begin::<I, M, 1>(isa, &t);
            for y in 0..t.taps[1] {
                for quad in 0..quads {
                    let w = t.w.add((y * quads + quad) * BLOCK * QUAD);
                    let taps = isa.taps(isa.load_bytes_ptr(w.cast()));
                    let a = t.a.add(y * t.a_step[1] + quad * QUAD * t.a_step[2]);
                    for (m, row) in acc.iter_mut().enumerate() {
                        let codes = isa.codes(isa.load_quads_ptr(a.add(m * t.pitch), t.a_step[2]));
                        row[0] = isa.dot_codes(row[0], codes, taps);
                    }
                }
            }
            end::<I, M, 1>(isa, &t, &acc);
        }
    }
}
