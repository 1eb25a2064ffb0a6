//! `softmax`: rows that sum to one.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch, exp};

use crate::arena::Span;
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// `out = e^x / sum(e^x)` over each row, the row's largest value being subtracted first. Relative error below
/// `(cols + 16) * 2^-24`, where the result is a normal number.
pub fn softmax(x: Span, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("softmax");
    check.that(x.cols > 0, || "rows of nothing".into())?;
    check.span::<f32>("x", &x, x.cols)?;
    check.span::<f32>("out", &out, x.cols)?;
    check.same_rows("x and out", &x, &out)?;
    Ok(Box::new(Softmax { x, out }))
}

struct Softmax {
    x: Span,
    out: Span,
}

// SAFETY: touches its two spans; each worker writes its own rows.
unsafe impl Step for Softmax {
    fn label(&self) -> String {
        "softmax".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 4096)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let rows = worker.share(ctx.rows(self.x.rows), 1);
        let (x, out) = (ctx.view(&self.x), ctx.view(&self.out));
        dispatch(ctx.level(), Rows { rows, cols: self.x.cols, x, out });
    }
}

struct Rows<'a> {
    rows: Range<usize>,
    cols: usize,
    x: SharedMut<'a, f32>,
    out: SharedMut<'a, f32>,
}

impl Kernel for Rows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for row in self.rows.clone() {
            let range = row * self.cols..(row + 1) * self.cols;
            // SAFETY: row `row` of `out` is this worker's; `x` is only read.
            let (x, out) = unsafe { (self.x.part(range.clone()), self.out.part_mut(range)) };
            out.copy_from_slice(x);
            let sum = exponentials(isa, out);
            scale(isa, out, 1.0 / sum);
        }
    }
}

/// `x = e^(x - max(x))`; returns their sum. A row of nothing but minus infinity becomes NaN, as the formula says.
#[inline(always)]
fn exponentials<I: Isa>(isa: I, x: &mut [f32]) -> f32 {
    let top = isa.splat(largest(isa, x));
    let mut sum = isa.zero();
    let mut vectors = x.chunks_exact_mut(I::LANES);
    for x in &mut vectors {
        let y = exp(isa, isa.sub(isa.load(x), top));
        sum = isa.add(sum, y);
        isa.store(y, x);
    }
    let tail = vectors.into_remainder();
    let y = exp(isa, isa.sub(isa.load_part(tail), top));
    isa.store_part(y, tail);
    isa.reduce_sum(sum) + tail.iter().sum::<f32>()
}

/// The largest value.
#[inline(always)]
pub(super) fn largest<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let mut largest = isa.splat(f32::NEG_INFINITY);
    let vectors = x.chunks_exact(I::LANES);
    let top = vectors.remainder().iter().fold(f32::NEG_INFINITY, |top, &x| if x > top { x } else { top });
    for x in vectors {
        largest = isa.max(isa.load(x), largest);
    }
    top.max(isa.reduce_max(largest))
}

#[inline(always)]
pub(super) fn scale<I: Isa>(isa: I, x: &mut [f32], factor: f32) {
    let by = isa.splat(factor);
    let mut vectors = x.chunks_exact_mut(I::LANES);
    for x in &mut vectors {
        isa.store(isa.mul(isa.load(x), by), x);
    }
    vectors.into_remainder().iter_mut().for_each(|x| *x *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nd::testing::{Case, random};
    use kinglet_simd::Level;

    #[test]
    fn rows_follow_the_formula() {
        for (rows, cols) in [(1, 1), (3, 7), (5, 33), (40, 197), (1, 5000)] {
            let x: Vec<f32> = random(1, rows * cols).iter().map(|x| x * 60.0).collect();
            let expected: Vec<f64> = x
                .chunks(cols)
                .flat_map(|x| {
                    let top = x.iter().copied().fold(f32::MIN, f32::max);
                    let e: Vec<f64> = x.iter().map(|&x| f64::from(x - top).exp()).collect();
                    let sum: f64 = e.iter().sum();
                    e.into_iter().map(move |e| e / sum).collect::<Vec<_>>()
                })
                .collect();
            for level in Level::available() {
                let mut case = Case::new(level);
                let (x, out) = (case.matrix(cols, &x), case.span(rows, cols));
                case.check_matrix(|| softmax(x, out).expect("binds"), out, &expected, 2e-6);
            }
        }
    }
}
