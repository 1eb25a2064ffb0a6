//! Attention of short sequences: every query sees every key, with an additive mask or without.
//!
//! For each head, keys are packed transposed and values as panels, in the worker's scratch; then a few queries at a time
//! are multiplied with all keys, their scores become weights, and the weights are multiplied with the values. Scores
//! are never stored beyond the cache. Error: that of products of `dim` and of `keys` terms in f32 and of the
//! exponentials, `(dim + keys + 32) * 2^-23 * max(|v|)` for scores below 16 in absolute value.

use kinglet_simd::{Isa, Kernel, dispatch};

use super::act::Act;
use super::layout::BLOCK;
use super::shape::cuts;
use super::softmax::exponentials;
use super::tile::{Dynamic, Tile, panel_blocks, tallest, tiles};
use crate::arena::Span;
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
}

/// Where the element `[batch][head][token][i]` of an operand lies: `offset + batch * strides[0] + head * strides[1] +
/// token * strides[2] + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// The span.
    pub span: Span,
    /// Elements before the first.
    pub offset: usize,
    /// Of the batch, the head and the token.
    pub strides: [usize; 3],
}

impl Operand {
    fn check(&self, check: Check, what: &str, counts: [usize; 3], inner: usize) -> Result<(), StepError> {
        check.span::<f32>(what, &self.span, self.span.cols)?;
        let last = counts.iter().zip(self.strides).try_fold(self.offset, |sum, (count, stride)| {
            sum.checked_add(count.checked_sub(1)?.checked_mul(stride)?)
        });
        let len = if let crate::Rows::Fixed(_) = self.span.rows { self.span.len(&[]) } else { None };
        let fits =
            last.and_then(|last| last.checked_add(inner)).zip(len).is_some_and(|(end, len)| end <= len);
        check.that(fits, || format!("{what} is {self:?} for {counts:?} of {inner}"))
    }

    fn at(&self, batch: usize, head: usize, token: usize) -> usize {
        self.offset + batch * self.strides[0] + head * self.strides[1] + token * self.strides[2]
    }
}

/// `out = softmax(scale * q k^T + mask) v` for every head. `mask` is f32, its element for a query and a key lies at
/// `offset + batch * strides[0] + head * strides[1] + query * strides[2] + key` (strides of 0 repeat it). Heads of `out`
/// must not overlap.
pub fn short_attention(
    heads: Heads,
    [q, k, v]: [Operand; 3],
    mask: Option<Operand>,
    out: Operand,
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("attention");
    let Heads { batch, heads: count, queries, keys, dim, value_dim, scale } = heads;
    let sizes = [batch, count, queries, keys, dim, value_dim];
    check.that(sizes.iter().all(|&n| n > 0 && n < 1 << 24) && scale > 0.0, || format!("{heads:?}"))?;
    q.check(check, "q", [batch, count, queries], dim)?;
    k.check(check, "k", [batch, count, keys], dim)?;
    v.check(check, "v", [batch, count, keys], value_dim)?;
    if let Some(mask) = mask {
        mask.check(check, "mask", [batch, count, queries], keys)?;
    }
    out.check(check, "out", [batch, count, queries], value_dim)?;
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
    mask: Option<Operand>,
    out: Operand,
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
        let mut reads = vec![self.q.span, self.k.span, self.v.span];
        reads.extend(self.mask.map(|mask| mask.span));
        reads.into_iter().map(Access::Read).chain([Access::Write(self.out.span)]).collect()
    }

    fn needs(&self) -> Needs {
        let floats = self.parts().iter().fold(0usize, |sum, &n| sum.saturating_add(n));
        Needs { worker_scratch: floats.saturating_mul(size_of::<f32>()), ..Needs::default() }
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let Heads { batch, heads, queries, .. } = self.heads;
        // Long sequences of few heads are cut, each part packing its head again.
        let cut = (2 * worker.count()).div_ceil(batch * heads).min(queries.div_ceil(4 * QUERIES)).max(1);
        let [q, k, v, out] = [&self.q, &self.k, &self.v, &self.out].map(|o| ctx.view::<f32>(&o.span));
        let mask = self.mask.map(|mask| ctx.view::<f32>(&mask.span));
        let scratch = ctx.worker_scratch(worker);
        loop {
            let unit = ctx.take();
            if unit >= batch * heads * cut {
                return;
            }
            let (pair, part) = (unit / cut, unit % cut);
            let queries = queries * part / cut..queries * (part + 1) / cut;
            let place = [pair / heads, pair % heads];
            dispatch(ctx.level(), Head { step: self, place, queries, q, k, v, mask, out, scratch });
        }
    }
}

