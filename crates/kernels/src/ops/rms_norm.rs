//! `rms_norm` and `add_rms_norm`: root-mean-square normalisation (Zhang & Sennrich 2019,
//! <https://arxiv.org/abs/1910.07467>), alone and with the residual sum before it.

use std::ops::Range;
use std::sync::Arc;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::rows_out::{RowSink, RowsOut};
use super::vec::{Add, Map2, map2, sum_squares};
use crate::arena::Span;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// `out = x / sqrt(mean(x^2) + eps) * weight`, over each group of `weight.len()` columns, which divides those of `x` (the
/// length of a head for query/key norms, all columns otherwise).
pub fn rms_norm(
    x: Span,
    weight: Arc<[f32]>,
    eps: f32,
    out: impl Into<RowsOut>,
) -> Result<Box<dyn Step>, StepError> {
    build(RmsNorm { x, residual: None, weight, eps, out: out.into() })
}

/// `sum = a + b`, `out = rms_norm(sum)`.
pub fn add_rms_norm(
    a: Span,
    b: Span,
    sum: Span,
    weight: Arc<[f32]>,
    eps: f32,
    out: impl Into<RowsOut>,
) -> Result<Box<dyn Step>, StepError> {
    build(RmsNorm { x: a, residual: Some((b, sum)), weight, eps, out: out.into() })
}

fn build(step: RmsNorm) -> Result<Box<dyn Step>, StepError> {
    let check = Check(step.name());
    let (cols, group) = (step.x.cols, step.weight.len());
    check.that(group > 0 && cols.is_multiple_of(group), || {
        format!("a weight of {group} does not divide rows of {cols}")
    })?;
    check.span::<f32>("x", &step.x, cols)?;
    for span in step.residual.iter().flat_map(|(b, sum)| [b, sum]) {
        check.span::<f32>("summand or sum", span, cols)?;
        check.same_rows("summand or sum", span, &step.x)?;
    }
    step.out.check(check, step.x.rows, cols)?;
    Ok(Box::new(step))
}

struct RmsNorm {
    x: Span,
    /// What to add before, and where the sum goes.
    residual: Option<(Span, Span)>,
    weight: Arc<[f32]>,
    eps: f32,
    out: RowsOut,
}

impl RmsNorm {
    fn name(&self) -> &'static str {
        if self.residual.is_some() { "add_rms_norm" } else { "rms_norm" }
    }
}

// SAFETY: touches its spans; each worker writes its own rows.
unsafe impl Step for RmsNorm {
    fn label(&self) -> String {
        format!("{}{}", self.name(), self.out.suffix())
    }

    fn spans(&self) -> Vec<Access> {
        let residual = self.residual.iter().flat_map(|&(b, sum)| [Access::Read(b), Access::Write(sum)]);
        std::iter::once(Access::Read(self.x)).chain(residual).chain(self.out.accesses()).collect()
    }

    fn needs(&self) -> Needs {
        Needs { worker_scratch: self.out.worker_scratch(self.x.cols), ..Needs::default() }
    }

    fn serial(&self, dims: &[usize]) -> bool {
        super::few(self.x.rows, self.x.cols, dims)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let cols = self.x.cols;
        dispatch(
            ctx.level(),
            RmsNormKernel {
                rows: worker.share(ctx.rows(self.x.rows), 1),
                cols,
                x: ctx.view(&self.x),
                residual: self.residual.map(|(b, sum)| (ctx.view(&b), ctx.view(&sum))),
                weight: &self.weight,
                eps: self.eps,
                sink: self.out.sink(ctx, worker, cols),
            },
        );
    }
}

struct RmsNormKernel<'a> {
    rows: Range<usize>,
    cols: usize,
    x: SharedMut<'a, f32>,
    residual: Option<(SharedMut<'a, f32>, SharedMut<'a, f32>)>,
    weight: &'a [f32],
    eps: f32,
    sink: RowSink<'a>,
}

impl Kernel for RmsNormKernel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for r in self.rows.clone() {
            let at = r * self.cols..(r + 1) * self.cols;
            // SAFETY: rows `r` of the outputs are this worker's; the inputs are only read.
            let (mut x, out) = unsafe { (self.x.part(at.clone()), self.sink.row(r)) };
            if let Some((b, sum)) = self.residual {
                // SAFETY: as above.
                let (b, sum) = unsafe { (b.part(at.clone()), sum.part_mut(at)) };
                map2(isa, Add, x, b, sum);
                x = sum;
            }
            let groups = x.chunks_exact(self.weight.len()).zip(out.chunks_exact_mut(self.weight.len()));
            for (x, out) in groups {
                let mean = sum_squares(isa, x, 0.0) / self.weight.len() as f32;
                map2(isa, Scaled(1.0 / (mean + self.eps).sqrt()), x, self.weight, out);
            }
            // SAFETY: as above.
            unsafe { self.sink.finish(isa, r, out) };
        }
    }
}

/// `x * factor * weight`.
#[derive(Clone, Copy)]
struct Scaled(f32);

impl Map2 for Scaled {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, x: I::F32, weight: I::F32) -> I::F32 {
        isa.mul(isa.mul(x, isa.splat(self.0)), weight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, SHAPES, values};
    use super::*;

    fn reference(x: &[f64], weight: &[f32], eps: f32) -> Vec<f64> {
        let norm = |x: &[f64]| {
            let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
            let factor = 1.0 / (mean + f64::from(eps)).sqrt();
            x.iter().zip(weight).map(|(x, &w)| x * factor * f64::from(w)).collect::<Vec<_>>()
        };
        x.chunks(weight.len()).flat_map(norm).collect()
    }

    #[test]
    fn norms_follow_the_formula() {
        for (rows, cols) in SHAPES {
            for groups in [1, if cols.is_multiple_of(4) { 4 } else { 1 }] {
                let (a, b) = (values(1, rows * cols), values(2, rows * cols));
                let weight: Arc<[f32]> = values(3, cols / groups).into();
                let mut bench = Bench::new(rows);
                let (x, y) = (bench.input(&a, cols), bench.input(&b, cols));
                let (sum, out) = (bench.output(cols), bench.output(cols));
                let wide: Vec<f64> = a.iter().map(|&x| f64::from(x)).collect();
                let expected = reference(&wide, &weight, 1e-5);
                let step = rms_norm(x, weight.clone(), 1e-5, out).expect("valid");
                bench.check(step, out, &expected, 1e-6);
                let wide: Vec<f64> = a.iter().zip(&b).map(|(a, b)| f64::from(a + b)).collect();
                let expected = reference(&wide, &weight, 1e-5);
                let step = add_rms_norm(x, y, sum, weight.clone(), 1e-5, out).expect("valid");
                bench.check(step, out, &expected, 1e-6);
                let step = add_rms_norm(x, y, sum, weight, 1e-5, out).expect("valid");
                bench.check(step, sum, &wide, 0.0);
            }
        }
    }

    #[test]
    fn weights_must_divide_rows() {
        let span = |offset| Span::f32(offset, crate::Rows::Fixed(1), 6);
        assert!(rms_norm(span(0), vec![1.0; 4].into(), 0.0, span(64)).is_err());
        assert!(rms_norm(span(0), vec![].into(), 0.0, span(64)).is_err());
        assert!(rms_norm(span(0), vec![1.0; 3].into(), 0.0, RowsOut::default()).is_err());
    }
}
