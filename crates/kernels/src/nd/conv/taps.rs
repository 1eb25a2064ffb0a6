//! Windows of channels that each have one output, over rows that have all taps: a kernel for each size of window.
//!
//! Square windows of 3, 5 or 7 taps at stride 1 or 2. Additions are in the order of the taps, as in the tiles that serve
//! every window.

use std::mem::MaybeUninit;

use kinglet_simd::{Isa, Kernel};

use super::ConvShape;
use super::pass::Job;
use crate::nd::act::{Act, Apply, Runs, clip};
use crate::nd::layout::BLOCK;
use crate::nd::pairs::PAIRS;
use crate::nd::shape::cuts;

/// Pixels of the longest tile.
const LONGEST: usize = 16;
/// Floats behind the last row that a tile may read, and that must be there.
pub(super) const SLACK: usize = LONGEST * 2 * BLOCK;

/// A window that has a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taps {
    /// Taps along each axis.
    pub(super) kernel: usize,
    stride: usize,
}

impl Taps {
    /// That of a convolution that multiplies lane by lane, one output a channel; none when there is no such kernel.
    pub(super) fn of(shape: &ConvShape) -> Option<Self> {
        let [kernel, stride] = [shape.window.kernel, shape.window.stride].map(|[y, x]| (y == x).then_some(x));
        let (kernel, stride) = (kernel?, stride?);
        let known = matches!(kernel, 3 | 5 | 7) && matches!(stride, 1 | 2) && shape.window.dilation == [1, 1];
        known.then_some(Self { kernel, stride })
    }

    /// Computes rows of outputs of the job's panels.
    ///
    /// # Safety
    /// The job is vouched for; behind the inputs of each row, as many floats as the slack says can be read.
    #[inline(always)]
    pub(super) unsafe fn rows<I: Isa>(self, isa: I, job: &Job<'_>, rows: usize, out_width: usize) {
        match (self.kernel, self.stride) {
            (3, 1) => isa.dispatch_bf16(Rows::<3, 1> { job, rows, out_width }),
            (3, _) => isa.dispatch_bf16(Rows::<3, 2> { job, rows, out_width }),
            (5, 1) => isa.dispatch_bf16(Rows::<5, 1> { job, rows, out_width }),
            (5, _) => isa.dispatch_bf16(Rows::<5, 2> { job, rows, out_width }),
            (_, 1) => isa.dispatch_bf16(Rows::<7, 1> { job, rows, out_width }),
            (..) => isa.dispatch_bf16(Rows::<7, 2> { job, rows, out_width }),
        }
    }
}

/// Rows of outputs, `K` by `K` taps at stride `S`.
struct Rows<'a, const K: usize, const S: usize> {
    job: &'a Job<'a>,
    rows: usize,
    /// Pixels from a row of outputs to the next.
    out_width: usize,
}

impl<const K: usize, const S: usize> Kernel for Rows<'_, K, S> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Job { conv, place, .. } = self.job;
        let (_, _, later) = conv.shape.act.split();
        for panel in self.job.panels.clone() {
            let panel = &conv.panels[panel];
            let block = panel.blocks.start;
            let (w, bias) = (conv.weights[panel.at..].as_ptr(), conv.bias[block * BLOCK..].as_ptr());
            for row in 0..self.rows {
                let from = panel.rounds.start * place.x_plane + row * S * place.x_width * BLOCK;
                let out = block * place.out_plane + row * self.out_width * place.out_pixel;
                self.row(isa, [w, bias], from, out);
                if later && place.out_pixel == BLOCK {
                    let (at, count) = (place.out.wrapping_add(out), conv.output[1] * BLOCK);
                    // SAFETY: this row of outputs was just made by this worker.
                    unsafe { Apply::new(conv.shape.act, Runs { at, rows: 1, pitch: 0, count }) }.run(isa);
                }
            }
        }
    }
}

impl<const K: usize, const S: usize> Rows<'_, K, S> {
    /// The row of outputs that begins at `out`, from inputs that begin at `from`, with weights and bias of its block.
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, [w, bias]: [*const f32; 2], from: usize, out: usize) {
        let Job { conv, place, .. } = self.job;
        let most = if I::REGISTERS >= 32 { LONGEST } else { LONGEST / 2 };
        let (lo, hi, _) = conv.shape.act.split();
        for pixels in cuts(conv.output[1], most) {
            let at = out + pixels.start * place.out_pixel;
            let residual = place.residual;
            let tile = Tile {
                a: place.x.wrapping_add(from + pixels.start * S * BLOCK),
                row: place.x_width * BLOCK,
                w,
                bias,
                residual: if residual.is_null() { residual } else { residual.wrapping_add(at) },
                out: place.out.wrapping_add(at),
                pixels: pixels.len(),
                bounds: (lo, hi),
                act: conv.shape.act,
                halves: place.out_pixel == PAIRS,
            };
            // SAFETY: the job vouches for all taps of these pixels and the slack behind them, outputs and residuals;
            // weights and bias fill a block.
            unsafe {
                match pixels.len() {
                    0..=4 => tile.run::<I, K, S, 4>(isa),
                    5..=7 => tile.run::<I, K, S, 7>(isa),
                    9..=14 if I::REGISTERS >= 32 => tile.run::<I, K, S, 14>(isa),
                    15.. if I::REGISTERS >= 32 => tile.run::<I, K, S, 16>(isa),
                    _ => tile.run::<I, K, S, 8>(isa),
                }
            }
        }
    }
}

