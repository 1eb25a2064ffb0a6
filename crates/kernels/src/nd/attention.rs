//! Attention of short sequences: every query sees every key, with an additive mask or without.
//!
//! For each head, keys are packed transposed and values as panels, in the worker's scratch; then a few queries at a time
//! are multiplied with all keys, their scores become weights, and the weights are multiplied with the values. Scores
//! are never stored beyond the cache. Error: that of products of `dim` and of `keys` terms in f32 and of the
//! exponentials, `(dim + keys + 32) * 2^-23 * max(|v|)` for scores below 16 in absolute value.

use std::f32::consts::LOG2_E;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::act::Act;
use super::elementwise::Side;
use super::layout::BLOCK;
use super::shape::cuts;
use super::softmax::largest;
use super::strided::fixed;
use super::tile::{Dense, Dynamic, Tile, panel_blocks, tallest, tiles};
use crate::arena::Span;
use crate::ops::vec::exp2;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Independent sequences.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Queries and keys of a sequence.
    pub queries: usize,
    #[allow(missing_docs, reason = "said above")]
    pub keys: usize,
    /// Elements of a query and a key, and of a value.
    pub dim: usize,
    #[allow(missing_docs, reason = "said above")]
    pub value_dim: usize,
    /// Scores are multiplied by this, which is positive.
    pub scale: f32,
    /// Neighbouring heads that share keys and values.
    pub shared: usize,
    /// Which queries whose scores make no weights weigh nothing.
    pub blank: Blank,
}

/// Queries that weigh nothing, where the exponentials of their scores have no sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blank {
    /// None: they make NaN.
    #[default]
    Never,
    /// Those whose scores are all minus infinity.
    Hidden,
    /// All, those with scores that are NaN too.
    Always,
}

/// Where the element `[batch][head][token][i]` of an operand lies: `offset + batch * strides[0] + head * strides[1] +
/// token * strides[2] + i`.
#[derive(Clone, Debug)]
pub struct Operand {
    /// A span or constants.
    pub side: Side,
    /// Elements before the first.
    pub offset: usize,
    /// Of the batch, the head and the token.
    pub strides: [usize; 3],
}

impl Operand {
    fn check(&self, check: Check, what: &str, counts: [usize; 3], inner: usize) -> Result<(), StepError> {
        let len = self.side.elements(check, what)?;
        self.reaches(check, what, counts, inner, len)
    }

    fn reaches(
        &self,
        check: Check,
        what: &str,
        counts: [usize; 3],
        inner: usize,
        len: Option<usize>,
    ) -> Result<(), StepError> {
        let last = counts.iter().zip(self.strides).try_fold(self.offset, |sum, (count, stride)| {
            sum.checked_add(count.checked_sub(1)?.checked_mul(stride)?)
        });
        let fits =
            last.and_then(|last| last.checked_add(inner)).zip(len).is_some_and(|(end, len)| end <= len);
        check.that(fits, || format!("{what} is {self:?} for {counts:?} of {inner}"))
    }

    fn at(&self, batch: usize, head: usize, token: usize) -> usize {
        self.offset + batch * self.strides[0] + head * self.strides[1] + token * self.strides[2]
    }
}

/// What is added to scores, or which of them count. Its element for a query and a key lies at `offset + batch *
/// strides[0] + head * strides[1] + query * strides[2] + key` (strides of 0 repeat it).
#[derive(Clone, Debug)]
pub enum Mask {
    /// Summands.
    Added(Operand),
    /// Truth values, a byte each, in a span; scores count where they hold.
    Shown(Operand),
}

impl Mask {
    fn check(&self, check: Check, counts: [usize; 3], keys: usize) -> Result<(), StepError> {
        match self {
            Self::Added(operand) => operand.check(check, "mask", counts, keys),
            Self::Shown(operand) => {
                let Side::Span(span) = &operand.side else {
                    return check.that(false, || "truth values are constants".into());
                };
                check.span::<u8>("mask", span, span.cols)?;
                operand.reaches(check, "mask", counts, keys, fixed(span))
            }
        }
    }

