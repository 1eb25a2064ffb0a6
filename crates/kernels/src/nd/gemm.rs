//! Products of rows with packed weights: `out = act(x w + bias + residual)`, everything in rows.
//!
//! Few rows are read in place. More are copied first, by all workers together, into the order in which the micro-kernel
//! reads them; then each worker passes all of them over some panels of weights, asking for the weights that follow while
//! it computes. Rows that are too many for a worker's cache are cut into blocks, each of which one worker copies for itself
//! and passes over all panels. Error: `(k + 2) * 2^-24 * sum(|x * w|)`, then the activation's; in bfloat16 also that of `pairs.rs`.

mod pack;
mod rows;
mod step;
mod streams;

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, Level};
use kinglet_tensor::AlignedBuf;

pub use self::pack::GemmPacking;
use self::pack::deep;
use self::rows::pitch;
pub use self::step::{GemmProduct, gemm, gemms};
use super::NdError;
use super::act::Act;
use super::layout::BLOCK;
use super::packed::{Packed, Packing};
use super::pairs::PAIRS;
use super::shape::cuts;
use super::tile::{Dense, Dynamic, Fixed, Operand, Pairs, Pitch, TALLEST, Tile, tallest, tiles};
use crate::SharedMut;

/// Weights `[k][n]` in panels of outputs.
#[derive(Debug)]
pub struct Gemm {
    level: Level,
    k: usize,
    n: usize,
    order: Order,
    /// Whether rows and weights are pairs of bfloat16.
    pairs: bool,
    act: Act,
    /// Outputs of a panel.
    width: usize,
    weights: Packed,
    bias: AlignedBuf<f32>,
}

/// How a weight matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// `[k][n]`.
    Inputs,
    /// `[n][k]`.
    Outputs,
}

/// Floats of weights that stay in the first-level cache while rows pass over them.
const CHUNK: usize = 32 << 8;
/// Floats of rows that are copied at a time, at most.
const COPY: usize = 2 << 20;
/// Floats of rows up to which all workers work on the same ones.
const SHARED: usize = 192 << 10;
/// Floats of a block of rows that one worker works on: they stay in its second-level cache beside weights and outputs.
const OWN: usize = 160 << 10;
/// Tiles of such a block, at least: with fewer, weights would be read too often.
const LEAST_TILES: usize = 4;
/// Rows up to which they are read in place.
const FEW: usize = 8;
/// Cache lines of later weights that a tile asks for in each round.
const LEAST_AHEAD: usize = 4;
const MOST_AHEAD: usize = 8;

impl Gemm {
    /// For a weight matrix of `k` inputs and `n` outputs, which is still to come, packed as [`packing`](Self::packing) says.
    pub fn new(
        level: Level,
        (k, n): (usize, usize),
        order: Order,
        bias: Option<&[f32]>,
        act: Act,
    ) -> Result<Self, NdError> {
        let wrong =
            || NdError { what: "gemm", reason: format!("bias {:?} for {k} x {n}", bias.map(<[f32]>::len)) };
        let packing = GemmPacking { level, k, n, order, pairs: false };
        let width = packing.width();
        let floats = n.checked_next_multiple_of(width).and_then(|n| n.checked_mul(k)).ok_or_else(wrong)?;
        if k == 0 || n == 0 || bias.is_some_and(|bias| bias.len() != n) {
            return Err(wrong());
        }
        let mut padded = AlignedBuf::<f32>::try_new(n.next_multiple_of(width))?;
        padded[..n].iter_mut().zip(bias.unwrap_or_default()).for_each(|(to, from)| *to = *from);
        let (weights, pairs) = (Packed::pending(floats), false);
        Ok(Self { level, k, n, order, pairs, act, width, weights, bias: padded })
    }

    /// The same with rows and weights rounded to bfloat16. Weights are still to come.
    pub fn in_bf16(self) -> Self {
        let floats = self.n.next_multiple_of(self.width) * deep(self.k, true);
        Self { pairs: true, weights: Packed::pending(floats), ..self }
    }

    /// Whether rows and weights are rounded to bfloat16.
    pub fn is_bf16(&self) -> bool {
        self.pairs
    }

    /// How its weights are packed.
    pub fn packing(&self) -> Packing {
        let Self { level, k, n, order, pairs, .. } = *self;
        Packing::Gemm(GemmPacking { level, k, n, order, pairs })
    }

    /// The same with these weights, which may be shared. Fails when they are of another size.
    pub fn with(self, weights: Packed) -> Result<Self, NdError> {
        if weights.floats() != self.weights.floats() {
            let reason = format!("{weights:?}, expected {:?}", self.weights);
            return Err(NdError { what: "gemm", reason });
        }
        Ok(Self { weights, ..self })
    }

    /// Inputs and outputs.
    pub fn shape(&self) -> (usize, usize) {
        (self.k, self.n)
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.floats() * size_of::<f32>()
    }

    fn panels(&self) -> usize {
        self.n.div_ceil(self.width)
    }

    /// The first weights of a panel.
    fn panel(&self, panel: usize) -> *const f32 {
        self.weights.as_ptr().wrapping_add(panel * self.deep() * self.width)
    }

    /// Floats, or pairs, of a row.
    fn deep(&self) -> usize {
        deep(self.k, self.pairs)
    }

    /// Floats, or pairs, of a row that are summed at a time.
    fn part(&self) -> usize {
        (CHUNK / self.width / self.block()).max(1) * self.block()
    }