/// Some queries of a head of a sequence.
struct Head<'a> {
    step: &'a Attention,
    place: [usize; 2],
    queries: std::ops::Range<usize>,
    q: SharedMut<'a, f32>,
    k: SharedMut<'a, f32>,
    v: SharedMut<'a, f32>,
    mask: Option<SharedMut<'a, f32>>,
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
        let [batch, head] = self.place;
        for key in 0..count {
            let (panel, lane) = (key / width, key % width);
            let at = self.step.k.at(batch, head, key);
            // SAFETY: the operands were checked against their spans, which are only read.
            let k = unsafe { self.k.part(at..at + dim) };
            let to = keys[panel * dim * width..].iter_mut().skip(lane).step_by(width);
            to.zip(k).for_each(|(to, from)| *to = *from);
            let at = self.step.v.at(batch, head, key);
            // SAFETY: as above.
            let v = unsafe { self.v.part(at..at + value_dim) };
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
        let kernel = tiles::<I, Dynamic>(width / BLOCK).get(count);
        let pitch = total.next_multiple_of(width);
        let at = self.step.q.at(self.place[0], self.place[1], first);
        let zeros = [0.0; WIDEST];
        for panel in 0..pitch / width {
            let tile = Tile {
                a: self.q.as_ptr().wrapping_add(at),
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
        let Heads { keys, scale, .. } = self.step.heads;
        let pitch = keys.next_multiple_of(width);
        let mut factors = [1.0; QUERIES];
        for (i, factor) in factors.iter_mut().enumerate().take(count) {
            let row = &mut scores[i * pitch..][..keys];
            let mut by = scale;
            if let (Some(mask), Some(operand)) = (self.mask, &self.step.mask) {
                let at = operand.at(self.place[0], self.place[1], first + i);
                // SAFETY: the mask was checked against its span, which is only read.
                let mask = unsafe { mask.part(at..at + keys) };
                row.iter_mut().zip(mask).for_each(|(x, m)| *x = *x * scale + m);
                by = 1.0;
            }
            *factor = 1.0 / exponentials(isa, row, by);
        }
        factors
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
        scores: &mut [f32],
        factors: &[f32; QUERIES],
    ) {
        let Heads { keys, value_dim, .. } = self.step.heads;
        let pitch = keys.next_multiple_of(width);
        for (row, &factor) in scores.chunks_exact_mut(pitch).zip(factors).take(count) {
            super::softmax::scale(isa, &mut row[..keys], factor);
        }
        let kernel = tiles::<I, Dynamic>(width / BLOCK).get(count);
        let at = self.step.out.at(self.place[0], self.place[1], first);
        let zeros = [0.0; WIDEST];
        for panel in 0..value_dim.div_ceil(width) {
            let tile = Tile {
                a: scores.as_ptr(),
                pitch,
                start: zeros.as_ptr(),
                out: self.out.as_mut_ptr().wrapping_add(at + panel * width),
                out_pitch: self.step.out.strides[2],
                valid: width.min(value_dim - panel * width),
                ..product(&values[panel * keys * width..], keys, width, 0)
            };
            // SAFETY: scores and values lie in the scratch, and this head's queries of `out` are this worker's.
            unsafe { kernel(isa, &tile) };
        }
    }
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;
    use crate::nd::testing::{Case, random};
    use kinglet_simd::Level;

    /// Operands as `[batch][token][head][dim]`, as projections leave them; the mask is one row for each sequence.
    fn check(heads: Heads, masked: bool) {
        let Heads { batch, heads: count, queries, keys, dim, value_dim, scale } = heads;
        let q = random(1, batch * queries * count * dim);
        let k = random(2, batch * keys * count * dim);
        let v = random(3, batch * keys * count * value_dim);
        let mask: Vec<f32> =
            random(4, batch * keys).iter().map(|m| if *m > 0.5 { -1e9 } else { *m }).collect();
        let mut expected = vec![0.0; batch * queries * count * value_dim];
        for (b, h, i) in
            (0..batch).flat_map(|b| (0..count).flat_map(move |h| (0..queries).map(move |i| (b, h, i))))
        {
            let score = |j: usize| {
                let at = |x: &[f32], tokens: usize, t: usize, d: usize| {
                    f64::from(x[((b * tokens + t) * count + h) * dim + d])
                };
                let dot: f64 = (0..dim).map(|d| at(&q, queries, i, d) * at(&k, keys, j, d)).sum();
                dot * f64::from(scale) + if masked { f64::from(mask[b * keys + j]) } else { 0.0 }
            };
            let scores: Vec<f64> = (0..keys).map(score).collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
            for (j, s) in scores.iter().enumerate() {
                for d in 0..value_dim {
                    expected[((b * queries + i) * count + h) * value_dim + d] +=
                        (s - top).exp() / sum * f64::from(v[((b * keys + j) * count + h) * value_dim + d]);
                }
            }
        }
        let operand = |span, tokens: usize, dim: usize| Operand {
            span,
            offset: 0,
            strides: [tokens * count * dim, dim, count * dim],
        };
        for level in Level::available() {
            let mut case = Case::new(level);
            let q = operand(case.matrix(q.len(), &q), queries, dim);
            let k = operand(case.matrix(k.len(), &k), keys, dim);
            let v = operand(case.matrix(v.len(), &v), keys, value_dim);
            let mask =
                masked.then(|| Operand { span: case.matrix(keys, &mask), offset: 0, strides: [keys, 0, 0] });
            let out = operand(case.span(1, expected.len()), queries, value_dim);
            let make = || short_attention(heads, [q, k, v], mask, out).expect("binds");
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
        };
        for masked in [false, true] {
            check(heads(1, 1, 1, 1, 1, 1), masked);
            check(heads(2, 3, 20, 20, 32, 32), masked);
            check(heads(1, 2, 150, 45, 20, 37), masked);
            check(heads(2, 1, 7, 100, 64, 64), masked);
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let span = |at, cols| Span::f32(at, Rows::Fixed(1), cols);
        let heads = Heads { batch: 1, heads: 2, queries: 4, keys: 4, dim: 8, value_dim: 8, scale: 1.0 };
        let operand = |at, cols, strides| Operand { span: span(at, cols), offset: 0, strides };
        let make = |cols, out_strides, scale| {
            let inputs = [0, 256, 512].map(|at| operand(at, cols, [64, 8, 16]));
            short_attention(Heads { scale, ..heads }, inputs, None, operand(768, 64, out_strides))
        };
        assert!(make(64, [64, 8, 16], 1.0).is_ok());
        assert!(make(63, [64, 8, 16], 1.0).is_err());
        assert!(make(64, [64, 4, 16], 1.0).is_err());
        assert!(make(64, [64, 8, 16], 0.0).is_err());
    }
}