    fn operand(&self) -> &Operand {
        let (Self::Added(operand) | Self::Shown(operand)) = self;
        operand
    }
}

/// Where attention leaves its result: lies like an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The span.
    pub span: Span,
    /// Of the batch, the head and the token.
    pub strides: [usize; 3],
}

/// `out = softmax(scale * q k^T + mask) v` for every head. Heads of `out` must not overlap.
pub fn short_attention(
    heads: Heads,
    [q, k, v]: [Operand; 3],
    mask: Option<Mask>,
    out: Output,
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("attention");
    let Heads { batch, heads: count, queries, keys, dim, value_dim, scale, shared, .. } = heads;
    let sizes = [batch, count, queries, keys, dim, value_dim, shared];
    let sound = sizes.iter().all(|&n| n > 0 && n < 1 << 24) && scale > 0.0 && count.is_multiple_of(shared);
    check.that(sound, || format!("{heads:?}"))?;
    q.check(check, "q", [batch, count, queries], dim)?;
    k.check(check, "k", [batch, count / shared, keys], dim)?;
    v.check(check, "v", [batch, count / shared, keys], value_dim)?;
    if let Some(mask) = &mask {
        mask.check(check, [batch, count, queries], keys)?;
    }
    let whole = Operand { side: out.span.into(), offset: 0, strides: out.strides };
    whole.check(check, "out", [batch, count, queries], value_dim)?;
    let mut axes: Vec<(usize, usize)> =
        [batch, count, queries].into_iter().zip(out.strides).filter(|(size, _)| *size > 1).collect();
    axes.sort_by_key(|(_, stride)| *stride);
    let reach = axes.iter().try_fold(value_dim, |reach, &(size, stride)| {
        (stride >= reach).then_some((size - 1).saturating_mul(stride).saturating_add(reach))
    });
    check.that(reach.is_some(), || format!("heads of out overlap: {out:?}"))?;
    Ok(Box::new(Attention { heads, q, k, v, mask, out }))
}

struct Attention {
    heads: Heads,
    q: Operand,
    k: Operand,
    v: Operand,
    mask: Option<Mask>,
    out: Output,
}

/// Most queries of a tile, whatever the instruction set.
const QUERIES: usize = super::tile::TALLEST;
/// The widest panel.
const WIDEST: usize = 2 * BLOCK;

impl Attention {
    /// Floats of packed keys, of packed values, and of the scores of some queries.
    fn parts(&self) -> [usize; 3] {
        let keys = self.heads.keys.next_multiple_of(WIDEST);
        [
            self.heads.dim * keys,
            self.heads.keys * self.heads.value_dim.next_multiple_of(WIDEST),
            QUERIES * keys,
        ]
    }
}

// SAFETY: touches its spans and its worker's scratch; each head is done by one worker, and heads of `out` are apart.
unsafe impl Step for Attention {
    fn label(&self) -> String {
        let mask = if self.mask.is_some() { " + mask" } else { "" };
        format!("attention f32{mask}")
    }

    fn spans(&self) -> Vec<Access> {
        let mask = self.mask.as_ref().map(Mask::operand);
        let reads = [&self.q, &self.k, &self.v].into_iter().chain(mask).filter_map(|o| o.side.access());
        reads.chain([Access::Write(self.out.span)]).collect()
    }

    fn needs(&self) -> Needs {
        let floats = self.parts().iter().fold(0usize, |sum, &n| sum.saturating_add(n));
        Needs { worker_scratch: floats.saturating_mul(size_of::<f32>()), ..Needs::default() }
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let Heads { batch, heads, queries, .. } = self.heads;
        // Long sequences of few heads are cut, each part packing its head again.
        let cut = (2 * worker.count()).div_ceil(batch * heads).min(queries.div_ceil(4 * QUERIES)).max(1);
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|o| o.side.start(ctx));
        let mask = self.mask.as_ref().map(|mask| match mask {
            Mask::Added(operand) => MaskStart::Added(operand.side.start(ctx)),
            Mask::Shown(Operand { side: Side::Span(span), .. }) => MaskStart::Shown(ctx.view(span).as_ptr()),
            Mask::Shown(_) => MaskStart::Shown(std::ptr::null()),
        });
        let out = ctx.view(&self.out.span);
        let scratch = ctx.worker_scratch(worker);
        while let Some(unit) = ctx.take_near(worker, batch * heads * cut) {
            let (pair, part) = (unit / cut, unit % cut);
            let queries = queries * part / cut..queries * (part + 1) / cut;
            let place = [pair / heads, pair % heads];
            dispatch(ctx.level(), Head { step: self, place, queries, q, k, v, mask, out, scratch });
        }
    }
}

