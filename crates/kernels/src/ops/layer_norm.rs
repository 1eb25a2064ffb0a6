//! `layer_norm` (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>).

use std::ops::Range;
use std::sync::Arc;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::rows_out::{RowSink, RowsOut};
use super::vec::{Map2, map2, sum, sum_squares};
use crate::arena::Span;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// `out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, over all columns.
pub fn layer_norm(
    x: Span,
    weight: Arc<[f32]>,
    bias: Option<Arc<[f32]>>,
    eps: f32,
    out: impl Into<RowsOut>,
) -> Result<Box<dyn Step>, StepError> {
    let (check, out) = (Check("layer_norm"), out.into());
    let bias = bias.unwrap_or_else(|| vec![0.0; x.cols].into());
    check.that(weight.len() == x.cols && bias.len() == x.cols && x.cols > 0, || {
        format!("weight of {} and bias of {} for {} columns", weight.len(), bias.len(), x.cols)
    })?;
    check.span::<f32>("x", &x, x.cols)?;
    out.check(check, x.rows, x.cols)?;
    Ok(Box::new(LayerNorm { x, weight, bias, eps, out }))
}

struct LayerNorm {
    x: Span,
    weight: Arc<[f32]>,
    bias: Arc<[f32]>,
    eps: f32,
    out: RowsOut,
}

// SAFETY: touches its spans; each worker writes its own rows.
unsafe impl Step for LayerNorm {
    fn label(&self) -> String {
        format!("layer_norm{}", self.out.suffix())
    }

    fn spans(&self) -> Vec<Access> {
        std::iter::once(Access::Read(self.x)).chain(self.out.accesses()).collect()
    }

    fn needs(&self) -> Needs {
        Needs { worker_scratch: self.out.worker_scratch(self.x.cols), ..Needs::default() }
    }

    fn serial(&self, dims: &[usize]) -> bool {
        super::few(self.x.rows, self.x.cols, dims)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let cols = self.x.cols;
        let rows = worker.share(ctx.rows(self.x.rows), 1);
        let (x, sink) = (ctx.view(&self.x), self.out.sink(ctx, worker, cols));
        dispatch(ctx.level(), LayerNormKernel { step: self, rows, cols, x, sink });
    }
}

struct LayerNormKernel<'a> {
    step: &'a LayerNorm,
    rows: Range<usize>,
    cols: usize,
    x: SharedMut<'a, f32>,
    sink: RowSink<'a>,
}

impl Kernel for LayerNormKernel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let LayerNorm { weight, bias, eps, .. } = self.step;
        for r in self.rows.clone() {
            // SAFETY: rows `r` of the outputs are this worker's; the input is only read.
            let (x, out) = unsafe { (self.x.part(r * self.cols..(r + 1) * self.cols), self.sink.row(r)) };
            let mean = sum(isa, x) / self.cols as f32;
            let variance = sum_squares(isa, x, mean) / self.cols as f32;
            map2(isa, Centered { mean, factor: 1.0 / (variance + eps).sqrt() }, x, weight, out);
            out.iter_mut().zip(&**bias).for_each(|(y, b)| *y += b);
            // SAFETY: as above.
            unsafe { self.sink.finish(isa, r, out) };
        }
    }
}

/// `(x - mean) * factor * weight`.
#[derive(Clone, Copy)]
struct Centered {
    mean: f32,
    factor: f32,
}

impl Map2 for Centered {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, x: I::F32, weight: I::F32) -> I::F32 {
        isa.mul(isa.mul(isa.sub(x, isa.splat(self.mean)), isa.splat(self.factor)), weight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, SHAPES, values};
    use super::*;

    #[test]
    fn norms_follow_the_formula() {
        for (rows, cols) in SHAPES {
            let x: Vec<f32> = values(1, rows * cols).iter().map(|x| 3.0 + x).collect();
            let (weight, bias) = (values(2, cols), values(3, cols));
            let norm = |x: &[f32]| {
                let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / cols as f64;
                let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / cols as f64;
                let at = |i: usize| {
                    (f64::from(x[i]) - mean) / (var + 1e-3f32 as f64).sqrt() * f64::from(weight[i])
                        + f64::from(bias[i])
                };
                (0..cols).map(at).collect::<Vec<_>>()
            };
            let expected: Vec<f64> = x.chunks(cols).flat_map(norm).collect();
            let mut bench = Bench::new(rows);
            let (input, out) = (bench.input(&x, cols), bench.output(cols));
            let step = layer_norm(input, weight.clone().into(), Some(bias.clone().into()), 1e-3, out);
            bench.check(step.expect("valid"), out, &expected, 2e-5);
        }
    }
}
