//! `quantize`: activations in 8 bits, for the products that follow.

use crate::Worker;
use crate::arena::Span;
use crate::matmul::{quant_row_bytes, quantize_rows};
use crate::step::{Access, Check, Step, StepCtx, StepError};

/// `out` = the rows of `x` as [`quantize_rows`] writes them. `x` has a multiple of 32 columns.
pub fn quantize(x: Span, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("quantize");
    check.that(x.cols > 0 && x.cols.is_multiple_of(32), || {
        format!("{} columns do not fill groups of 32", x.cols)
    })?;
    check.span::<f32>("x", &x, x.cols)?;
    check.span::<u8>("out", &out, quant_row_bytes(x.cols))?;
    check.same_rows("x and out", &x, &out)?;
    Ok(Box::new(Quantize { x, out }))
}

struct Quantize {
    x: Span,
    out: Span,
}

// SAFETY: touches its spans; each worker writes its own rows.
unsafe impl Step for Quantize {
    fn label(&self) -> String {
        "quantize q8".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        super::few(self.x.rows, self.x.cols, dims)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (x, out) = (ctx.view::<f32>(&self.x), ctx.view::<u8>(&self.out));
        let rows = worker.share(ctx.rows(self.x.rows), 1);
        let (cols, bytes) = (self.x.cols, self.out.cols);
        // SAFETY: the rows of `out` are this worker's, and `x` is only read.
        let (x, out) = unsafe {
            (x.part(rows.start * cols..rows.end * cols), out.part_mut(rows.start * bytes..rows.end * bytes))
        };
        quantize_rows(ctx.level(), x, cols, out);
    }
}