/// Where a mask starts.
#[derive(Clone, Copy)]
enum MaskStart {
    Added(*const f32),
    Shown(*const u8),
}

/// Some queries of a head of a sequence.
struct Head<'a> {
    step: &'a Attention,
    place: [usize; 2],
    queries: std::ops::Range<usize>,
    q: *const f32,
    k: *const f32,
    v: *const f32,
    mask: Option<MaskStart>,
    out: SharedMut<'a, f32>,
    scratch: SharedMut<'a, f32>,
}

impl Kernel for Head<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [keys_len, values_len, scores_len] = self.step.parts();
        // SAFETY: the scratch is this worker's, and the three parts lie one behind the other.
        let (keys, values, scores) = unsafe {
            let values = keys_len..keys_len + values_len;
            let scores = values.end..values.end + scores_len;
            (self.scratch.part_mut(0..keys_len), self.scratch.part_mut(values), self.scratch.part_mut(scores))
        };
        let width = panel_blocks(I::LANES) * BLOCK;
        self.pack(width, keys, values);
        for cut in cuts(self.queries.len(), tallest(I::LANES, I::REGISTERS)) {
            let first = self.queries.start + cut.start;
            self.scores(isa, width, first, cut.len(), keys, scores);
            let factors = self.weights(isa, width, first, cut.len(), scores);
            self.outputs(isa, width, first, cut.len(), values, scores, &factors);
        }
    }
}

