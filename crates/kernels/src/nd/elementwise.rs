//! Elementwise steps: a function of one value, or of two that are broadcast against each other, and an activation.

use std::sync::Arc;

use kinglet_simd::{Isa, Kernel, dispatch, erf, exp};

use super::act::{Act, Apply, Runs};
use super::strided::{Axes, Run, fixed, runs_of};
use crate::arena::Span;
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// A function of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// NaN when either is NaN.
    Min,
    /// NaN when either is NaN.
    Max,
}

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Unary {
    /// An activation, or none: a copy.
    Act(Act),
    Neg,
    Abs,
    Sqrt,
    Reciprocal,
    Square,
    /// Within 2 ULP.
    Exp,
    /// Within 4 ULP.
    Erf,
}

/// An operand.
#[derive(Clone, Debug)]
pub enum Side {
    /// What a step made.
    Span(Span),
    /// Values that never change.
    Values(Arc<[f32]>),
}

impl From<Span> for Side {
    fn from(span: Span) -> Self {
        Self::Span(span)
    }
}

impl Side {
    /// Where it starts.
    pub(super) fn start(&self, ctx: &StepCtx<'_>) -> *const f32 {
        match self {
            Self::Span(span) => ctx.view::<f32>(span).as_ptr(),
            Self::Values(values) => values.as_ptr(),
        }
    }

    pub(super) fn access(&self) -> Option<Access> {
        if let Self::Span(span) = self { Some(Access::Read(*span)) } else { None }
    }

    /// Number of elements, all f32; none when its size is not fixed.
    pub(super) fn elements(&self, check: Check, what: &str) -> Result<Option<usize>, StepError> {
        match self {
            Self::Span(span) => check.span::<f32>(what, span, span.cols).map(|()| fixed(span)),
            Self::Values(values) => Ok(Some(values.len())),
        }
    }
}

/// `out = act(f(a, b))` over `axes`, along which `a` and `b` move by their strides (0 where they are repeated) and `out`
/// is dense. All f32.
pub fn binary(
    f: Binary,
    axes: &Axes<2>,
    act: Act,
    a: impl Into<Side>,
    b: impl Into<Side>,
    out: Span,
) -> Result<Box<dyn Step>, StepError> {
    let (check, a, b) = (Check("binary"), a.into(), b.into());
    let axes = axes.simplified();
    for (what, side, i) in [("a", &a, 0), ("b", &b, 1)] {
        match side {
            Side::Span(span) => axes.check(check, what, span, i)?,
            Side::Values(values) => {
                let reach = axes.reach(i);
                check.that(reach.is_some_and(|n| n <= values.len()), || {
                    format!("{what} has {} values, and {axes:?} reach {reach:?}", values.len())
                })?;
            }
        }
    }
    axes.check_dense(check, &out)?;
    Ok(Box::new(Pairwise { f, axes, act, a, b, out }))
}

/// `out = f(x)`; both f32 and as long.
pub fn unary(f: Unary, x: Span, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("unary");
    check.span::<f32>("x", &x, x.cols)?;
    check.span::<f32>("out", &out, x.cols)?;
    check.same_rows("x and out", &x, &out)?;
    Ok(Box::new(Each { f, x, out }))
}

/// Values of an innermost run that a worker takes at a time.
const GRAIN: usize = 2048;

struct Pairwise {
    f: Binary,
    axes: Axes<2>,
    act: Act,
    a: Side,
    b: Side,
    out: Span,
}

// SAFETY: touches its spans; each worker writes its own runs of `out`.
unsafe impl Step for Pairwise {
    fn label(&self) -> String {
        format!("{:?} {}", self.f, self.act.name()).to_lowercase().trim_end().into()
    }

    fn spans(&self) -> Vec<Access> {
        [self.a.access(), self.b.access(), Some(Access::Write(self.out))].into_iter().flatten().collect()
    }

    fn serial(&self, _: &[usize]) -> bool {
        self.axes.len() <= 4096
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let sides = [self.a.start(ctx), self.b.start(ctx)];
        let job = PairJob { step: self, sides, out: ctx.view(&self.out), worker };
        dispatch(ctx.level(), job);
    }
}

struct PairJob<'a> {
    step: &'a Pairwise,
    sides: [*const f32; 2],
    out: SharedMut<'a, f32>,
    worker: Worker<'a>,
}

impl Kernel for PairJob<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.step.f {
            Binary::Add => self.runs::<I, Add>(isa),
            Binary::Sub => self.runs::<I, Sub>(isa),
            Binary::Mul => self.runs::<I, Mul>(isa),
            Binary::Div => self.runs::<I, Div>(isa),
            Binary::Min => self.runs::<I, Min>(isa),
            Binary::Max => self.runs::<I, Max>(isa),
        }
    }
}

