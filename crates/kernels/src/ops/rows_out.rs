//! Where a row operation leaves its result: as floats, as 8-bit codes for the products that follow, or both.

use kinglet_simd::Isa;

use crate::arena::{Rows, Span};
use crate::matmul::{quant_row_bytes, quantize_row};
use crate::step::{Access, Check, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// The destinations of a row operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowsOut {
    /// Floats, `[rows, cols]`.
    pub plain: Option<Span>,
    /// Quantised rows, as bytes `[rows, quant_row_bytes(cols)]`; `cols` is a multiple of 32.
    pub quant: Option<Span>,
}

impl From<Span> for RowsOut {
    fn from(span: Span) -> Self {
        Self { plain: Some(span), quant: None }
    }
}

impl RowsOut {
    /// Only quantised rows.
    pub fn quant(span: Span) -> Self {
        Self { plain: None, quant: Some(span) }
    }

    /// Checks that it takes rows of `cols` floats, as many as `rows`.
    pub(super) fn check(&self, check: Check, rows: Rows, cols: usize) -> Result<(), StepError> {
        check.that(self.plain.is_some() || self.quant.is_some(), || "has no destination".into())?;
        if let Some(span) = &self.plain {
            check.span::<f32>("out", span, cols)?;
        }
        if let Some(span) = &self.quant {
            check.that(cols.is_multiple_of(32), || format!("{cols} columns do not fill groups of 32"))?;
            check.span::<u8>("quantised out", span, quant_row_bytes(cols))?;
        }
        let agree = [self.plain, self.quant].iter().flatten().all(|span| span.rows == rows);
        check.that(agree, || format!("{self:?} has not {rows:?} rows"))
    }

    pub(super) fn accesses(&self) -> impl Iterator<Item = Access> {
        [self.plain, self.quant].into_iter().flatten().map(Access::Write)
    }

    /// Scratch of each worker: a row, when none is kept.
    pub(super) fn worker_scratch(&self, cols: usize) -> usize {
        if self.plain.is_some() { 0 } else { cols * size_of::<f32>() }
    }

    /// What to add to a label.
    pub(super) fn suffix(&self) -> &'static str {
        match (self.plain, self.quant) {
            (_, None) => "",
            (None, _) => " + q8",
            _ => " + f32, q8",
        }
    }

    pub(super) fn sink<'a>(&self, ctx: &StepCtx<'a>, worker: Worker<'_>, cols: usize) -> RowSink<'a> {
        RowSink {
            plain: self.plain.map(|span| ctx.view(&span)),
            quant: self.quant.map(|span| ctx.view(&span)),
            row: ctx.worker_scratch(worker),
            cols,
        }
    }
}

/// Takes a worker's rows, one after the other.
#[derive(Clone, Copy)]
pub(super) struct RowSink<'a> {
    plain: Option<SharedMut<'a, f32>>,
    quant: Option<SharedMut<'a, u8>>,
    row: SharedMut<'a, f32>,
    cols: usize,
}

impl<'a> RowSink<'a> {
    /// Room for the values of row `r`.
    ///
    /// # Safety
    /// Row `r` is this worker's alone; the previous row is no longer in use.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(super) unsafe fn row(&self, r: usize) -> &'a mut [f32] {
        let (buffer, at) = self.plain.map_or((self.row, 0), |plain| (plain, r * self.cols));
        // SAFETY: the row, or the worker's own scratch, is this worker's alone.
        unsafe { buffer.part_mut(at..at + self.cols) }
    }

    /// Quantises the finished row, if that is asked for.
    ///
    /// # Safety
    /// As for `row`.
    #[inline(always)]
    pub(super) unsafe fn finish<I: Isa>(&self, isa: I, r: usize, row: &[f32]) {
        if let Some(quant) = self.quant {
            let bytes = quant_row_bytes(self.cols);
            // SAFETY: row `r` is this worker's alone.
            quantize_row(isa, row, unsafe { quant.part_mut(r * bytes..(r + 1) * bytes) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, T, teams, values};
    use crate::matmul::quant_row_bytes;
    use crate::ops::{Activation, RowsOut, glu, quantize, rms_norm};
    use crate::{Span, Step};
    use kinglet_simd::Level;

    /// Quantising on the way out gives the bytes of quantising afterwards, with and without the floats.
    #[test]
    fn fused_codes_are_those_of_a_second_step() {
        for (rows, cols) in [(1, 64), (9, 96), (40, 576)] {
            let mut bench = Bench::new(rows);
            let (a, b) = (values(1, rows * cols), values(2, rows * cols));
            let (a, b, plain) = (bench.input(&a, cols), bench.input(&b, cols), bench.output(cols));
            let codes = || Span::bytes(0, T, quant_row_bytes(cols));
            let (later, quant) = (bench.place_span(codes()), bench.place_span(codes()));
            let both = RowsOut { plain: Some(plain), quant: Some(quant) };
            let norm = |out: RowsOut| rms_norm(a, vec![0.7; cols].into(), 1e-5, out).expect("valid");
            let gate = |out: RowsOut| glu(Activation::Silu, a, b, out).expect("valid");
            let steps: [&dyn Fn(RowsOut) -> Box<dyn Step>; 2] = [&norm, &gate];
            for (level, team) in
                Level::available().into_iter().flat_map(|level| teams().map(move |t| (level, t)))
            {
                let run = |steps, out| bench.run::<u8>(steps, out, level, team, None);
                for step in steps {
                    let expected =
                        run(vec![step(plain.into()), quantize(plain, later).expect("valid")], later);
                    assert_eq!(run(vec![step(both)], quant), expected, "{level}");
                    assert_eq!(run(vec![step(RowsOut::quant(quant))], quant), expected, "{level}");
                }
            }
        }
    }
}