impl Head<'_> {
    /// Packs this head's keys, `[panel][dim][width]`, and values, `[panel][key][width]`.
    fn pack(&self, width: usize, keys: &mut [f32], values: &mut [f32]) {
        let Heads { dim, value_dim, keys: count, .. } = self.step.heads;
        let [batch, head] = [self.place[0], self.place[1] / self.step.heads.shared];
        for key in 0..count {
            let (panel, lane) = (key / width, key % width);
            let at = self.step.k.at(batch, head, key);
            // SAFETY: the operands were checked against their sides, which are only read.
            let k = unsafe { std::slice::from_raw_parts(self.k.add(at), dim) };
            let to = keys[panel * dim * width..].iter_mut().skip(lane).step_by(width);
            to.zip(k).for_each(|(to, from)| *to = *from);
            let at = self.step.v.at(batch, head, key);
            // SAFETY: as above.
            let v = unsafe { std::slice::from_raw_parts(self.v.add(at), value_dim) };
            for (panel, v) in v.chunks(width).enumerate() {
                values[(panel * count + key) * width..][..v.len()].copy_from_slice(v);
            }
        }
    }

    /// Scores of some queries, `[query][keys]`, rows being whole panels.
    #[inline(always)]
    fn scores<I: Isa>(
        &self,
        isa: I,
        width: usize,
        first: usize,
        count: usize,
        keys: &[f32],
        out: &mut [f32],
    ) {
        let Heads { dim, keys: total, .. } = self.step.heads;
        let kernel = tiles::<I, Dynamic, Dense>(width / BLOCK).get(count);
        let pitch = total.next_multiple_of(width);
        let at = self.step.q.at(self.place[0], self.place[1], first);
        let zeros = [0.0; WIDEST];
        for panel in 0..pitch / width {
            let tile = Tile {
                a: self.q.wrapping_add(at),
                pitch: self.step.q.strides[2],
                start: zeros.as_ptr(),
                out: out[panel * width..].as_mut_ptr(),
                ..product(&keys[panel * dim * width..], dim, width, pitch)
            };
            // SAFETY: the queries lie in their span, panels of keys and rows of scores in the scratch.
            unsafe { kernel(isa, &tile) };
        }
    }

    /// Scores become exponentials; returns what makes each row of them sum to one.
    #[inline(always)]
    fn weights<I: Isa>(
        &self,
        isa: I,
        width: usize,
        first: usize,
        count: usize,
        scores: &mut [f32],
    ) -> [f32; QUERIES] {
        let Heads { keys, scale, blank, .. } = self.step.heads;
        let pitch = keys.next_multiple_of(width);
        let mut factors = [1.0; QUERIES];
        for (i, factor) in factors.iter_mut().enumerate().take(count) {
            let row = &mut scores[i * pitch..][..keys];
            // SAFETY: a query of this head.
            let (top, power) = match unsafe { self.masked(isa, first + i, row, scale) } {
                Some(top) => (top, LOG2_E),
                None => (largest(isa, row), scale * LOG2_E),
            };
            let unseen = blank == Blank::Hidden && top == f32::NEG_INFINITY && is_hidden(row);
            let sum = powers(isa, row, top, power);
            *factor = 1.0 / sum;
            if unseen || blank == Blank::Always && sum.is_nan() {
                row.fill(0.0);
                *factor = 0.0;
            }
        }
        factors
    }

    /// Applies the mask, and with summands the factor, to the scores of a query; returns the largest. None where the
    /// factor is still to be applied.
    ///
    /// # Safety
    /// The query is one of the sequence.
    #[inline(always)]
    unsafe fn masked<I: Isa>(&self, isa: I, query: usize, row: &mut [f32], scale: f32) -> Option<f32> {
        let (start, mask) = (self.mask?, self.step.mask.as_ref()?);
        let at = mask.operand().at(self.place[0], self.place[1], query);
        // SAFETY: the mask was checked against its side, which is only read.
        unsafe {
            Some(match start {
                MaskStart::Added(start) => {
                    added(isa, row, std::slice::from_raw_parts(start.add(at), row.len()), scale)
                }
                MaskStart::Shown(start) => {
                    let mask = std::slice::from_raw_parts(start.add(at), row.len());
                    let shown = |(x, m): (&mut f32, &u8)| *x = if *m != 0 { *x } else { f32::NEG_INFINITY };
                    row.iter_mut().zip(mask).for_each(shown);
                    return None;
                }
            })
        }
    }

    /// Weighted values of some queries.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "the stages of one loop")]
    fn outputs<I: Isa>(
        &self,
        isa: I,
        width: usize,
        first: usize,
        count: usize,
        values: &[f32],
        scores: &[f32],
        factors: &[f32; QUERIES],
    ) {
        let Heads { keys, value_dim, .. } = self.step.heads;
        let pitch = keys.next_multiple_of(width);
        let kernel = tiles::<I, Dynamic, Dense>(width / BLOCK).get(count);
        let [batch, head] = self.place;
        let strides = self.step.out.strides;
        let at = batch * strides[0] + head * strides[1] + first * strides[2];
        let zeros = [0.0; WIDEST];
        for panel in 0..value_dim.div_ceil(width) {
            let tile = Tile {
                a: scores.as_ptr(),
                pitch,
                start: zeros.as_ptr(),
                out: self.out.as_mut_ptr().wrapping_add(at + panel * width),
                out_pitch: strides[2],
                valid: width.min(value_dim - panel * width),
                ..product(&values[panel * keys * width..], keys, width, 0)
            };
            // SAFETY: scores and values lie in the scratch, and this head's queries of `out` are this worker's.
            unsafe { kernel(isa, &tile) };
        }
        for (i, &factor) in factors.iter().enumerate().take(count) {
            let at = at + i * strides[2];
            // SAFETY: as above.
            super::softmax::scale(isa, unsafe { self.out.part_mut(at..at + value_dim) }, factor);
        }
    }
}

