//! A function of two values that are codes, or of one and constants, as codes: `round(f(a, b) / scale) + zero`.

use std::sync::Arc;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::ending::Recode;
use super::map::{load_codes, store_codes};
use crate::arena::Span;
use crate::nd::strided::{Axes, Run, fixed, runs_of};
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Fun {
    Add,
    Sub,
    Mul,
    Div,
}

/// What codes stand for: `(code - zero) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Size of a step.
    pub scale: f32,
    /// The code of zero.
    pub zero: u8,
}

/// A side of a function.
#[derive(Clone, Debug)]
pub enum Pairing {
    /// Codes that a step made.
    Codes(Span, Scale),
    /// Numbers that never change.
    Values(Arc<[f32]>),
}

/// `out = f(a, b)` over `axes`, along which the sides move by their strides (0 where they are repeated) and `out`, codes of
/// `scale` and `to`, is dense.
pub fn pair_codes(
    f: Fun,
    axes: &Axes<2>,
    sides: [Pairing; 2],
    scale: f32,
    to: Recode,
    out: Span,
) -> Result<Box<dyn Step>, StepError> {
    let (check, axes) = (Check("pair of codes"), axes.simplified());
    for (i, side) in sides.iter().enumerate() {
        let reach = axes.reach(i);
        let have = match side {
            Pairing::Codes(span, _) => {
                check.span::<u8>("a side", span, span.cols)?;
                fixed(span)
            }
            Pairing::Values(values) => Some(values.len()),
        };
        let enough = have.zip(reach).is_some_and(|(have, need)| need <= have);
        check.that(enough, || format!("side {i} has {have:?} elements, and {axes:?} reach {reach:?}"))?;
    }
    check.span::<u8>("out", &out, out.cols)?;
    check.that(fixed(&out) == Some(axes.len()), || format!("out is {out:?} for {axes:?}"))?;
    Ok(Box::new(Pair { f, axes, sides, scale, to, out }))
}

/// Elements of an innermost run that a worker takes at a time.
const GRAIN: usize = 2048;

struct Pair {
    f: Fun,
    axes: Axes<2>,
    sides: [Pairing; 2],
    scale: f32,
    to: Recode,
    out: Span,
}

// SAFETY: touches its spans; each worker writes its own runs of `out`.
unsafe impl Step for Pair {
    fn label(&self) -> String {
        format!("{:?} u8", self.f).to_lowercase()
    }

    fn spans(&self) -> Vec<Access> {
        let side = |side: &Pairing| match side {
            Pairing::Codes(span, _) => Some(Access::Read(*span)),
            Pairing::Values(_) => None,
        };
        self.sides.iter().filter_map(side).chain([Access::Write(self.out)]).collect()
    }

    fn serial(&self, _: &[usize]) -> bool {
        self.axes.len() <= 4096
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        dispatch(ctx.level(), Job { step: self, ctx, out: ctx.view(&self.out), worker });
    }
}

struct Job<'a> {
    step: &'a Pair,
    ctx: &'a StepCtx<'a>,
    out: SharedMut<'a, u8>,
    worker: Worker<'a>,
}

/// A side's elements.
#[derive(Clone, Copy)]
enum Side<'a> {
    Codes(&'a [u8], Scale),
    Values(&'a [f32]),
}

impl Side<'_> {
    /// At most a vector of numbers from element `at` on; all the same when `step` is 0.
    #[inline(always)]
    fn load<I: Isa>(&self, isa: I, at: usize, step: usize, count: usize) -> I::F32 {
        let end = if step == 0 { at + 1 } else { at + count };
        match self {
            Self::Values(values) if step == 0 => isa.splat(values[at]),
            Self::Values(values) => isa.load_part(&values[at..end]),
            Self::Codes(codes, scale) => {
                let codes = &codes[at..end];
                let code = if step == 0 { isa.splat_i32(codes[0].into()) } else { load_codes(isa, codes) };
                let less = isa.sub_i32(code, isa.splat_i32(scale.zero.into()));
                isa.mul(isa.to_f32(less), isa.splat(scale.scale))
            }
        }
    }
}

impl Kernel for Job<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let step = self.step;
        let side = |i: usize| match &step.sides[i] {
            Pairing::Codes(span, scale) => {
                let view = self.ctx.view::<u8>(span);
                // SAFETY: nobody writes a side meanwhile.
                Side::Codes(unsafe { view.part(0..view.len()) }, *scale)
            }
            Pairing::Values(values) => Side::Values(values),
        };
        let (a, b) = (side(0), side(1));
        let strides = step.axes.inner();
        for Run { at, out, count } in runs_of(&step.axes, GRAIN, self.worker) {
            // SAFETY: runs of `out` are this worker's.
            let out = unsafe { self.out.part_mut(out..out + count) };
            match step.f {
                Fun::Add => each::<I, Add>(isa, step, [a, b], at, strides, out),
                Fun::Sub => each::<I, Sub>(isa, step, [a, b], at, strides, out),
                Fun::Mul => each::<I, Mul>(isa, step, [a, b], at, strides, out),
                Fun::Div => each::<I, Div>(isa, step, [a, b], at, strides, out),
            }
        }
    }
}

/// A run of results.
#[inline(always)]
fn each<I: Isa, F: Apply>(
    isa: I,
    step: &Pair,
    [a, b]: [Side<'_>; 2],
    at: [usize; 2],
    strides: [usize; 2],
    out: &mut [u8],
) {
    let scale = isa.splat(step.scale);
    for (i, out) in out.chunks_mut(I::LANES).enumerate() {
        let (i, count) = (i * I::LANES, out.len());
        let x = a.load(isa, at[0] + i * strides[0], strides[0], count);
        let y = b.load(isa, at[1] + i * strides[1], strides[1], count);
        store_codes(isa, step.to.code(isa, isa.div(F::apply(isa, x, y), scale)), out);
    }
}

/// A function of two numbers on each lane.
trait Apply {
    fn apply<I: Isa>(isa: I, x: I::F32, y: I::F32) -> I::F32;
}

macro_rules! apply {
    ($($name:ident($method:ident))*) => {$(
        struct $name;

        impl Apply for $name {
            #[inline(always)]
            fn apply<I: Isa>(isa: I, x: I::F32, y: I::F32) -> I::F32 {
                isa.$method(x, y)
            }
        }
    )*};
}

apply! { Add(add) Sub(sub) Mul(mul) Div(div) }
