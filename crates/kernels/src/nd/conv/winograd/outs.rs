//! The way back of Winograd's transform: products of a tile to outputs, with everything that follows.

use kinglet_simd::Isa;

use super::{IN, OUT};
use crate::nd::act::{Act, Apply, Runs, clip};
use crate::nd::layout::BLOCK;
use crate::nd::pairs::{load, store};

/// A tile's products for a block of outputs, and where the outputs go.
#[derive(Clone, Copy)]
pub(super) struct Outs {
    /// Points lie `step` floats apart.
    pub(super) m: *const f32,
    pub(super) step: usize,
    pub(super) bias: *const f32,
    /// Null when there is none; rows and pixels lie so many floats apart.
    pub(super) residual: *const f32,
    pub(super) residual_pitch: usize,
    pub(super) residual_pixel: usize,
    /// Outputs, bfloat16 when a pixel has as many floats as pairs.
    pub(super) to: *mut f32,
    pub(super) pitch: usize,
    pub(super) pixel: usize,
    /// Outputs of the tile that exist.
    pub(super) size: [usize; 2],
    pub(super) act: Act,
}

impl Outs {
    /// Makes outputs of the products.
    ///
    /// # Safety
    /// Everything is valid, and the outputs are the caller's.
    #[inline(always)]
    pub(super) unsafe fn finish<I: Isa>(&self, isa: I) {
        let (act, [rows, wide]) = (self.act, self.size);
        let runs = |at, pitch| Runs { at, rows, pitch, count: wide * BLOCK };
        // SAFETY: by the caller's promise; what is held is this call's.
        unsafe {
            if !act.split().2 {
                return self.sums(isa);
            }
            if self.pixel == BLOCK {
                self.sums(isa);
                return isa.dispatch(Apply::new(act, runs(self.to, self.pitch)));
            }
            let mut held = [0.0; OUT * OUT * BLOCK];
            let to = held.as_mut_ptr();
            Self { to, pitch: OUT * BLOCK, pixel: BLOCK, ..*self }.sums(isa);
            isa.dispatch(Apply::new(act, runs(to, OUT * BLOCK)));
            for row in 0..rows {
                for at in (0..wide * BLOCK).step_by(I::LANES) {
                    let value = isa.load(&held[row * OUT * BLOCK + at..]);
                    isa.store_bf16_ptr(value, self.to.add(row * self.pitch).cast::<u16>().add(at));
                }
            }
        }
    }

    /// `A^T m A`, bias, residual, bounds.
    ///
    /// # Safety
    /// As for [`finish`](Self::finish).
    #[inline(always)]
    unsafe fn sums<I: Isa>(&self, isa: I) {
        let ([high, wide], (lo, hi, _)) = (self.size, self.act.split());
        for lane in (0..BLOCK).step_by(I::LANES) {
            let mut half = [[isa.zero(); IN]; OUT];
            for j in 0..IN {
                let mut m = [isa.zero(); IN];
                for (i, m) in m.iter_mut().enumerate() {
                    // SAFETY: by the caller's promise, here and below.
                    *m = unsafe { isa.load_ptr(self.m.add((i * IN + j) * self.step + lane)) };
                }
                for (half, sum) in half.iter_mut().zip(backward(isa, m)) {
                    half[j] = sum;
                }
            }
            // SAFETY: as above.
            let bias = unsafe { isa.load_ptr(self.bias.add(lane)) };
            for (i, half) in half.into_iter().enumerate().take(high) {
                for (j, sum) in backward(isa, half).into_iter().enumerate().take(wide) {
                    let mut sum = isa.add(sum, bias);
                    // SAFETY: as above.
                    unsafe {
                        if !self.residual.is_null() {
                            let at = self.residual.add(i * self.residual_pitch + j * self.residual_pixel);
                            sum = isa.add(sum, load(isa, at, self.residual_pixel, lane));
                        }
                        let (sum, to) =
                            (clip(isa, sum, lo, hi), self.to.add(i * self.pitch + j * self.pixel));
                        store(isa, sum, to, self.pixel, lane);
                    }
                }
            }
        }
    }
}

/// `A^T m`.
#[inline(always)]
fn backward<I: Isa>(isa: I, m: [I::F32; IN]) -> [I::F32; OUT] {
    let (near, far) = (isa.add(m[1], m[2]), isa.add(m[3], m[4]));
    let (near_odd, far_odd) = (isa.sub(m[1], m[2]), isa.sub(m[3], m[4]));
    [
        isa.add(isa.add(m[0], near), far),
        isa.fma(isa.splat(2.0), far_odd, near_odd),
        isa.fma(isa.splat(4.0), far, near),
        isa.add(isa.fma(isa.splat(8.0), far_odd, near_odd), m[5]),
    ]
}
