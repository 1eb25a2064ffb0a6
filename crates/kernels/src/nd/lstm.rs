//! Layers of long short-term memory: one position after the other, hidden elements shared among the workers.
//!
//! Matrices stay as models store them, gates in the order input, output, forget, cell. Deliberately absent: other functions than
//! sigmoid and tanh, sequences of different lengths, weights of the cell in the gates; plain kernels have those.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch, sigmoid, tanh};
use kinglet_tensor::Bytes;

use crate::arena::Span;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Positions whose inputs are multiplied by the same rows together.
const TOGETHER: usize = 16;
/// Multiply-adds below which one worker does all.
const ALONE: usize = 1 << 15;

/// Sizes and weights of a layer.
#[derive(Clone, Debug)]
pub struct Lstm {
    /// Positions.
    pub time: usize,
    /// Sequences.
    pub batch: usize,
    /// Elements of an input.
    pub wide: usize,
    /// Elements of a state.
    pub hidden: usize,
    /// For each direction, whether it runs from the end.
    pub backwards: Vec<bool>,
    /// Whether sequences are the first dimension of inputs, outputs and states, positions the second.
    pub batch_first: bool,
    /// Floats `[D, 4 * H, wide]`.
    pub input: Bytes,
    /// Floats `[D, 4 * H, H]`.
    pub state: Bytes,
    /// Floats `[D, 8 * H]`: of the input, then of the state; none for zeros.
    pub bias: Option<Bytes>,
}

/// Where a layer reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct LstmSpans {
    /// `[T, N, wide]`.
    pub x: Span,
    /// The first hidden and cell states `[D, N, H]`; none for zeros.
    pub first: [Option<Span>; 2],
    /// All hidden states `[T, D, N, H]`, the last hidden and the last cell states `[D, N, H]`, as far as they are wanted.
    pub out: [Option<Span>; 3],
}

/// The step of a layer. Sums are off by at most `(wide + H) * 2^-24` of their magnitudes, functions as `Act` says.
pub fn lstm(layer: Lstm, spans: LstmSpans) -> Result<Box<dyn Step>, StepError> {
    let check = Check("lstm");
    let of = &layer;
    let directions = of.backwards.len();
    let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
    let states = product(&[directions, of.batch, of.hidden]);
    let floats = |bytes: &Bytes| bytemuck::try_cast_slice::<u8, f32>(bytes).map(<[f32]>::len).ok();
    let rows = |wide: usize| product(&[directions, 4, of.hidden, wide]);
    check.that(states.is_some_and(|n| n > 0), || "no states".into())?;
    check.that(floats(&of.input) == rows(of.wide) && floats(&of.state) == rows(of.hidden), || {
        format!("matrices of {} and {} bytes", of.input.len(), of.state.len())
    })?;
    let biased = of.bias.as_ref().is_none_or(|bias| floats(bias) == product(&[directions, 8, of.hidden]));
    check.that(biased, || "another number of biases".into())?;
    let holds = |span: &Span, count: Option<usize>| count.is_some() && span.len(&[]) == count;
    check.that(holds(&spans.x, product(&[of.time, of.batch, of.wide])), || format!("x is {:?}", spans.x))?;
    let all = product(&[of.time, states.unwrap_or(0)]);
    let [every, last, cell] = spans.out;
    let lists =
        [(spans.first[0], states), (spans.first[1], states), (every, all), (last, states), (cell, states)];
    for (span, count) in lists {
        let Some(span) = span else { continue };
        check.that(holds(&span, count), || format!("{span:?} for {count:?} numbers"))?;
    }
    for span in [Some(spans.x), spans.first[0], spans.first[1], every, last, cell].into_iter().flatten() {
        check.span::<f32>("a span", &span, span.cols)?;
    }
    let scratch =
        all.and_then(|all| product(&[all, 16])).zip(states).and_then(|(sums, n)| sums.checked_add(12 * n));
    let scratch = scratch.ok_or_else(|| StepError { step: "lstm", reason: "its sums overflow".into() })?;
    Ok(Box::new(LstmStep { layer, spans, scratch }))
}

struct LstmStep {
    layer: Lstm,
    spans: LstmSpans,
    /// Bytes of the sums of all gates, of two hidden states and of the cell.
    scratch: usize,
}