/// Whether all scores are minus infinity, and none is NaN.
#[inline(always)]
fn is_hidden(row: &[f32]) -> bool {
    for x in row {
        if *x != f32::NEG_INFINITY {
            return false;
        }
    }
    true
}

/// `row = row * scale + mask`; returns the largest.
#[inline(always)]
fn added<I: Isa>(isa: I, row: &mut [f32], mask: &[f32], scale: f32) -> f32 {
    let (by, mut largest) = (isa.splat(scale), isa.splat(f32::NEG_INFINITY));
    let (mut rows, masks) = (row.chunks_exact_mut(I::LANES), mask.chunks_exact(I::LANES));
    let mut top = f32::NEG_INFINITY;
    let rest = masks.remainder();
    for (x, m) in (&mut rows).zip(masks) {
        let y = isa.fma(isa.load(x), by, isa.load(m));
        largest = isa.max(y, largest);
        isa.store(y, x);
    }
    for (x, m) in rows.into_remainder().iter_mut().zip(rest) {
        *x = x.mul_add(scale, *m);
        top = top.max(*x);
    }
    top.max(isa.reduce_max(largest))
}

/// `x = 2^(factor * (x - top))`; returns their sum. What is below `2^-126` counts as that; a row of nothing but minus infinity
/// becomes NaN.
#[inline(always)]
fn powers<I: Isa>(isa: I, x: &mut [f32], top: f32, factor: f32) -> f32 {
    let (factor, top) = (isa.splat(factor), isa.splat(top));
    let mut sum = isa.zero();
    let mut vectors = x.chunks_exact_mut(I::LANES);
    for x in &mut vectors {
        let y = exp2(isa, isa.mul(isa.sub(isa.load(x), top), factor));
        sum = isa.add(sum, y);
        isa.store(y, x);
    }
    let tail = vectors.into_remainder();
    let y = exp2(isa, isa.mul(isa.sub(isa.load_part(tail), top), factor));
    isa.store_part(y, tail);
    isa.reduce_sum(sum) + tail.iter().sum::<f32>()
}

