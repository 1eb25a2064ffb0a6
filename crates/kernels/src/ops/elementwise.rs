//! Elementwise steps over activations of one shape: `add`, `scale`, `softcap`.

use kinglet_simd::{Isa, Kernel, dispatch, tanh};

use super::vec::{Add, Map1, map1, map2};
use crate::Worker;
use crate::arena::Span;
use crate::step::{Access, Check, Step, StepCtx, StepError};

/// Elements that a worker takes at a time, so that workers write to different cache lines.
const GRAIN: usize = 1024;

/// `out = a + b`. All f32 of one shape.
pub fn add(a: Span, b: Span, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("add");
    for (what, span) in [("b", &b), ("out", &out)] {
        check.span::<f32>(what, span, a.cols)?;
        check.same_rows(what, span, &a)?;
    }
    check.span::<f32>("a", &a, a.cols)?;
    Ok(Box::new(Binary { a, b, out }))
}

/// `out = factor * x`. Both f32 of one shape.
pub fn scale(x: Span, out: Span, factor: f32) -> Result<Box<dyn Step>, StepError> {
    unary("scale", x, out, Scale(factor))
}

/// `out = cap * tanh(x / cap)`, within 6 ULP of `cap * tanh`. Both f32 of one shape.
pub fn softcap(x: Span, out: Span, cap: f32) -> Result<Box<dyn Step>, StepError> {
    unary("softcap", x, out, Softcap(cap))
}

fn unary<M: Map1 + 'static>(
    name: &'static str,
    x: Span,
    out: Span,
    map: M,
) -> Result<Box<dyn Step>, StepError> {
    let check = Check(name);
    check.span::<f32>("x", &x, x.cols)?;
    check.span::<f32>("out", &out, x.cols)?;
    check.same_rows("out", &out, &x)?;
    Ok(Box::new(Unary { name, x, out, map }))
}

#[derive(Clone, Copy)]
struct Scale(f32);

impl Map1 for Scale {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        isa.mul(x, isa.splat(self.0))
    }
}

/// `cap * tanh(x / cap)`.
#[derive(Clone, Copy)]
pub(super) struct Softcap(pub(super) f32);

impl Map1 for Softcap {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        let cap = isa.splat(self.0);
        isa.mul(cap, tanh(isa, isa.div(x, cap)))
    }
}

struct Unary<M> {
    name: &'static str,
    x: Span,
    out: Span,
    map: M,
}

// SAFETY: touches its two spans; each worker writes its own share of `out`.
unsafe impl<M: Map1> Step for Unary<M> {
    fn label(&self) -> String {
        self.name.into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= super::SERIAL)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (x, out) = (ctx.view::<f32>(&self.x), ctx.view(&self.out));
        let share = worker.share(out.len(), GRAIN);
        // SAFETY: shares are disjoint, and `x` is only read.
        let (x, out) = unsafe { (x.part(share.clone()), out.part_mut(share)) };
        dispatch(ctx.level(), UnaryKernel { map: self.map, x, out });
    }
}

struct UnaryKernel<'a, M> {
    map: M,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl<M: Map1> Kernel for UnaryKernel<'_, M> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        map1(isa, self.map, self.x, self.out);
    }
}

struct Binary {
    a: Span,
    b: Span,
    out: Span,
}

// SAFETY: touches its three spans; each worker writes its own share of `out`.
unsafe impl Step for Binary {
    fn label(&self) -> String {
        "add".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.a), Access::Read(self.b), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.a.len(dims).is_none_or(|len| len <= super::SERIAL)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (a, b, out) = (ctx.view::<f32>(&self.a), ctx.view::<f32>(&self.b), ctx.view(&self.out));
        let share = worker.share(out.len(), GRAIN);
        // SAFETY: shares are disjoint, and `a` and `b` are only read.
        let (a, b, out) = unsafe { (a.part(share.clone()), b.part(share.clone()), out.part_mut(share)) };
        dispatch(ctx.level(), AddKernel { a, b, out });
    }
}

struct AddKernel<'a> {
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for AddKernel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        map2(isa, Add, self.a, self.b, self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, SHAPES, values};
    use super::*;

    #[test]
    fn add_is_exact() {
        for (rows, cols) in SHAPES {
            let (a, b) = (values(1, rows * cols), values(2, rows * cols));
            let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| f64::from(a + b)).collect();
            let mut bench = Bench::new(rows);
            let (x, y, out) = (bench.input(&a, cols), bench.input(&b, cols), bench.output(cols));
            bench.check(add(x, y, out).expect("valid"), out, &expected, 0.0);
        }
    }

    #[test]
    fn scale_and_softcap_follow_their_formulas() {
        for (rows, cols) in SHAPES {
            let x: Vec<f32> = values(3, rows * cols).iter().map(|x| x * 40.0).collect();
            let mut bench = Bench::new(rows);
            let (input, scaled, capped) = (bench.input(&x, cols), bench.output(cols), bench.output(cols));
            let expected: Vec<f64> = x.iter().map(|&x| f64::from(x * 0.3)).collect();
            bench.check(scale(input, scaled, 0.3).expect("valid"), scaled, &expected, 0.0);
            let expected: Vec<f64> = x.iter().map(|&x| 30.0 * (f64::from(x) / 30.0).tanh()).collect();
            bench.check(softcap(input, capped, 30.0).expect("valid"), capped, &expected, 1e-6);
        }
    }

    #[test]
    fn shapes_must_agree() {
        let span = |offset, rows, cols| Span::f32(offset, crate::Rows::Fixed(rows), cols);
        assert!(add(span(0, 2, 3), span(64, 2, 3), span(128, 2, 4)).is_err());
        assert!(add(span(0, 2, 3), span(64, 3, 3), span(128, 2, 3)).is_err());
        assert!(scale(span(0, 2, 3), Span::indices(64, crate::Rows::Fixed(2)), 1.0).is_err());
    }
}