// SAFETY: touches its spans and scratch. Each worker writes the hidden elements of its share; hidden states of the position
// before, which all read, were written before a barrier, into the other half of their buffer.
unsafe impl Step for LstmStep {
    fn label(&self) -> String {
        format!("lstm {}, {} directions", self.layer.hidden, self.layer.backwards.len())
    }

    fn spans(&self) -> Vec<Access> {
        let reads = std::iter::once(self.spans.x).chain(self.spans.first.into_iter().flatten());
        reads.map(Access::Read).chain(self.spans.out.into_iter().flatten().map(Access::Write)).collect()
    }

    fn needs(&self) -> Needs {
        Needs { scratch: self.scratch, ..Needs::default() }
    }

    fn serial(&self, _: &[usize]) -> bool {
        let of = &self.layer;
        let rows = of.backwards.len() * of.batch * 4 * of.hidden;
        rows.saturating_mul(of.time).saturating_mul(of.wide + of.hidden) <= ALONE
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (of, view) = (&self.layer, |span: &Option<Span>| span.as_ref().map(|span| ctx.view::<f32>(span)));
        let floats = |bytes| bytemuck::cast_slice::<u8, f32>(bytes);
        let run = Run {
            of,
            x: ctx.view(&self.spans.x),
            first: [view(&self.spans.first[0]), view(&self.spans.first[1])],
            out: [view(&self.spans.out[0]), view(&self.spans.out[1]), view(&self.spans.out[2])],
            input: floats(&of.input),
            state: floats(&of.state),
            bias: of.bias.as_ref().map(|bias| floats(bias)),
            scratch: ctx.scratch(),
            share: worker.share(of.hidden, 16),
        };
        dispatch(ctx.level(), Begin(&run));
        worker.barrier();
        for i in 0..of.time {
            dispatch(ctx.level(), Move(&run, i));
            worker.barrier();
        }
        run.finish();
    }
}

/// One worker's part of a run.
struct Run<'a> {
    of: &'a Lstm,
    x: SharedMut<'a, f32>,
    first: [Option<SharedMut<'a, f32>>; 2],
    out: [Option<SharedMut<'a, f32>>; 3],
    input: &'a [f32],
    state: &'a [f32],
    bias: Option<&'a [f32]>,
    /// Sums `[T * N, D, 4 * H]`, hidden states `[2, D, N, H]`, cells `[D, N, H]`.
    scratch: SharedMut<'a, f32>,
    /// Hidden elements of this worker.
    share: Range<usize>,
}

impl Run<'_> {
    /// Where in the scratch the sums of a gate start.
    #[inline(always)]
    fn sums(&self, position: usize, d: usize, gate: usize) -> usize {
        ((position * self.of.backwards.len() + d) * 4 + gate) * self.of.hidden
    }

    /// Where in the scratch a hidden state starts, of the two that take turns; the cell is the third.
    #[inline(always)]
    fn kept(&self, turn: usize, d: usize, n: usize) -> usize {
        let of = self.of;
        let sums = of.time * of.batch * of.backwards.len() * 4;
        (sums + (turn * of.backwards.len() + d) * of.batch + n) * of.hidden
    }

    /// Where in the spans a state starts.
    #[inline(always)]
    fn outer(&self, d: usize, n: usize) -> usize {
        let of = self.of;
        (if of.batch_first { n * of.backwards.len() + d } else { d * of.batch + n }) * of.hidden
    }

    /// The number of a position of a sequence.
    #[inline(always)]
    fn position(&self, n: usize, t: usize) -> usize {
        if self.of.batch_first { n * self.of.time + t } else { t * self.of.batch + n }
    }

    /// Where the hidden state of a position starts in the first output.
    #[inline(always)]
    fn place(&self, d: usize, n: usize, t: usize) -> usize {
        let (of, directions) = (self.of, self.of.backwards.len());
        let row = if of.batch_first {
            (n * of.time + t) * directions + d
        } else {
            (t * directions + d) * of.batch + n
        };
        row * of.hidden
    }

    /// This worker's elements of the states become the first ones.
    #[inline(always)]
    fn start(&self) {
        let of = self.of;
        for d in 0..of.backwards.len() {
            for n in 0..of.batch {
                for (turn, first) in [(0, &self.first[0]), (2, &self.first[1])] {
                    let (to, from) = (self.own(self.kept(turn, d, n)), self.own(self.outer(d, n)));
                    // SAFETY: this worker's elements of the scratch; the span is only read.
                    unsafe {
                        let to = self.scratch.part_mut(to);
                        match first {
                            Some(first) => to.copy_from_slice(first.part(from)),
                            None => to.fill(0.0),
                        }
                    }
                }
            }
        }
    }

    /// This worker's elements of what starts at `at`.
    #[inline(always)]
    fn own(&self, at: usize) -> Range<usize> {
        at + self.share.start..at + self.share.end
    }

    /// Hands out this worker's elements of the last states.
    fn finish(&self) {
        let of = self.of;
        for d in 0..of.backwards.len() {
            for n in 0..of.batch {
                for (turn, out) in [(of.time % 2, &self.out[1]), (2, &self.out[2])] {
                    let Some(out) = out else { continue };
                    let (from, to) = (self.own(self.kept(turn, d, n)), self.own(self.outer(d, n)));
                    // SAFETY: this worker's elements of both.
                    unsafe { out.part_mut(to).copy_from_slice(self.scratch.part(from)) };
                }
            }
        }
    }
}

