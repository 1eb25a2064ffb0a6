//! Products of rows with packed weights: `out = act(x w + bias + residual)`, everything in rows.
//!
//! Few rows are read in place. Many are copied, a block at a time, into the order in which the micro-kernel reads them;
//! the copy stays in the second-level cache. Error: `(k + 2) * 2^-24 * sum(|x * w|)`, then the activation's.

use std::ops::Range;
use std::sync::Arc;

use kinglet_simd::{Isa, Kernel, Level, dispatch};
use kinglet_tensor::AlignedBuf;

use super::NdError;
use super::act::Act;
use super::layout::BLOCK;
use super::shape::cuts;
use super::tile::{Dynamic, Fixed, Pitch, TALLEST, Tile, panel_blocks, tallest, tiles};
use crate::arena::Span;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Weights `[k][n]` in panels of outputs.
#[derive(Debug)]
pub struct Gemm {
    level: Level,
    k: usize,
    n: usize,
    act: Act,
    /// Outputs of a panel.
    width: usize,
    weights: AlignedBuf<f32>,
    bias: AlignedBuf<f32>,
}

/// How a weight matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[k][n]`.
    Inputs,
    /// `[n][k]`.
    Outputs,
}

/// Floats of weights that stay in the first-level cache while rows pass over them.
const CHUNK: usize = 32 << 8;
/// Floats of rows that are copied at a time.
const COPY: usize = 64 << 10;
/// Rows up to which they are read in place.
const FEW: usize = 8;
/// Units of work, at least, for each worker.
const UNITS: usize = 6;

impl Gemm {
    /// Packs a weight matrix of `k` inputs and `n` outputs.
    pub fn pack(
        level: Level,
        (k, n): (usize, usize),
        weights: &[f32],
        order: Order,
        bias: Option<&[f32]>,
        act: Act,
    ) -> Result<Self, NdError> {
        let wrong = || NdError {
            what: "gemm",
            reason: format!("{} weights and bias {:?} for {k} x {n}", weights.len(), bias.map(<[f32]>::len)),
        };
        let width = panel_blocks(level.lanes()) * BLOCK;
        let fits = k > 0 && n > 0 && k.checked_mul(n) == Some(weights.len());
        let floats = n.checked_next_multiple_of(width).and_then(|n| n.checked_mul(k)).ok_or_else(wrong)?;
        if !fits || bias.is_some_and(|bias| bias.len() != n) {
            return Err(wrong());
        }
        let mut packed = AlignedBuf::<f32>::try_new(floats)?;
        for (panel, packed) in packed.chunks_exact_mut(k * width).enumerate() {
            pack_panel(weights, order, (k, n), panel * width..n.min((panel + 1) * width), width, packed);
        }
        let mut padded = AlignedBuf::<f32>::try_new(n.next_multiple_of(width))?;
        padded[..n].iter_mut().zip(bias.unwrap_or_default()).for_each(|(to, from)| *to = *from);
        Ok(Self { level, k, n, act, width, weights: packed, bias: padded })
    }

    /// Inputs and outputs.
    pub fn shape(&self) -> (usize, usize) {
        (self.k, self.n)
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes().len()
    }

    fn panels(&self) -> usize {
        self.n.div_ceil(self.width)
    }

    /// Rows that are copied at a time: whole tiles.
    fn copied(&self) -> usize {
        (COPY / self.k / TALLEST).max(1) * TALLEST
    }
}

