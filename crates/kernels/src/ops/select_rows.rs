//! `select_rows`: a compact copy of some rows.

use crate::Worker;
use crate::arena::Span;
use crate::step::{Access, Bound, Check, Needs, Step, StepCtx, StepError};

/// `out[r] = x[rows[r]]`. `rows` is an input of one index a row of `out`, each below the row count of `x`.
pub fn select_rows(x: Span, rows: Span, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("select_rows");
    check.span::<f32>("x", &x, x.cols)?;
    check.span::<i32>("rows", &rows, 1)?;
    check.span::<f32>("out", &out, x.cols)?;
    check.same_rows("out and rows", &out, &rows)?;
    Ok(Box::new(SelectRows { x, rows, out }))
}

struct SelectRows {
    x: Span,
    rows: Span,
    out: Span,
}

// SAFETY: touches its spans; each worker writes its own rows of `out`, and the run checks the indices.
unsafe impl Step for SelectRows {
    fn label(&self) -> String {
        "select_rows".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Read(self.rows), Access::Write(self.out)]
    }

    fn needs(&self) -> Needs {
        Needs { indices: Some((self.rows, Bound::Rows(self.x.rows))), ..Needs::default() }
    }

    fn serial(&self, dims: &[usize]) -> bool {
        super::few(self.out.rows, self.out.cols, dims)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let cols = self.x.cols;
        let (x, out) = (ctx.view::<f32>(&self.x), ctx.view::<f32>(&self.out));
        let rows = ctx.view::<i32>(&self.rows);
        for r in worker.share(rows.len(), 1) {
            // SAFETY: row `r` of `out` is this worker's; the inputs are only read.
            unsafe {
                let from = rows.part(r..r + 1)[0] as usize;
                out.part_mut(r * cols..(r + 1) * cols)
                    .copy_from_slice(x.part(from * cols..(from + 1) * cols));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, values};
    use super::*;
    use crate::Rows;

    #[test]
    fn rows_are_copied_in_the_order_asked() {
        for (rows, cols, chosen) in
            [(1, 5, vec![0]), (9, 33, vec![8, 0, 3, 3]), (70, 100, (0..70).rev().collect())]
        {
            let x = values(1, rows * cols);
            let row = |&r: &i32| x[r as usize * cols..][..cols].iter().map(|&x| f64::from(x));
            let expected: Vec<f64> = chosen.iter().flat_map(row).collect();
            let mut bench = Bench::new(rows);
            let (x, index) = (bench.input(&x, cols), bench.indices(&chosen));
            let out = bench.place_span(Span::f32(0, Rows::Fixed(chosen.len()), cols));
            bench.check(select_rows(x, index, out).expect("valid"), out, &expected, 0.0);
        }
    }
}