/// First states, and what the inputs add to the gates.
struct Begin<'a>(&'a Run<'a>);

impl Kernel for Begin<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let run = self.0;
        let of = run.of;
        run.start();
        let (positions, wide, hidden) = (of.time * of.batch, of.wide, of.hidden);
        // SAFETY: only read.
        let x = unsafe { run.x.part(0..run.x.len()) };
        let mut from = 0;
        while from < positions {
            let to = positions.min(from + TOGETHER);
            for d in 0..of.backwards.len() {
                for j in run.share.clone() {
                    let rows = rows_of(run.input, d, j, hidden, wide);
                    let bias = gates_of(run.bias, d, j, hidden);
                    for position in from..to {
                        let dots = dots(isa, rows, &x[position * wide..(position + 1) * wide]);
                        #[allow(
                            clippy::needless_range_loop,
                            reason = "plain loops are inlined for every instruction set"
                        )]
                        for gate in 0..4 {
                            let at = run.sums(position, d, gate) + j;
                            // SAFETY: element `j` is this worker's.
                            unsafe { run.scratch.part_mut(at..at + 1)[0] = dots[gate] + bias[gate] };
                        }
                    }
                }
            }
            from = to;
        }
    }
}

/// The states move on to their next position.
struct Move<'a>(&'a Run<'a>, usize);

impl Kernel for Move<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (run, i) = (self.0, self.1);
        let of = run.of;
        for d in 0..of.backwards.len() {
            let t = if of.backwards[d] { of.time - 1 - i } else { i };
            for n in 0..of.batch {
                let (before, position) = (run.kept(i % 2, d, n), run.position(n, t));
                // SAFETY: nobody writes this half until the next barrier.
                let h = unsafe { run.scratch.part(before..before + of.hidden) };
                for j in run.share.clone() {
                    let dots = dots(isa, rows_of(run.state, d, j, of.hidden, of.hidden), h);
                    #[allow(
                        clippy::needless_range_loop,
                        reason = "plain loops are inlined for every instruction set"
                    )]
                    for gate in 0..4 {
                        let at = run.sums(position, d, gate) + j;
                        // SAFETY: element `j` is this worker's.
                        unsafe { run.scratch.part_mut(at..at + 1)[0] += dots[gate] };
                    }
                }
                let (cell, after) = (run.own(run.kept(2, d, n)), run.own(run.kept((i + 1) % 2, d, n)));
                // SAFETY: this worker's elements, which lie apart from each other.
                unsafe {
                    let input = run.scratch.part(run.own(run.sums(position, d, 0)));
                    let output = run.scratch.part(run.own(run.sums(position, d, 1)));
                    let forget = run.scratch.part(run.own(run.sums(position, d, 2)));
                    let new = run.scratch.part(run.own(run.sums(position, d, 3)));
                    let gates = [input, output, forget, new];
                    let after = run.scratch.part_mut(after);
                    close(isa, gates, run.scratch.part_mut(cell), after);
                    if let Some(all) = &run.out[0] {
                        all.part_mut(run.own(run.place(d, n, t))).copy_from_slice(after);
                    }
                }
            }
        }
    }
}