/// A tile that multiplies rows of `k` values with a panel; the caller says where rows and results lie.
fn product(w: &[f32], k: usize, width: usize, out_pitch: usize) -> Tile {
    assert!(w.len() >= k * width, "a whole panel");
    Tile {
        a: std::ptr::null(),
        pitch: 0,
        taps: [1, 1, 1],
        a_step: [0; 3],
        w: w.as_ptr(),
        w_step: [0; 3],
        ahead: std::ptr::null(),
        lines: 0,
        k,
        k_last: k,
        start: std::ptr::null(),
        out: std::ptr::null_mut(),
        out_pitch,
        out_block: BLOCK,
        valid: width,
        last: true,
        residual: std::ptr::null(),
        act: Act::NONE,
        halves: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;
    use crate::nd::testing::{Case, random};
    use kinglet_simd::Level;

    /// How scores are masked.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Masked {
        No,
        Added,
        Shown,
    }

    /// Operands as `[batch][token][head][dim]`, as projections leave them; the mask is one row for each sequence.
    fn check(heads: Heads, masked: Masked) {
        let Heads { batch, heads: count, queries, keys, dim, value_dim, scale, shared, .. } = heads;
        let owners = count / shared;
        let q = random(1, batch * queries * count * dim);
        let k = random(2, batch * keys * owners * dim);
        let v = random(3, batch * keys * owners * value_dim);
        let added: Vec<f32> =
            random(4, batch * keys).iter().map(|m| if *m > 0.5 { f32::NEG_INFINITY } else { *m }).collect();
        let mask = |at: usize| match masked {
            Masked::No => 0.0,
            Masked::Added => f64::from(added[at]),
            Masked::Shown => {
                if added[at] > 0.0 {
                    0.0
                } else {
                    f64::NEG_INFINITY
                }
            }
        };
        let mut expected = vec![0.0; batch * queries * count * value_dim];
        for (b, h, i) in
            (0..batch).flat_map(|b| (0..count).flat_map(move |h| (0..queries).map(move |i| (b, h, i))))
        {
            let score = |j: usize| {
                let dot = |d: usize| {
                    let q = q[((b * queries + i) * count + h) * dim + d];
                    f64::from(q) * f64::from(k[((b * keys + j) * owners + h / shared) * dim + d])
                };
                (0..dim).map(dot).sum::<f64>() * f64::from(scale) + mask(b * keys + j)
            };
            let scores: Vec<f64> = (0..keys).map(score).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
            let hidden = top == f64::NEG_INFINITY;
            for (j, s) in scores.iter().enumerate() {
                let weight = if hidden && heads.blank != Blank::Never { 0.0 } else { (s - top).exp() / sum };
                for d in 0..value_dim {
                    let v = v[((b * keys + j) * owners + h / shared) * value_dim + d];
                    expected[((b * queries + i) * count + h) * value_dim + d] += weight * f64::from(v);
                }
            }
        }
        let operand = |side: Side, count: usize, tokens: usize, dim: usize| Operand {
            side,
            offset: 0,
            strides: [tokens * count * dim, dim, count * dim],
        };
        for level in Level::available() {
            let mut case = Case::new(level);
            let q = operand(case.matrix(q.len(), &q).into(), count, queries, dim);
            let k = operand(Side::Values(k.clone().into()), owners, keys, dim);
            let v = operand(case.matrix(v.len(), &v).into(), owners, keys, value_dim);
            let row = |side: Side| Operand { side, offset: 0, strides: [keys, 0, 0] };
            let mask = match masked {
                Masked::No => None,
                Masked::Added => Some(Mask::Added(row(case.matrix(keys, &added).into()))),
                Masked::Shown => {
                    let truths: Vec<u8> = added.iter().map(|m| u8::from(*m > 0.0)).collect();
                    Some(Mask::Shown(row(case.bytes(&truths).into())))
                }
            };
            let strides = [queries * count * value_dim, value_dim, count * value_dim];
            let out = Output { span: case.span(1, expected.len()), strides };
            let make = || {
                let operands = [q.clone(), k.clone(), v.clone()];
                short_attention(heads, operands, mask.clone(), out).expect("binds")
            };
            case.check_matrix(make, out.span, &expected, 1e-5);
        }
    }

    #[test]
    fn attention_follows_the_formula() {
        let heads = |batch, heads, queries, keys, dim, value_dim| Heads {
            batch,
            heads,
            queries,
            keys,
            dim,
            value_dim,
            scale: 1.0 / (dim as f32).sqrt(),
            shared: 1,
            blank: Blank::Never,
        };
        for masked in [Masked::No, Masked::Added, Masked::Shown] {
            check(heads(1, 1, 1, 1, 1, 1), masked);
            check(Heads { blank: Blank::Hidden, ..heads(3, 1, 2, 1, 4, 4) }, masked);
            check(heads(2, 3, 20, 20, 32, 32), masked);
            check(heads(1, 2, 150, 45, 20, 37), masked);
            check(heads(2, 1, 7, 100, 64, 64), masked);
            check(Heads { shared: 3, ..heads(2, 6, 9, 33, 8, 16) }, masked);
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let span = |at, cols| Span::f32(at, Rows::Fixed(1), cols);
        let heads = Heads {
            batch: 1,
            heads: 2,
            queries: 4,
            keys: 4,
            dim: 8,
            value_dim: 8,
            scale: 1.0,
            shared: 1,
            blank: Blank::Never,
        };
        let make = |cols, strides, scale| {
            let inputs = [0, 256, 512].map(|at| Operand {
                side: span(at, cols).into(),
                offset: 0,
                strides: [64, 8, 16],
            });
            short_attention(Heads { scale, ..heads }, inputs, None, Output { span: span(768, 64), strides })
        };
        assert!(make(64, [64, 8, 16], 1.0).is_ok());
        assert!(make(63, [64, 8, 16], 1.0).is_err());
        assert!(make(64, [64, 4, 16], 1.0).is_err());
        assert!(make(64, [64, 8, 16], 0.0).is_err());
    }
}