impl PairJob<'_> {
    #[inline(always)]
    fn runs<I: Isa, F: Pair>(&self, isa: I) {
        let axes = &self.step.axes;
        for Run { at, out, count } in runs_of(axes, GRAIN, self.worker) {
            // SAFETY: the axes were checked against both sides; runs of `out` are this worker's.
            unsafe {
                let (a, b) = (self.sides[0].add(at[0]), self.sides[1].add(at[1]));
                let out = self.out.as_mut_ptr().add(out);
                match axes.inner() {
                    [0, _] => pairs::<I, F, true, false>(isa, a, b, out, count),
                    [_, 0] => pairs::<I, F, false, true>(isa, a, b, out, count),
                    _ => pairs::<I, F, false, false>(isa, a, b, out, count),
                }
                if self.step.act != Act::NONE {
                    isa.dispatch(Apply::new(self.step.act, Runs { at: out, rows: 1, pitch: 0, count }));
                }
            }
        }
    }
}

/// `count` results of a run; an operand that is one value for all is loaded once.
///
/// # Safety
/// The operands are valid for reading `count` values (or one), `out` for writing them.
#[inline(always)]
unsafe fn pairs<I: Isa, F: Pair, const ONE_A: bool, const ONE_B: bool>(
    isa: I,
    a: *const f32,
    b: *const f32,
    out: *mut f32,
    count: usize,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let (first_a, first_b) = (isa.splat(*a), isa.splat(*b));
        let whole = count / I::LANES * I::LANES;
        for i in (0..whole).step_by(I::LANES) {
            let x = if ONE_A { first_a } else { isa.load_ptr(a.add(i)) };
            let y = if ONE_B { first_b } else { isa.load_ptr(b.add(i)) };
            isa.store_ptr(F::apply(isa, x, y), out.add(i));
        }
        let rest = count - whole;
        if rest > 0 {
            let x = if ONE_A { first_a } else { isa.load_part_ptr(a.add(whole), rest) };
            let y = if ONE_B { first_b } else { isa.load_part_ptr(b.add(whole), rest) };
            isa.store_part_ptr(F::apply(isa, x, y), out.add(whole), rest);
        }
    }
}

/// A function of two values on each lane.
trait Pair {
    fn apply<I: Isa>(isa: I, a: I::F32, b: I::F32) -> I::F32;
}

macro_rules! pair {
    ($($name:ident($isa:ident, $a:ident, $b:ident) = $body:expr;)*) => {$(
        struct $name;

        impl Pair for $name {
            #[inline(always)]
            fn apply<I: Isa>($isa: I, $a: I::F32, $b: I::F32) -> I::F32 {
                $body
            }
        }
    )*};
}

pair! {
    Add(isa, a, b) = isa.add(a, b);
    Sub(isa, a, b) = isa.sub(a, b);
    Mul(isa, a, b) = isa.mul(a, b);
    Div(isa, a, b) = isa.div(a, b);
    Min(isa, a, b) = isa.select(isa.eq(a, a), isa.min(a, b), a);
    Max(isa, a, b) = isa.select(isa.eq(a, a), isa.max(a, b), a);
}

struct Each {
    f: Unary,
    x: Span,
    out: Span,
}

// SAFETY: touches its spans; each worker writes its own share of `out`.
unsafe impl Step for Each {
    fn label(&self) -> String {
        match self.f {
            Unary::Act(act) if act == Act::NONE => "copy".into(),
            Unary::Act(act) => act.name().into(),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 4096)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (x, out) = (ctx.view::<f32>(&self.x), ctx.view(&self.out));
        let share = worker.share(out.len(), GRAIN);
        // SAFETY: shares are disjoint, and `x` is only read.
        let (x, out) = unsafe { (x.part(share.clone()), out.part_mut(share)) };
        dispatch(ctx.level(), EachJob { f: self.f, x, out });
    }
}

struct EachJob<'a> {
    f: Unary,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for EachJob<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for at in (0..self.x.len()).step_by(GRAIN) {
            let range = at..self.x.len().min(at + GRAIN);
            let (x, out) = (&self.x[range.clone()], &mut self.out[range]);
            match self.f {
                Unary::Act(act) => {
                    out.copy_from_slice(x);
                    let runs = Runs { at: out.as_mut_ptr(), rows: 1, pitch: 0, count: out.len() };
                    // SAFETY: the run is `out`.
                    unsafe { isa.dispatch(Apply::new(act, runs)) };
                }
                Unary::Neg => each::<I, Neg>(isa, x, out),
                Unary::Abs => each::<I, Abs>(isa, x, out),
                Unary::Sqrt => each::<I, Sqrt>(isa, x, out),
                Unary::Reciprocal => each::<I, Reciprocal>(isa, x, out),
                Unary::Square => each::<I, Square>(isa, x, out),
                Unary::Exp => each::<I, Exp>(isa, x, out),
                Unary::Erf => each::<I, Erf>(isa, x, out),
            }
        }
    }
}