/// Neighbouring outputs of a block.
struct Tile {
    /// The first output's first tap.
    a: *const f32,
    /// Floats between rows of input.
    row: usize,
    w: *const f32,
    bias: *const f32,
    /// Null when there is none.
    residual: *const f32,
    out: *mut f32,
    pixels: usize,
    bounds: (f32, f32),
    act: Act,
    /// Whether outputs and residuals are bfloat16; then the activation is the tile's to apply.
    halves: bool,
}

impl Tile {
    /// Computes `M` outputs and stores as many as the tile has.
    ///
    /// # Safety
    /// Every pointer is valid for what the tile reads and writes, `a` for all taps of `M` outputs.
    #[inline(always)]
    unsafe fn run<I: Isa, const K: usize, const S: usize, const M: usize>(&self, isa: I) {
        for lane in (0..BLOCK).step_by(I::LANES) {
            // SAFETY: by the caller's promise.
            unsafe {
                let mut acc = [isa.zero(); M];
                for y in 0..K {
                    let (a, w) = (self.a.add(y * self.row + lane), self.w.add(y * K * BLOCK + lane));
                    for x in 0..K {
                        let weight = isa.load_ptr(w.add(x * BLOCK));
                        for (m, sum) in acc.iter_mut().enumerate() {
                            *sum = isa.fma(isa.load_ptr(a.add((x + m * S) * BLOCK)), weight, *sum);
                        }
                    }
                }
                if self.halves && (!I::BF16 || self.act.split().2) {
                    self.held(isa, &acc, lane);
                } else {
                    // Loops of few rounds are unrolled; in a longer one, sums would lie in memory.
                    self.finish_four::<I, M, 0>(isa, &acc, lane);
                    self.finish_four::<I, M, 4>(isa, &acc, lane);
                    self.finish_four::<I, M, 8>(isa, &acc, lane);
                    self.finish_four::<I, M, 12>(isa, &acc, lane);
                }
            }
        }
    }

    /// Stores those of the tile's outputs that are among the four from `FIRST` on.
    ///
    /// # Safety
    /// Every pointer is valid for what the tile reads and writes.
    #[expect(clippy::needless_range_loop, reason = "bounds known when compiling, so that it is unrolled")]
    #[inline(always)]
    unsafe fn finish_four<I: Isa, const M: usize, const FIRST: usize>(
        &self,
        isa: I,
        acc: &[I::F32; M],
        lane: usize,
    ) {
        for m in FIRST..M.min(FIRST + 4) {
            if m < self.pixels {
                let at = m * BLOCK + lane;
                // SAFETY: by the caller's promise.
                unsafe {
                    if self.halves {
                        isa.store_bf16_ptr(
                            self.complete(isa, acc[m], m, lane),
                            self.out.cast::<u16>().add(at),
                        );
                    } else {
                        isa.store_ptr(self.complete(isa, acc[m], m, lane), self.out.add(at));
                    }
                }
            }
        }
    }

    /// The sum of pixel `m`, lanes from `lane` on, with bias and residual, between the bounds.
    ///
    /// # Safety
    /// The tile has such a pixel.
    #[inline(always)]
    unsafe fn complete<I: Isa>(&self, isa: I, sum: I::F32, m: usize, lane: usize) -> I::F32 {
        let at = m * BLOCK + lane;
        // SAFETY: by the caller's promise; biases fill a block.
        let sum = unsafe {
            let sum = isa.add(isa.load_ptr(self.bias.add(lane)), sum);
            match (self.residual.is_null(), self.halves) {
                (true, _) => sum,
                (_, true) => isa.add(sum, isa.load_bf16_ptr(self.residual.cast::<u16>().add(at))),
                (_, false) => isa.add(sum, isa.load_ptr(self.residual.add(at))),
            }
        };
        clip(isa, sum, self.bounds.0, self.bounds.1)
    }

    /// Stores the tile's outputs by way of memory, where the activation is applied.
    ///
    /// # Safety
    /// Every pointer is valid for what the tile reads and writes.
    #[inline(always)]
    unsafe fn held<I: Isa, const M: usize>(&self, isa: I, acc: &[I::F32; M], lane: usize) {
        let mut held = MaybeUninit::<[f32; LONGEST * BLOCK]>::uninit();
        let sums = held.as_mut_ptr().cast::<f32>();
        for (m, sum) in acc.iter().enumerate() {
            // SAFETY: no tile has more sums than there is room for.
            unsafe { isa.store_ptr(*sum, sums.add(m * I::LANES)) };
        }
        isa.dispatch_bf16(Finish { tile: self, lane, sums });
    }
}

/// Completes sums of the lanes from `lane` on, applies the activation, and stores them in bfloat16; made by
/// [`Tile::held`] only, which was promised the tile.
struct Finish<'a> {
    tile: &'a Tile,
    lane: usize,
    sums: *mut f32,
}

impl Kernel for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { tile, lane, sums } = self;
        let (act, count) = (tile.act, tile.pixels * I::LANES);
        // SAFETY: `held` wrote all sums, and these pixels are the tile's.
        unsafe {
            for m in 0..tile.pixels {
                let sum = sums.add(m * I::LANES);
                isa.store_ptr(tile.complete(isa, isa.load_ptr(sum), m, lane), sum);
            }
            if act.split().2 {
                Apply::new(act, Runs { at: sums, rows: 1, pitch: 0, count }).run(isa);
            }
            for m in 0..tile.pixels {
                let sum = isa.load_ptr(sums.add(m * I::LANES));
                isa.store_bf16_ptr(sum, tile.out.cast::<u16>().add(m * BLOCK + lane));
            }
        }
    }
}
