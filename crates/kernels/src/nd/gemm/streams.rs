//! One row of bfloat16 over weights that come from memory: several panels at a time, since so many streams are read
//! faster than one. Sums are those of the tiles, in the same order.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::Gemm;
use crate::SharedMut;
use crate::nd::layout::BLOCK;
use crate::nd::tile::{Dynamic, Pairs, Tile, tiles};

/// Panels that are read at a time.
pub(super) const STREAMS: usize = 4;
/// Vectors of a panel, where pairs are multiplied by an instruction.
const VECTORS: usize = 2;
/// Floats of a stream that are asked for ahead of their use.
const AHEAD: usize = 20 * BLOCK;

/// A row and some panels.
pub(super) struct OneRow<'a> {
    pub(super) gemm: &'a Gemm,
    pub(super) panels: Range<usize>,
    /// The row's pairs, side by side.
    pub(super) x: SharedMut<'a, f32>,
    pub(super) residual: Option<SharedMut<'a, f32>>,
    pub(super) out: SharedMut<'a, f32>,
    /// Where the row's outputs begin.
    pub(super) at: usize,
}

impl OneRow<'_> {
    /// Whether rows of this product can go this way.
    pub(super) fn suits(gemm: &Gemm) -> bool {
        gemm.pairs && gemm.level.has_bf16() && gemm.width == VECTORS * gemm.level.lanes()
    }

    /// Computes the panels' outputs.
    ///
    /// # Safety
    /// `x` holds a row, and the panels' outputs from `at` on are this worker's; [`suits`](Self::suits) said yes.
    pub(super) unsafe fn run(self) {
        assert!(self.gemm.deep() <= self.x.len() && self.at + self.gemm.n <= self.out.len(), "a row");
        dispatch(self.gemm.level, Enter(self));
    }
}

/// Enables the instructions; made by [`OneRow::run`] only.
struct Enter<'a>(OneRow<'a>);

impl Kernel for Enter<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.dispatch_bf16(Entered(self.0));
    }
}

struct Entered<'a>(OneRow<'a>);

impl Kernel for Entered<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row = &self.0;
        let mut panel = row.panels.start;
        while panel < row.panels.end {
            let left = row.panels.end - panel;
            // SAFETY: by the promise to `OneRow::run`.
            unsafe {
                match left {
                    STREAMS.. => row.sums::<I, STREAMS>(isa, panel),
                    2.. => row.sums::<I, 2>(isa, panel),
                    _ => row.sums::<I, 1>(isa, panel),
                }
            }
            panel += if left >= STREAMS { STREAMS } else { left.min(2) };
        }
    }
}

impl OneRow<'_> {
    /// The outputs of `S` panels.
    ///
    /// # Safety
    /// As for [`run`](Self::run); there are so many panels.
    #[inline(always)]
    unsafe fn sums<I: Isa, const S: usize>(&self, isa: I, panel: usize) {
        let gemm = self.gemm;
        let (deep, width, x) = (gemm.deep(), gemm.width, self.x.as_ptr().cast::<i32>());
        let mut total = [[isa.zero(); VECTORS]; S];
        // SAFETY: weights are whole panels of `deep` rows, and bias fills them; the row has `deep` pairs.
        unsafe {
            for (s, total) in total.iter_mut().enumerate() {
                for (v, sum) in total.iter_mut().enumerate() {
                    *sum = isa.load(&gemm.bias[(panel + s) * width + v * I::LANES..]);
                }
            }
            for from in (0..deep).step_by(gemm.part()) {
                let mut acc = [[isa.zero(); VECTORS]; S];
                for k in from..deep.min(from + gemm.part()) {
                    let a = isa.splat_i32(*x.add(k));
                    for (s, acc) in acc.iter_mut().enumerate() {
                        let w = gemm.panel(panel + s).add(k * width);
                        for (v, sum) in acc.iter_mut().enumerate() {
                            let w = w.add(v * I::LANES);
                            isa.prefetch(w.wrapping_add(AHEAD));
                            *sum = isa.dot_bf16(*sum, a, isa.bits_of(isa.load_ptr(w)));
                        }
                    }
                }
                for (total, acc) in total.iter_mut().zip(&acc) {
                    for (total, sum) in total.iter_mut().zip(acc) {
                        *total = isa.add(*total, *sum);
                    }
                }
            }
            for (s, total) in total.iter().enumerate() {
                let out = self.at + (panel + s) * width;
                for (v, sum) in total.iter().enumerate() {
                    let left = (self.at + gemm.n).saturating_sub(out + v * I::LANES).min(I::LANES);
                    isa.store_part_ptr(*sum, self.out.as_mut_ptr().wrapping_add(out + v * I::LANES), left);
                }
                self.finish(isa, panel + s);
            }
        }
    }

    /// Does to a panel's sums what follows them.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn finish<I: Isa>(&self, isa: I, panel: usize) {
        let Gemm { n, width, act, .. } = *self.gemm;
        let out = self.at + panel * width;
        let residual = self.residual.map_or(std::ptr::null(), |r| r.as_ptr().wrapping_add(out));
        let tile = Tile {
            a: self.x.as_ptr(),
            pitch: 0,
            taps: [0; 3],
            a_step: [0; 3],
            w: self.gemm.panel(panel),
            w_step: [0; 3],
            ahead: std::ptr::null(),
            lines: 0,
            k: 0,
            k_last: 0,
            start: std::ptr::null(),
            out: self.out.as_mut_ptr().wrapping_add(out),
            out_pitch: n,
            out_block: BLOCK,
            valid: width.min(n - panel * width),
            last: true,
            residual,
            act,
            halves: false,
        };
        // SAFETY: by the caller's promise; a tile without taps only reads and writes its outputs.
        unsafe { tiles::<I, Dynamic, Pairs>(width / BLOCK).get(1)(isa, &tile) };
    }
}