/// Rows of the four gates of hidden element `j`.
#[inline(always)]
fn rows_of(all: &[f32], d: usize, j: usize, hidden: usize, wide: usize) -> [&[f32]; 4] {
    let first = (d * 4 * hidden + j) * wide;
    let gap = hidden * wide;
    let (second, third, fourth) = (first + gap, first + 2 * gap, first + 3 * gap);
    [
        &all[first..first + wide],
        &all[second..second + wide],
        &all[third..third + wide],
        &all[fourth..fourth + wide],
    ]
}

/// Both biases of the four gates of hidden element `j`.
#[inline(always)]
fn gates_of(bias: Option<&[f32]>, d: usize, j: usize, hidden: usize) -> [f32; 4] {
    let mut sums = [0.0; 4];
    let Some(bias) = bias else { return sums };
    for (gate, sum) in sums.iter_mut().enumerate() {
        let at = (d * 8 + gate) * hidden + j;
        *sum = bias[at] + bias[at + 4 * hidden];
    }
    sums
}

/// Products of four rows with `x`, in `2 * LANES` partial sums each.
#[inline(always)]
fn dots<I: Isa>(isa: I, [a, b, c, d]: [&[f32]; 4], x: &[f32]) -> [f32; 4] {
    let (mut a0, mut b0, mut c0, mut d0) = (isa.zero(), isa.zero(), isa.zero(), isa.zero());
    let (mut a1, mut b1, mut c1, mut d1) = (isa.zero(), isa.zero(), isa.zero(), isa.zero());
    let mut i = 0;
    while i + 2 * I::LANES <= x.len() {
        let (low, high) = (isa.load(&x[i..]), isa.load(&x[i + I::LANES..]));
        (a0, a1) = (isa.fma(isa.load(&a[i..]), low, a0), isa.fma(isa.load(&a[i + I::LANES..]), high, a1));
        (b0, b1) = (isa.fma(isa.load(&b[i..]), low, b0), isa.fma(isa.load(&b[i + I::LANES..]), high, b1));
        (c0, c1) = (isa.fma(isa.load(&c[i..]), low, c0), isa.fma(isa.load(&c[i + I::LANES..]), high, c1));
        (d0, d1) = (isa.fma(isa.load(&d[i..]), low, d0), isa.fma(isa.load(&d[i + I::LANES..]), high, d1));
        i += 2 * I::LANES;
    }
    while i < x.len() {
        let end = x.len().min(i + I::LANES);
        let part = isa.load_part(&x[i..end]);
        a0 = isa.fma(isa.load_part(&a[i..end]), part, a0);
        b0 = isa.fma(isa.load_part(&b[i..end]), part, b0);
        c0 = isa.fma(isa.load_part(&c[i..end]), part, c0);
        d0 = isa.fma(isa.load_part(&d[i..end]), part, d0);
        i = end;
    }
    let (a, b, c, d) = (isa.add(a0, a1), isa.add(b0, b1), isa.add(c0, c1), isa.add(d0, d1));
    [isa.reduce_sum(a), isa.reduce_sum(b), isa.reduce_sum(c), isa.reduce_sum(d)]
}

/// `c = forget * c + input * new`, `h = output * tanh(c)`.
#[inline(always)]
fn close<I: Isa>(isa: I, [input, output, forget, new]: [&[f32]; 4], cell: &mut [f32], hidden: &mut [f32]) {
    let mut i = 0;
    while i < cell.len() {
        let end = cell.len().min(i + I::LANES);
        let (input, output) =
            (sigmoid(isa, isa.load_part(&input[i..end])), sigmoid(isa, isa.load_part(&output[i..end])));
        let (forget, new) =
            (sigmoid(isa, isa.load_part(&forget[i..end])), tanh(isa, isa.load_part(&new[i..end])));
        let c = isa.fma(forget, isa.load_part(&cell[i..end]), isa.mul(input, new));
        isa.store_part(c, &mut cell[i..end]);
        isa.store_part(isa.mul(output, tanh(isa, c)), &mut hidden[i..end]);
        i = end;
    }
}

#[cfg(test)]
mod tests;
