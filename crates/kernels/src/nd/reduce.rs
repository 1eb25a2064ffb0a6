//! Sums and means of rows.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use crate::arena::Span;
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// `out = sum(x) / parts` for each row of `x`; `out` has one column. Off by at most `(cols / 4 + 8) * 2^-24` of the sum of
/// magnitudes.
pub fn row_sums(x: Span, parts: f32, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("row sums");
    check.that(x.cols > 0, || "rows of nothing".into())?;
    check.span::<f32>("x", &x, x.cols)?;
    check.span::<f32>("out", &out, 1)?;
    check.same_rows("x and out", &x, &out)?;
    Ok(Box::new(RowSums { x, parts, out }))
}

struct RowSums {
    x: Span,
    parts: f32,
    out: Span,
}

// SAFETY: touches its two spans; each worker writes its own rows.
unsafe impl Step for RowSums {
    fn label(&self) -> String {
        "row sums".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 8192)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let rows = worker.share(ctx.rows(self.x.rows), 1);
        let (x, out) = (ctx.view(&self.x), ctx.view(&self.out));
        dispatch(ctx.level(), Rows { rows, cols: self.x.cols, parts: self.parts, x, out });
    }
}

struct Rows<'a> {
    rows: Range<usize>,
    cols: usize,
    parts: f32,
    x: SharedMut<'a, f32>,
    out: SharedMut<'a, f32>,
}

impl Kernel for Rows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for row in self.rows.clone() {
            // SAFETY: row `row` of `out` is this worker's; `x` is only read.
            let (x, out) = unsafe {
                (self.x.part(row * self.cols..(row + 1) * self.cols), self.out.part_mut(row..row + 1))
            };
            let (mut a, mut b) = (isa.zero(), isa.zero());
            let mut pairs = x.chunks_exact(2 * I::LANES);
            for x in &mut pairs {
                a = isa.add(a, isa.load(x));
                b = isa.add(b, isa.load(&x[I::LANES..]));
            }
            for x in pairs.remainder().chunks(I::LANES) {
                a = isa.add(a, isa.load_part(x));
            }
            out[0] = isa.reduce_sum(isa.add(a, b)) / self.parts;
        }
    }
}

#[cfg(test)]
mod tests {
    use kinglet_simd::Level;

    use super::*;
    use crate::nd::testing::{Case, random};

    #[test]
    fn rows_are_summed() {
        for (rows, cols) in [(1, 1), (3, 7), (5, 384), (130, 97)] {
            let x = random(3, rows * cols);
            let mean = |row: &[f32]| row.iter().map(|x| f64::from(*x)).sum::<f64>() / cols as f64;
            let expected: Vec<f64> = x.chunks(cols).map(mean).collect();
            for level in Level::available() {
                let mut case = Case::new(level);
                let (from, to) = (case.matrix(cols, &x), case.span(rows, 1));
                let step = || row_sums(from, cols as f32, to).expect("binds");
                case.check_matrix(step, to, &expected, 1e-6);
            }
        }
    }
}
