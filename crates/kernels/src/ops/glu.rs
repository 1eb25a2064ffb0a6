//! `glu`: gated activations (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch, exp, sigmoid};

use super::rows_out::{RowSink, RowsOut};
use super::vec::{Map2, map2};
use crate::arena::Span;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// The non-linearity on the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`; relative error 6e-7.
    Silu,
    /// `x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2`; relative error 1e-6, growing to 1e-5 far below zero.
    GeluTanh,
    /// `x * (1 + erf(x / sqrt(2))) / 2`; error `3e-7 * |x|`.
    GeluErf,
    /// `max(x, 0)`.
    Relu,
}

/// `out = act(gate) * up`. All of one shape.
pub fn glu(
    act: Activation,
    gate: Span,
    up: Span,
    out: impl Into<RowsOut>,
) -> Result<Box<dyn Step>, StepError> {
    let (check, out) = (Check("glu"), out.into());
    check.span::<f32>("gate", &gate, gate.cols)?;
    check.span::<f32>("up", &up, gate.cols)?;
    check.same_rows("gate and up", &gate, &up)?;
    out.check(check, gate.rows, gate.cols)?;
    Ok(Box::new(Glu { act, gate, up, out }))
}

struct Glu {
    act: Activation,
    gate: Span,
    up: Span,
    out: RowsOut,
}

// SAFETY: touches its spans; each worker writes its own rows.
unsafe impl Step for Glu {
    fn label(&self) -> String {
        format!("glu {:?}{}", self.act, self.out.suffix())
    }

    fn spans(&self) -> Vec<Access> {
        [Access::Read(self.gate), Access::Read(self.up)].into_iter().chain(self.out.accesses()).collect()
    }

    fn needs(&self) -> Needs {
        Needs { worker_scratch: self.out.worker_scratch(self.gate.cols), ..Needs::default() }
    }

    fn serial(&self, dims: &[usize]) -> bool {
        super::few(self.gate.rows, self.gate.cols, dims)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let cols = self.gate.cols;
        dispatch(
            ctx.level(),
            GluKernel {
                act: self.act,
                rows: worker.share(ctx.rows(self.gate.rows), 1),
                cols,
                gate: ctx.view(&self.gate),
                up: ctx.view(&self.up),
                sink: self.out.sink(ctx, worker, cols),
            },
        );
    }
}

struct GluKernel<'a> {
    act: Activation,
    rows: Range<usize>,
    cols: usize,
    gate: SharedMut<'a, f32>,
    up: SharedMut<'a, f32>,
    sink: RowSink<'a>,
}

impl Kernel for GluKernel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.act {
            Activation::Silu => self.rows_with(isa, Silu),
            Activation::GeluTanh => self.rows_with(isa, GeluTanh),
            Activation::GeluErf => self.rows_with(isa, GeluErf),
            Activation::Relu => self.rows_with(isa, Relu),
        }
    }
}

impl GluKernel<'_> {
    #[inline(always)]
    fn rows_with<I: Isa>(&self, isa: I, f: impl Map2) {
        for r in self.rows.clone() {
            let at = r * self.cols..(r + 1) * self.cols;
            // SAFETY: rows `r` of the outputs are this worker's; the inputs are only read.
            unsafe {
                let out = self.sink.row(r);
                map2(isa, f, self.gate.part(at.clone()), self.up.part(at), out);
                self.sink.finish(isa, r, out);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Silu;

impl Map2 for Silu {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, gate: I::F32, up: I::F32) -> I::F32 {
        isa.mul(isa.mul(gate, sigmoid(isa, gate)), up)
    }
}

/// By `(1 + tanh(u)) / 2 = sigmoid(2u)`.
#[derive(Clone, Copy)]
struct GeluTanh;

impl Map2 for GeluTanh {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, gate: I::F32, up: I::F32) -> I::F32 {
        let linear = 2.0 * std::f64::consts::FRAC_2_PI.sqrt();
        let square = isa.mul(gate, gate);
        let slope = isa.fma(square, isa.splat((linear * 0.044715) as f32), isa.splat(linear as f32));
        isa.mul(isa.mul(gate, sigmoid(isa, isa.mul(gate, slope))), up)
    }
}

#[derive(Clone, Copy)]
struct GeluErf;

impl Map2 for GeluErf {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, gate: I::F32, up: I::F32) -> I::F32 {
        let scaled = isa.mul(gate, isa.splat(std::f32::consts::FRAC_1_SQRT_2));
        let half = isa.mul(gate, isa.splat(0.5));
        isa.mul(isa.mul(half, isa.add(isa.splat(1.0), erf(isa, scaled))), up)
    }
}

#[derive(Clone, Copy)]
struct Relu;

impl Map2 for Relu {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, gate: I::F32, up: I::F32) -> I::F32 {
        isa.mul(isa.max(isa.zero(), gate), up)
    }
}

/// The error function within 4e-7: Abramowitz & Stegun 7.1.26, good to 1.5e-7, plus rounding.
#[inline(always)]
fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (one, a) = (isa.splat(1.0), isa.abs(x));
    let t = isa.div(one, isa.fma(a, isa.splat(0.327_591_1), one));
    let mut p = isa.splat(1.061_405_4);
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = isa.fma(p, t, isa.splat(c));
    }
    let tail = isa.mul(isa.mul(p, t), exp(isa, isa.neg(isa.mul(a, a))));
    let y = isa.sub(one, tail);
    isa.select(isa.lt(x, isa.zero()), isa.neg(y), y)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, SHAPES, values};
    use super::*;

    /// erf by its power series, in f64.
    fn erf64(x: f64) -> f64 {
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn gates_follow_their_formulas() {
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let tanh = |x: f64| {
            0.5 * x * (1.0 + (std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x)).tanh())
        };
        let erf = |x: f64| 0.5 * x * (1.0 + erf64(x / 2f64.sqrt()));
        let acts: [(Activation, &dyn Fn(f64) -> f64); 4] = [
            (Activation::Silu, &silu),
            (Activation::GeluTanh, &tanh),
            (Activation::GeluErf, &erf),
            (Activation::Relu, &|x| x.max(0.0)),
        ];
        for (rows, cols) in SHAPES {
            for (act, f) in acts {
                let gate: Vec<f32> = values(1, rows * cols).iter().map(|x| 6.0 * x).collect();
                let up = values(2, rows * cols);
                let expected: Vec<f64> =
                    gate.iter().zip(&up).map(|(&g, &u)| f(f64::from(g)) * f64::from(u)).collect();
                let mut bench = Bench::new(rows);
                let (g, u, out) = (bench.input(&gate, cols), bench.input(&up, cols), bench.output(cols));
                bench.check(glu(act, g, u, out).expect("valid"), out, &expected, 2e-6);
            }
        }
    }
}