#[inline(always)]
fn each<I: Isa, F: Pair>(isa: I, x: &[f32], out: &mut [f32]) {
    for (x, out) in x.chunks(I::LANES).zip(out.chunks_mut(I::LANES)) {
        if x.len() == I::LANES {
            let x = isa.load(x);
            isa.store(F::apply(isa, x, x), out);
        } else {
            let x = isa.load_part(x);
            isa.store_part(F::apply(isa, x, x), out);
        }
    }
}

// Functions of one value: both operands are that value.
pair! {
    Neg(isa, x, _same) = isa.neg(x);
    Abs(isa, x, _same) = isa.abs(x);
    Sqrt(isa, x, _same) = isa.sqrt(x);
    Reciprocal(isa, x, _same) = isa.div(isa.splat(1.0), x);
    Square(isa, x, y) = isa.mul(x, y);
    Exp(isa, x, _same) = exp(isa, x);
    Erf(isa, x, _same) = erf(isa, x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nd::testing::{Case, random};
    use kinglet_simd::Level;

    fn check(f: Binary, shape: &[usize], strides: [&[usize]; 2], act: Act) {
        let axes = Axes::new(shape, strides);
        let lens = [0, 1].map(|i| axes.reach(i).expect("small"));
        let (a, b) = (random(1, lens[0]), random(2, lens[1]));
        let mut expected = vec![0.0; axes.len()];
        for (at, e) in expected.iter_mut().enumerate() {
            let (mut rest, mut index) = (at, [0; 2]);
            for axis in (0..shape.len()).rev() {
                (0..2).for_each(|i| index[i] += rest % shape[axis] * strides[i][axis]);
                rest /= shape[axis];
            }
            let (x, y) = (f64::from(a[index[0]]), f64::from(b[index[1]]));
            let value = match f {
                Binary::Add => x + y,
                Binary::Sub => x - y,
                Binary::Mul => x * y,
                Binary::Div => x / y,
                Binary::Min => x.min(y),
                Binary::Max => x.max(y),
            };
            *e = if act == Act::RELU { value.max(0.0) } else { value };
        }
        for level in Level::available() {
            let mut case = Case::new(level);
            let (a, b) = (case.matrix(lens[0], &a), case.matrix(lens[1], &b));
            let out = case.span(1, axes.len());
            case.check_matrix(|| binary(f, &axes, act, a, b, out).expect("binds"), out, &expected, 1e-6);
        }
    }

    #[test]
    fn operands_are_broadcast() {
        use Binary::*;
        for f in [Add, Sub, Mul, Div, Min, Max] {
            check(f, &[7, 100], [&[100, 1], &[100, 1]], Act::NONE);
            check(f, &[2, 3, 70], [&[210, 70, 1], &[0, 70, 1]], Act::RELU);
            check(f, &[4, 33], [&[33, 1], &[1, 0]], Act::NONE);
            check(f, &[4, 33], [&[0, 0], &[33, 1]], Act::NONE);
            check(f, &[3, 50, 16], [&[800, 16, 1], &[16, 0, 1]], Act::NONE);
            check(f, &[5, 6], [&[1, 5], &[6, 1]], Act::NONE);
            check(f, &[9000], [&[1], &[1]], Act::NONE);
        }
    }

    #[test]
    fn functions_of_one_value() {
        let x: Vec<f32> = random(1, 5000).iter().map(|x| x.abs() * 3.0 + 0.1).collect();
        type Case1 = (Unary, fn(f64) -> f64);
        let cases: [Case1; 7] = [
            (Unary::Neg, |x| -x),
            (Unary::Abs, f64::abs),
            (Unary::Sqrt, f64::sqrt),
            (Unary::Reciprocal, |x| 1.0 / x),
            (Unary::Square, |x| x * x),
            (Unary::Exp, f64::exp),
            (Unary::Act(Act::Elu(0.5)), |x| x),
        ];
        for (f, reference) in cases {
            let expected: Vec<f64> = x.iter().map(|&x| reference(f64::from(x))).collect();
            for level in Level::available() {
                let mut case = Case::new(level);
                let (x, out) = (case.matrix(x.len(), &x), case.span(1, x.len()));
                case.check_matrix(|| unary(f, x, out).expect("binds"), out, &expected, 5e-7);
            }
        }
    }

    #[test]
    fn axes_that_leave_the_operands_are_refused() {
        let span = |at, cols| Span::f32(at, crate::Rows::Fixed(1), cols);
        let axes = Axes::new(&[4, 8], [&[8, 1], &[0, 1]]);
        let make =
            |a, b, out| binary(Binary::Add, &axes, Act::NONE, span(0, a), span(256, b), span(512, out));
        assert!(make(32, 8, 32).is_ok());
        assert!(make(31, 8, 32).is_err() && make(32, 7, 32).is_err() && make(32, 8, 33).is_err());
    }
}