/// Writes `[k][width]` of the weights of `outputs`.
fn pack_panel(
    weights: &[f32],
    order: Order,
    (k, n): (usize, usize),
    outputs: Range<usize>,
    width: usize,
    packed: &mut [f32],
) {
    match order {
        Order::Inputs => {
            for (packed, row) in packed.chunks_exact_mut(width).zip(weights.chunks_exact(n)) {
                packed[..outputs.len()].copy_from_slice(&row[outputs.clone()]);
            }
        }
        Order::Outputs => {
            for (lane, row) in weights.chunks_exact(k).skip(outputs.start).take(outputs.len()).enumerate() {
                packed.iter_mut().skip(lane).step_by(width).zip(row).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// `out = act(x w + bias + residual)`. The spans hold whole rows: `k` floats a row of `x`, `n` a row of the others,
/// equally many; a row of a span may hold several of them.
pub fn gemm(gemm: Arc<Gemm>, x: Span, residual: Option<Span>, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("gemm");
    let each = x.cols / gemm.k;
    check.span::<f32>("x", &x, each * gemm.k)?;
    check.that(each > 0, || format!("{x:?} holds no whole rows of {}", gemm.k))?;
    for (what, span) in [("out", Some(&out)), ("residual", residual.as_ref())] {
        let Some(span) = span else { continue };
        check.span::<f32>(what, span, each.saturating_mul(gemm.n))?;
        check.same_rows(what, span, &x)?;
    }
    Ok(Box::new(GemmStep { gemm, each, x, residual, out }))
}

struct GemmStep {
    gemm: Arc<Gemm>,
    /// Rows in a row of the span.
    each: usize,
    x: Span,
    residual: Option<Span>,
    out: Span,
}

// SAFETY: touches its spans and scratch; each unit, some rows of some panels, is taken by one worker.
unsafe impl Step for GemmStep {
    fn label(&self) -> String {
        let residual = if self.residual.is_some() { " + residual" } else { "" };
        format!("gemm f32{residual} {}", self.gemm.act.name()).trim_end().into()
    }

    fn spans(&self) -> Vec<Access> {
        let residual = self.residual.map(Access::Read);
        [Access::Read(self.x), Access::Write(self.out)].into_iter().chain(residual).collect()
    }

    fn needs(&self) -> Needs {
        let k = self.gemm.k.next_multiple_of(BLOCK);
        Needs { worker_scratch: self.gemm.copied() * k * size_of::<f32>(), ..Needs::default() }
    }

    fn serial(&self, dims: &[usize]) -> bool {
        let rows = self.x.rows.count(dims).unwrap_or(0).saturating_mul(self.each);
        self.gemm.weights.len().saturating_mul(rows) <= 1 << 15
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let gemm = &*self.gemm;
        let rows = ctx.rows(self.x.rows) * self.each;
        if rows == 0 {
            return;
        }
        let most = if rows <= FEW { rows } else { gemm.copied() };
        let row_parts = rows.div_ceil(most);
        let wanted = if worker.count() == 1 { 1 } else { (UNITS * worker.count()).div_ceil(row_parts) };
        let panel_parts = gemm.panels().min(wanted);
        let mut job = Job {
            gemm,
            rows: 0..0,
            panels: 0..0,
            x: ctx.view(&self.x),
            residual: self.residual.map(|span| ctx.view(&span)),
            out: ctx.view(&self.out),
            copy: (rows > FEW).then(|| ctx.worker_scratch(worker)),
            fresh: true,
        };
        loop {
            let unit = ctx.take();
            if unit >= row_parts * panel_parts {
                return;
            }
            let part = |count: usize, parts: usize, at: usize| count * at / parts..count * (at + 1) / parts;
            let rows = part(rows, row_parts, unit / panel_parts);
            job.fresh = job.rows != rows;
            job.rows = rows;
            job.panels = part(gemm.panels(), panel_parts, unit % panel_parts);
            dispatch(gemm.level, &job);
        }
    }
}

/// Some rows of some panels.
struct Job<'a> {
    gemm: &'a Gemm,
    rows: Range<usize>,
    panels: Range<usize>,
    x: SharedMut<'a, f32>,
    residual: Option<SharedMut<'a, f32>>,
    out: SharedMut<'a, f32>,
    /// Where rows are copied to, unless they are read in place.
    copy: Option<SharedMut<'a, f32>>,
    /// Whether the copy holds other rows.
    fresh: bool,
}

impl Kernel for &Job<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if let Some(copy) = self.copy {
            if self.fresh {
                self.copy_rows(isa, copy);
            }
            // SAFETY: blocks of `BLOCK` columns, each of all the unit's rows, were copied.
            unsafe { self.product::<I, Fixed<BLOCK>>(isa, copy.as_ptr(), BLOCK, self.rows.len() * BLOCK) };
        } else {
            let k = self.gemm.k;
            let first = self.x.as_ptr().wrapping_add(self.rows.start * k);
            // SAFETY: the span holds these rows.
            unsafe { self.product::<I, Dynamic>(isa, first, k, BLOCK) };
        }
    }
}

impl Job<'_> {
    /// Copies the rows as `[k / BLOCK][rows][BLOCK]`.
    #[inline(always)]
    fn copy_rows<I: Isa>(&self, isa: I, copy: SharedMut<'_, f32>) {
        let (k, rows) = (self.gemm.k, self.rows.len());
        assert!(rows * k.next_multiple_of(BLOCK) <= copy.len() && self.rows.end * k <= self.x.len(), "rows");
        for row in 0..rows {
            for block in 0..k.div_ceil(BLOCK) {
                let count = BLOCK.min(k - block * BLOCK);
                // SAFETY: within the rows of the span and the scratch, as asserted; the scratch is this worker's.
                unsafe {
                    let from = self.x.as_ptr().add((self.rows.start + row) * k + block * BLOCK);
                    let to = copy.as_mut_ptr().add((block * rows + row) * BLOCK);
                    for i in (0..count).step_by(I::LANES) {
                        if i + I::LANES <= count {
                            isa.store_ptr(isa.load_ptr(from.add(i)), to.add(i));
                        } else {
                            isa.store_part_ptr(
                                isa.load_part_ptr(from.add(i), count - i),
                                to.add(i),
                                count - i,
                            );
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// Row `m`, columns from `b * BLOCK` on, of the unit lie at `a + m * pitch + b * block`.
    #[inline(always)]
    unsafe fn product<I: Isa, P: Pitch>(&self, isa: I, a: *const f32, pitch: usize, block: usize) {
        let Gemm { k, n, act, width, .. } = *self.gemm;
        let most = tallest(I::LANES, I::REGISTERS);
        let each = (CHUNK / width / BLOCK).max(1) * BLOCK;
        for panel in self.panels.clone() {
            let kernels = tiles::<I, P>(width / BLOCK);
            for from in (0..k).step_by(each) {
                let to = k.min(from + each);
                for rows in cuts(self.rows.len(), most) {
                    let out = (self.rows.start + rows.start) * n + panel * width;
                    let tile = Tile {
                        a: a.wrapping_add(rows.start * pitch + from / BLOCK * block),
                        pitch,
                        taps: [(to - from).div_ceil(BLOCK), 1, 1],
                        a_step: [block, 0, 0],
                        w: self.gemm.weights.as_ptr().wrapping_add((panel * k + from) * width),
                        w_step: [BLOCK * width, 0, 0],
                        k: BLOCK,
                        k_last: (to - from - 1) % BLOCK + 1,
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
                    };
                    // SAFETY: by the caller's promise; the unit's outputs are this worker's.
                    unsafe { kernels.get(rows.len())(isa, &tile) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nd::testing::{Case, random};

    fn check(rows: usize, k: usize, n: usize, order: Order, residual: bool) {
        let (x, w, bias) = (random(1, rows * k), random(2, k * n), random(3, n));
        let extra = random(4, rows * n);
        let weight =
            |i: usize, j: usize| f64::from(if order == Order::Inputs { w[i * n + j] } else { w[j * k + i] });
        let value = |at: usize| {
            let (row, j) = (at / n, at % n);
            let dot: f64 = (0..k).map(|i| f64::from(x[row * k + i]) * weight(i, j)).sum();
            (dot + f64::from(bias[j]) + if residual { f64::from(extra[at]) } else { 0.0 }).max(0.0)
        };
        let expected: Vec<f64> = (0..rows * n).map(value).collect();
        for level in Level::available() {
            let packed = Gemm::pack(level, (k, n), &w, order, Some(&bias), Act::RELU).expect("packs");
            let packed = Arc::new(packed);
            let mut case = Case::new(level);
            let x = case.matrix(k, &x);
            let residual = residual.then(|| case.matrix(n, &extra));
            let out = case.span(rows, n);
            let bound = 2e-7 * (k as f64 + 4.0);
            case.check_matrix(
                || gemm(packed.clone(), x, residual, out).expect("binds"),
                out,
                &expected,
                bound,
            );
        }
    }

    #[test]
    fn products_follow_the_definition() {
        for (rows, k, n) in
            [(1, 1, 1), (1, 40, 100), (3, 17, 33), (8, 64, 48), (9, 100, 31), (40, 600, 70), (130, 33, 64)]
        {
            check(rows, k, n, Order::Inputs, false);
            check(rows, k, n, Order::Outputs, true);
        }
    }

    #[test]
    fn shapes_must_agree() {
        let pack = |k, n, weights: usize, bias: usize| {
            let (weights, bias) = (vec![0.0; weights], vec![0.0; bias]);
            Gemm::pack(Level::SCALAR, (k, n), &weights, Order::Inputs, Some(&bias), Act::NONE)
        };
        assert!(pack(2, 3, 5, 3).is_err() && pack(2, 3, 6, 2).is_err() && pack(0, 3, 0, 3).is_err());
        let packed = Arc::new(pack(2, 3, 6, 3).expect("packs"));
        let span = |at, rows, cols| Span::f32(at, crate::Rows::Fixed(rows), cols);
        assert!(gemm(packed.clone(), span(0, 2, 4), None, span(64, 2, 6)).is_ok());
        assert!(gemm(packed.clone(), span(0, 2, 3), None, span(64, 2, 3)).is_err());
        assert!(gemm(packed.clone(), span(0, 2, 2), None, span(64, 1, 3)).is_err());
        assert!(gemm(packed, span(0, 2, 2), Some(span(128, 2, 2)), span(64, 2, 3)).is_err());
    }
}
