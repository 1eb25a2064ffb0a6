//! Products of one input, as a step: rows are copied once for all of them.

use std::ops::Range;
use std::sync::Arc;

use kinglet_simd::dispatch;

use super::rows::{CopyRows, pitch};
use super::streams::{OneRow, STREAMS};
use super::{FEW, Gemm, Job};
use crate::arena::{Rows, Span};
use crate::nd::layout::BLOCK;
use crate::nd::shape::cuts;
use crate::nd::tile::TALLEST;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Units of work, at least, for each worker.
const UNITS: usize = 6;

/// One product of a [`gemms`] step: `out = act(x w + bias + residual)`.
#[derive(Clone, Debug)]
pub struct GemmProduct {
    /// Weights, bias and activation.
    pub gemm: Arc<Gemm>,
    /// `n` floats a row, added before the activation.
    pub residual: Option<Span>,
    /// `n` floats a row.
    pub out: Span,
}

/// `out = act(x w + bias + residual)`. The spans hold whole rows: `k` floats a row of `x`, `n` a row of the others,
/// equally many; a row of a span may hold several of them.
pub fn gemm(gemm: Arc<Gemm>, x: Span, residual: Option<Span>, out: Span) -> Result<Box<dyn Step>, StepError> {
    gemms(x, vec![GemmProduct { gemm, residual, out }])
}

/// Several products of one input, as [`gemm`] says of each. They are of one instruction set, and all in bfloat16 or none.
pub fn gemms(x: Span, products: Vec<GemmProduct>) -> Result<Box<dyn Step>, StepError> {
    let check = Check("gemm");
    let Some(first) = products.first().map(|product| product.gemm.clone()) else {
        return Err(StepError { step: check.0, reason: "has no weights".into() });
    };
    let each = x.cols / first.k;
    check.span::<f32>("x", &x, each * first.k)?;
    check.that(each > 0, || format!("{x:?} holds no whole rows of {}", first.k))?;
    for GemmProduct { gemm, residual, out } in &products {
        let alike = |g: &Gemm| (g.k, g.level, g.pairs);
        check.that(alike(gemm) == alike(&first), || format!("{gemm:?} beside {first:?}"))?;
        for (what, span) in [("out", Some(out)), ("residual", residual.as_ref())] {
            let Some(span) = span else { continue };
            check.span::<f32>(what, span, each.saturating_mul(gemm.n))?;
            check.same_rows(what, span, &x)?;
        }
    }
    Ok(Box::new(GemmStep { each, x, first, products }))
}

struct GemmStep {
    /// Rows in a row of the span.
    each: usize,
    x: Span,
    /// The first product's, which says how rows are read.
    first: Arc<Gemm>,
    products: Vec<GemmProduct>,
}

// SAFETY: touches its spans and scratch; each unit, some rows of some panels, is taken by one worker.
unsafe impl Step for GemmStep {
    fn label(&self) -> String {
        let residual = if self.products[0].residual.is_some() { " + residual" } else { "" };
        let numbers = if self.first.pairs { "bf16" } else { "f32" };
        format!("gemm {numbers}{residual} {}", self.first.act.name()).trim_end().into()
    }

    fn spans(&self) -> Vec<Access> {
        let read = self.products.iter().filter_map(|product| product.residual.map(Access::Read));
        let written = self.products.iter().map(|product| Access::Write(product.out));
        std::iter::once(Access::Read(self.x)).chain(read).chain(written).collect()
    }

    fn needs(&self) -> Needs {
        let rows = match self.x.rows {
            Rows::Fixed(rows) => rows.saturating_mul(self.each),
            Rows::Dim(_) => usize::MAX,
        };
        let row = self.first.k.div_ceil(BLOCK) * self.first.block() * size_of::<f32>();
        let most = rows.min(self.first.copied());
        let scratch = if self.first.copies(most) { pitch(most).saturating_mul(row) } else { 0 };
        let own = if self.first.blocks(rows, 1).is_some() { rows.min(self.first.own_rows()) } else { 0 };
        Needs { scratch, worker_scratch: pitch(own).saturating_mul(row), ..Needs::default() }
    }

    fn serial(&self, dims: &[usize]) -> bool {
        let rows = self.x.rows.count(dims).unwrap_or(0).saturating_mul(self.each);
        let floats: usize = self.products.iter().map(|product| product.gemm.weights.floats()).sum();
        floats.saturating_mul(rows) <= 1 << 15
    }

    fn ready(&self) -> Result<(), String> {
        let wait = |product: &GemmProduct| product.gemm.weights.wait().map_err(ToString::to_string);
        self.products.iter().try_for_each(wait)
    }

