//! `embed`: rows of a table by token id.

use std::sync::Arc;

use crate::Worker;
use crate::arena::Span;
use crate::matmul::{Matrix, PackedMatrix};
use crate::step::{Access, Bound, Check, Needs, Step, StepCtx, StepError};

/// A matrix whose rows can be decoded one by one.
pub trait RowTable: Send + Sync {
    /// Number of rows.
    fn rows(&self) -> usize;

    /// Elements of a row.
    fn cols(&self) -> usize;

    /// Writes row `row < rows()` to `out`, which has `cols()` elements.
    fn decode_row(&self, row: usize, out: &mut [f32]);
}

impl RowTable for Matrix {
    fn rows(&self) -> usize {
        self.rows()
    }

    fn cols(&self) -> usize {
        self.cols()
    }

    fn decode_row(&self, row: usize, out: &mut [f32]) {
        self.decode_row(row, out);
    }
}

impl RowTable for PackedMatrix {
    fn rows(&self) -> usize {
        self.plan().rows()
    }

    fn cols(&self) -> usize {
        self.plan().cols()
    }

    fn decode_row(&self, row: usize, out: &mut [f32]) {
        self.decode_row(row, out);
    }
}

/// `out[t] = scale * table[ids[t]]`. `ids` is an input of one id a row, each below the table's row count.
pub fn embed(ids: Span, table: Arc<dyn RowTable>, scale: f32, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("embed");
    check.span::<i32>("ids", &ids, 1)?;
    check.span::<f32>("out", &out, table.cols())?;
    check.same_rows("out and ids", &out, &ids)?;
    Ok(Box::new(Embed { ids, table, scale, out }))
}

struct Embed {
    ids: Span,
    table: Arc<dyn RowTable>,
    scale: f32,
    out: Span,
}

// SAFETY: touches its spans; each worker writes its own rows of `out`.
unsafe impl Step for Embed {
    fn label(&self) -> String {
        "embed".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.ids), Access::Write(self.out)]
    }

    fn needs(&self) -> Needs {
        Needs { indices: Some((self.ids, Bound::Below(self.table.rows()))), ..Needs::default() }
    }

    fn serial(&self, dims: &[usize]) -> bool {
        super::few(self.out.rows, self.out.cols, dims)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (ids, out) = (ctx.view::<i32>(&self.ids), ctx.view::<f32>(&self.out));
        let cols = self.out.cols;
        for t in worker.share(ids.len(), 1) {
            // SAFETY: row `t` of `out` is this worker's, and `ids` is only read.
            let (id, row) = unsafe { (ids.part(t..t + 1)[0], out.part_mut(t * cols..(t + 1) * cols)) };
            self.table.decode_row(id as usize, row);
            if self.scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= self.scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, values};
    use super::*;
    use crate::Rows;
    use kinglet_tensor::DType;

    #[test]
    fn rows_are_decoded_and_scaled() {
        let (vocab, cols) = (11, 64);
        let x = values(4, vocab * cols);
        let ids = [10, 0, 3, 3, 7];
        for scale in [1.0, 12.5f32] {
            let row = |&id: &i32| x[id as usize * cols..][..cols].iter().map(|x| f64::from(x * scale));
            let expected: Vec<f64> = ids.iter().flat_map(row).collect();
            let bytes = bytemuck::cast_slice(&x).to_vec().into();
            let table = Arc::new(Matrix::new(DType::F32, vocab, cols, bytes).expect("whole"));
            let mut bench = Bench::new(1);
            let (index, out) =
                (bench.indices(&ids), bench.place_span(Span::f32(0, Rows::Fixed(ids.len()), cols)));
            bench.check(embed(index, table, scale, out).expect("valid"), out, &expected, 0.0);
        }
    }
}