    /// Floats, or pairs, of a block of a copied row.
    fn block(&self) -> usize {
        if self.pairs { PAIRS } else { BLOCK }
    }

    /// Whether so many rows are copied.
    fn copies(&self, rows: usize) -> bool {
        self.pairs || rows > FEW
    }

    /// Rows of a block of its own, at most.
    fn own_rows(&self) -> usize {
        (OWN / self.deep() / TALLEST).max(LEAST_TILES) * TALLEST
    }

    /// Into how many blocks so many rows are cut, when they are too many for all workers to work on the same ones.
    fn blocks(&self, rows: usize, workers: usize) -> Option<usize> {
        let many = rows.saturating_mul(self.deep()) > SHARED && rows >= 2 * LEAST_TILES * TALLEST * workers;
        many.then(|| rows.div_ceil(self.own_rows()).next_multiple_of(workers))
    }

    /// Rows that are copied at a time, at most: whole tiles.
    fn copied(&self) -> usize {
        (COPY / self.k / TALLEST).max(1) * TALLEST
    }
}

/// Some rows of some panels.
struct Job<'a> {
    gemm: &'a Gemm,
    /// The rows that are copied.
    part: &'a Range<usize>,
    /// The rows of the unit, counted from the part's first.
    rows: Range<usize>,
    panels: Range<usize>,
    /// The weights that this worker reads next; null when there are none.
    following: *const f32,
    x: SharedMut<'a, f32>,
    residual: Option<SharedMut<'a, f32>>,
    out: SharedMut<'a, f32>,
    /// Where the part's rows are copied to, unless they are read in place.
    copy: Option<SharedMut<'a, f32>>,
}

impl Kernel for &Job<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if let Some(copy) = self.copy {
            let block = self.gemm.block();
            let first = copy.as_ptr().wrapping_add(self.rows.start * block);
            let plane = pitch(self.part.len()) * block;
            // SAFETY: blocks of `BLOCK` columns, each of all the part's rows, were copied.
            unsafe {
                if self.gemm.pairs {
                    self.product::<I, Fixed<PAIRS>, Pairs>(isa, first, block, plane);
                } else {
                    self.product::<I, Fixed<BLOCK>, Dense>(isa, first, block, plane);
                }
            }
        } else {
            let k = self.gemm.k;
            let first = self.x.as_ptr().wrapping_add((self.part.start + self.rows.start) * k);
            // SAFETY: the span holds these rows.
            unsafe { self.product::<I, Dynamic, Dense>(isa, first, k, BLOCK) };
        }
    }
}

impl Job<'_> {
    /// The weights that this worker reads after those of `panel` up to row `to`; null when there are none.
    fn after(&self, panel: usize, to: usize) -> *const f32 {
        if to < self.gemm.deep() {
            self.gemm.panel(panel).wrapping_add(to * self.gemm.width)
        } else if panel + 1 < self.panels.end {
            self.gemm.panel(panel + 1)
        } else {
            self.following
        }
    }

    /// # Safety
    /// Row `m`, columns from `b * BLOCK` on, of the unit's rows lie at `a + m * pitch + b * block`, as `O` wants them.
    #[inline(always)]
    unsafe fn product<I: Isa, P: Pitch, O: Operand>(
        &self,
        isa: I,
        a: *const f32,
        pitch: usize,
        block: usize,
    ) {
        let Gemm { n, act, width, .. } = *self.gemm;
        // In floats or pairs.
        let (k, size) = (self.gemm.deep(), self.gemm.block());
        let most = tallest(I::LANES, I::REGISTERS);
        let each = self.gemm.part();
        for panel in self.panels.clone() {
            let kernels = tiles::<I, P, O>(width / BLOCK);
            for from in (0..k).step_by(each) {
                let to = k.min(from + each);
                let after = self.after(panel, to);
                let rounds = (to - from).div_ceil(size);
                let pieces = self.rows.len().div_ceil(most);
                let lines = (each * width / BLOCK).div_ceil(pieces * rounds).clamp(LEAST_AHEAD, MOST_AHEAD);
                for (piece, rows) in cuts(self.rows.len(), most).enumerate() {
                    // Each tile asks for another piece of what is read next, at most as much as is read at a time.
                    let asked = piece * rounds * lines * BLOCK;
                    let asks = !after.is_null() && asked < each * width;
                    let out = (self.part.start + self.rows.start + rows.start) * n + panel * width;
                    let tile = Tile {
                        a: a.wrapping_add(rows.start * pitch + from / size * block),
                        pitch,
                        taps: [rounds, 1, 1],
                        a_step: [block, 0, 0],
                        w: self.gemm.panel(panel).wrapping_add(from * width),
                        w_step: [size * width, 0, 0],
                        ahead: if asks { after.wrapping_add(asked) } else { std::ptr::null() },
                        lines,
                        k: size,
                        k_last: (to - from - 1) % size + 1,
                        start: if from == 0 {
                            self.gemm.bias[panel * width..].as_ptr()
                        } else {
                            std::ptr::null()
                        },
                        out: self.out.as_mut_ptr().wrapping_add(out),
                        out_pitch: n,
                        out_block: BLOCK,
                        valid: width.min(n - panel * width),
                        last: to == k,
                        residual: self.residual.map_or(std::ptr::null(), |r| r.as_ptr().wrapping_add(out)),
                        act,
                        halves: false,
                    };
                    // SAFETY: by the caller's promise; the unit's outputs are this worker's.
                    unsafe { kernels.get(rows.len())(isa, &tile) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