    fn first_weights(&self, dims: &[usize], worker: Worker<'_>) -> &[u8] {
        let one = self.x.rows.count(dims) == Some(1) && self.each == 1;
        if !one || !OneRow::suits(&self.first) {
            return &[];
        }
        let first = worker.first_near(self.units(1, worker.count()));
        let Some(Unit { gemm, panels, .. }) = self.unit(first, 1, worker.count()) else { return &[] };
        let panel = gemm.deep() * gemm.width * size_of::<f32>();
        let bytes =
            gemm.weights.bytes().and_then(|weights| weights.get(panels.start * panel..panels.end * panel));
        bytes.unwrap_or_default()
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let rows = ctx.rows(self.x.rows) * self.each;
        let x = ctx.view(&self.x);
        if let Some(blocks) = self.first.blocks(rows, worker.count()) {
            return self.by_blocks(ctx, worker, (rows, blocks), x);
        }
        let copies = self.first.copies(rows);
        let copy = copies.then(|| ctx.scratch());
        for part in cuts(rows, if copies { self.first.copied() } else { FEW }) {
            if part.start > 0 {
                worker.barrier();
            }
            if let Some(copy) = copy {
                let rows = worker.share(part.len(), 1);
                dispatch(self.first.level, CopyRows { gemm: &self.first, part: &part, rows, x, copy });
                if worker.index() == 0 {
                    ctx.again();
                }
                worker.barrier();
            }
            self.multiply(ctx, worker, &part, x, copy);
        }
    }
}

/// Some rows, counted from a part's first, of some panels of a product.
struct Unit<'a> {
    gemm: &'a Gemm,
    residual: Option<Span>,
    out: Span,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl GemmStep {
    /// Takes blocks of the rows until there are none left, and passes each over all weights.
    fn by_blocks(
        &self,
        ctx: &StepCtx<'_>,
        worker: Worker<'_>,
        (rows, blocks): (usize, usize),
        x: SharedMut<'_, f32>,
    ) {
        let (copy, level) = (ctx.worker_scratch(worker), self.first.level);
        while let Some(at) = ctx.take_near(worker, blocks) {
            let part = rows * at / blocks..rows * (at + 1) / blocks;
            let rows = 0..part.len();
            dispatch(level, CopyRows { gemm: &self.first, part: &part, rows: rows.clone(), x, copy });
            for (i, GemmProduct { gemm, residual, out }) in self.products.iter().enumerate() {
                let following = self.products[(i + 1) % self.products.len()].gemm.panel(0);
                let (residual, out) = (residual.map(|span| ctx.view(&span)), ctx.view(out));
                let (part, rows, panels, copy) = (&part, rows.clone(), 0..gemm.panels(), Some(copy));
                dispatch(level, &Job { gemm, part, rows, panels, following, x, residual, out, copy });
            }
        }
    }

    /// Takes units of a part of the rows until there are none left.
    fn multiply(
        &self,
        ctx: &StepCtx<'_>,
        worker: Worker<'_>,
        part: &Range<usize>,
        x: SharedMut<'_, f32>,
        copy: Option<SharedMut<'_, f32>>,
    ) {
        let (count, workers) = (self.units(part.len(), worker.count()), worker.count());
        let take = || ctx.take_near(worker, count).and_then(|unit| self.unit(unit, part.len(), workers));
        let mut unit = take();
        while let Some(Unit { gemm, residual, out, rows, panels }) = unit {
            unit = take();
            let following = unit.as_ref().map_or(std::ptr::null(), |next| next.gemm.panel(next.panels.start));
            let (residual, out) = (residual.map(|span| ctx.view(&span)), ctx.view(&out));
            match copy {
                // SAFETY: the copy is a whole row, and the panels' outputs are this worker's.
                Some(x) if rows.len() == 1 && part.len() == 1 && OneRow::suits(gemm) => unsafe {
                    OneRow { gemm, panels, x, residual, out, at: part.start * gemm.n }.run();
                },
                _ => {
                    dispatch(
                        gemm.level,
                        &Job { gemm, part, rows, panels, following, x, residual, out, copy },
                    );
                }
            }
        }
    }

    /// Units of all products over so many rows.
    fn units(&self, rows: usize, workers: usize) -> usize {
        self.products.iter().map(|product| Units::of(&product.gemm, rows, workers).len()).sum()
    }

    /// One of them, counted over all products.
    fn unit(&self, mut unit: usize, rows: usize, workers: usize) -> Option<Unit<'_>> {
        for GemmProduct { gemm, residual, out } in &self.products {
            let units = Units::of(gemm, rows, workers);
            if unit < units.len() {
                let (rows, panels) = units.get(unit, rows);
                return Some(Unit { gemm, residual: *residual, out: *out, rows, panels });
            }
            unit -= units.len();
        }
        None
    }
}

/// How a part of the rows is cut into pieces of work: some panels, some rows.
struct Units {
    panels: usize,
    panel_parts: usize,
    row_parts: usize,
}

impl Units {
    fn of(gemm: &Gemm, rows: usize, workers: usize) -> Self {
        let mut wanted = if workers == 1 { 1 } else { UNITS * workers };
        if rows == 1 && workers > 1 {
            // Few long streams.
            wanted = (gemm.panels() / (2 * STREAMS)).clamp(2 * workers, wanted.max(2 * workers));
        }
        let panel_parts = gemm.panels().min(wanted);
        let row_parts = wanted.div_ceil(panel_parts).min(rows.div_ceil(TALLEST)).max(1);
        Self { panels: gemm.panels(), panel_parts, row_parts }
    }

    fn len(&self) -> usize {
        self.panel_parts * self.row_parts
    }

    /// Rows, within the part, and panels of a unit.
    fn get(&self, unit: usize, rows: usize) -> (Range<usize>, Range<usize>) {
        let part = |count: usize, parts: usize, at: usize| count * at / parts..count * (at + 1) / parts;
        let (panels, at) = (unit / self.row_parts, unit % self.row_parts);
        (part(rows, self.row_parts, at), part(self.panels, self.panel_parts, panels))
    }
}
