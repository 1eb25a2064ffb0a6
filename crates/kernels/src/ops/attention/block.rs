//! One block of rows against one chunk of positions: scores, softmax, weighted sum.

use std::f32::consts::LOG2_E;
use std::marker::PhantomData;
use std::ops::Range;

use kinglet_simd::{Isa, tanh};
use kinglet_tensor::{KvLayer, SeqRows};

use super::Attention;
use super::state::{NONE, State};
use super::tile::{BATCH, BATCHES, GROUPS, Scores, Sums};
use super::words::{Weighing, Words};
use crate::SharedMut;
use crate::kv::{GROUP, KvView};
use crate::kv_codec::Rows;

/// Positions whose softmax is taken together.
pub(super) const CHUNK: usize = BATCH * BATCHES;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Rows of a block up to which memory is waited for rather than arithmetic.
const FEW_ROWS: usize = 16;

/// What is read of a position.
#[derive(Clone, Copy)]
enum Cached {
    Keys,
    Values,
}

/// Positions of a chunk that a block sees.
struct Chunk {
    seen: Range<usize>,
    /// Those of the chunk that this worker will come to next, perhaps.
    next: Range<usize>,
}

impl Chunk {
    /// What is read a batch later than `part` of the position: behind the keys of a chunk come its values, behind its values
    /// the next chunk's keys.
    fn ahead(&self, part: Cached, position: usize) -> Option<(Cached, usize)> {
        let later = position + BATCH;
        let within = |positions: &Range<usize>| positions.start + (later - self.seen.start) % BATCH;
        match part {
            _ if later < self.seen.end => Some((part, later)),
            Cached::Keys => Some((Cached::Values, within(&self.seen))).filter(|(_, at)| *at < self.seen.end),
            Cached::Values => Some((Cached::Keys, within(&self.next))).filter(|(_, at)| *at < self.next.end),
        }
    }
}

/// Tokens of one sequence, with all their query heads that read one key/value head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    pub(super) seq: SeqRows<'a>,
    pub(super) kv_head: usize,
    /// First token, counted from the sequence's first row.
    pub(super) first: usize,
    pub(super) tokens: usize,
}

impl Block<'_> {
    /// Position of a token of the block.
    pub(super) fn position(&self, token: usize) -> usize {
        self.seq.past + self.first + token
    }
}

/// A worker's working memory, for blocks of at most `rows` rows (whole vectors).
pub(super) struct Buffers<'a> {
    /// Words of scaled queries, `[rows][key_dim]`.
    pub(super) q: &'a mut [f32],
    /// Their scales, one a row.
    q_scales: &'a mut [f32],
    /// Scores, then words of weights, `[rows][CHUNK]`.
    scores: &'a mut [f32],
    /// Scales of weights, `[rows][BATCHES]`.
    weight_scales: &'a mut [f32],
    /// Scales of a chunk's values.
    value_scales: &'a mut [f32],
    /// Decoded keys or values of a batch.
    batch: &'a mut [f32],
    /// A number a row.
    keep: &'a mut [f32],
    /// What the chunk gives.
    part: &'a mut [f32],
    /// What the block has seen.
    state: &'a mut [f32],
}

impl<'a> Buffers<'a> {
    /// Floats that it takes.
    pub(super) fn len(rows: usize, key_dim: usize, width: usize) -> usize {
        rows * (key_dim + CHUNK + BATCHES + 2)
            + CHUNK
            + BATCH * key_dim.max(width)
            + 2 * State::len(rows, width)
    }

    /// Divides `memory`, of `len` floats.
    pub(super) fn new(memory: &'a mut [f32], rows: usize, key_dim: usize, width: usize) -> Self {
        let (q, rest) = memory.split_at_mut(rows * key_dim);
        let (q_scales, rest) = rest.split_at_mut(rows);
        let (scores, rest) = rest.split_at_mut(rows * CHUNK);
        let (weight_scales, rest) = rest.split_at_mut(rows * BATCHES);
        let (value_scales, rest) = rest.split_at_mut(CHUNK);
        let (batch, rest) = rest.split_at_mut(BATCH * key_dim.max(width));
        let (keep, rest) = rest.split_at_mut(rows);
        let (part, state) = rest.split_at_mut(State::len(rows, width));
        Self { q, q_scales, scores, weight_scales, value_scales, batch, keep, part, state }
    }
}

/// A block at work.
#[derive(Clone, Copy)]
pub(super) struct BlockRun<'a, I, W> {
    pub(super) isa: I,
    pub(super) step: &'a Attention,
    pub(super) kv: KvView<'a>,
    pub(super) block: Block<'a>,
    pub(super) words: PhantomData<W>,
}

impl<'a, I: Isa, W: Words> BlockRun<'a, I, W> {
    fn rows(&self) -> usize {
        self.block.tokens * self.step.group()
    }

    /// Attends to all that the block sees and writes its result.
    #[inline(always)]
    pub(super) fn whole(&self, buffers: &mut Buffers<'_>, out: SharedMut<'a, f32>) {
        let mut state = std::mem::take(&mut buffers.state);
        self.state(state).clear();
        for chunk in self.step.chunks(&self.block) {
            self.chunk(chunk, Some(chunk + 1), buffers, state);
        }
        self.finish(&self.state(state), out);
        buffers.state = std::mem::take(&mut state);
    }

    /// Merges the states of the block's chunks, one after the other in `slots`, and writes the result.
    #[inline(always)]
    pub(super) fn merge(&self, slots: &mut [f32], buffers: &mut Buffers<'_>, out: SharedMut<'a, f32>) {
        self.state(buffers.state).clear();
        for slot in slots.chunks_exact_mut(State::len(self.rows(), self.step.width())) {
            let part = self.state(slot);
            self.state(buffers.state).merge(self.isa, part, buffers.keep);
        }
        self.finish(&self.state(buffers.state), out);
    }

    /// Attends to one chunk only, leaving the state in `slot`; `next` comes next, perhaps.
    #[inline(always)]
    pub(super) fn only(
        &self,
        chunk: usize,
        next: Option<usize>,
        buffers: &mut Buffers<'_>,
        slot: &mut [f32],
    ) {
        self.state(slot).clear();
        self.chunk(chunk, next, buffers, slot);
    }

    fn state<'m>(&self, memory: &'m mut [f32]) -> State<'m> {
        State::new(memory, self.rows(), self.step.width())
    }

    #[inline(always)]
    fn finish(&self, state: &State<'_>, out: SharedMut<'a, f32>) {
        let (group, dim) = (self.step.group(), self.step.shape.kv.value_dim);
        for r in 0..self.rows() {
            let row = self.block.seq.start + self.block.first + r / group;
            let head = self.block.kv_head * group + r % group;
            let at = (row * self.step.shape.heads + head) * dim;
            // SAFETY: the heads of these rows are this worker's.
            state.finish(self.isa, r, unsafe { out.part_mut(at..at + dim) });
        }
    }

    /// Copies words of the block's queries, times the scale, into the buffers. Without a cap, scores are in units of ln 2 at once.
    #[inline(always)]
    pub(super) fn load_queries(&self, q: SharedMut<'a, f32>, buffers: &mut Buffers<'_>) {
        let (group, dim) = (self.step.group(), self.step.shape.kv.key_dim);
        let unit = if self.step.shape.softcap.is_some() { 1.0 } else { LOG2_E };
        let scale = self.step.shape.scale * unit;
        for t in 0..self.block.tokens {
            let row = self.block.seq.start + self.block.first + t;
            let at = (row * self.step.shape.heads + self.block.kv_head * group) * dim;
            // SAFETY: queries are only read.
            let q = unsafe { q.part(at..at + group * dim) };
            let scaled = &mut buffers.q[t * group * dim..(t + 1) * group * dim];
            scaled.iter_mut().zip(q).for_each(|(scaled, q)| *scaled = q * scale);
            let scales = &mut buffers.q_scales[t * group..(t + 1) * group];
            for (q, scale) in scaled.chunks_exact_mut(dim).zip(scales) {
                *scale = W::query(self.isa, q);
            }
        }
    }

    /// Attends to the positions of `chunk` that the block sees and merges the outcome into the state in `memory`.
    #[inline(always)]
    fn chunk(&self, chunk: usize, next: Option<usize>, buffers: &mut Buffers<'_>, memory: &mut [f32]) {
        let next = next.map_or(0..0, |next| self.seen(next));
        let chunk = Chunk { seen: self.seen(chunk), next };
        self.scores(&chunk, buffers);
        self.softmax(chunk.seen.clone(), buffers);
        self.weigh(&chunk, buffers);
        self.state(memory).merge(self.isa, self.state(buffers.part), buffers.keep);
    }

    /// Positions of a chunk that some row sees, from the first of its batch on; none of a chunk that is not there.
    fn seen(&self, chunk: usize) -> Range<usize> {
        let start = (chunk * CHUNK).max(self.step.first_seen(self.block.position(0)));
        let end = ((chunk + 1) * CHUNK).min(self.block.position(self.block.tokens - 1) + 1);
        (start / BATCH * BATCH).min(end)..end
    }

    #[inline(always)]
    fn scores(&self, chunk: &Chunk, buffers: &mut Buffers<'_>) {
        let stored = self.stored(self.step.shape.kv.key_dim);
        let mut scores = Scores {
            q: buffers.q.as_ptr(),
            q_scales: buffers.q_scales.as_ptr(),
            rows: self.rows(),
            stored,
            keys: [std::ptr::null(); GROUPS],
            tokens: 0,
            scores: buffers.scores.as_mut_ptr(),
            stride: CHUNK,
        };
        for first in chunk.seen.clone().step_by(BATCH) {
            scores.tokens = BATCH.min(chunk.seen.end - first);
            for group in 0..GROUPS {
                let position = first + group * GROUP;
                if position >= chunk.seen.end {
                    // The tile multiplies some group again; nobody reads that.
                    scores.keys[group] = scores.keys[0];
                    continue;
                }
                self.prefetch(chunk.ahead(Cached::Keys, position));
                let (page, at) = self.page(position);
                let room = buffers.batch[group * GROUP * stored.dim..].as_mut_ptr();
                // SAFETY: the run checked that every position up to the row's own is in a page.
                scores.keys[group] = unsafe { W::keys(self.isa, stored, page, at / GROUP, room) };
            }
            // SAFETY: the buffers have the stated shapes; the rows of scores have room for whole batches.
            unsafe { scores.run::<I, W>(self.isa) };
            scores.scores = scores.scores.wrapping_add(BATCH);
        }
    }

    /// Turns scores into weights, and notes each row's largest score and sum of weights.
    #[inline(always)]
    fn softmax(&self, seen: Range<usize>, buffers: &mut Buffers<'_>) {
        self.value_scales(seen.clone(), buffers.value_scales);
        let mut part = State::new(buffers.part, self.rows(), self.step.width());
        let (_, max, total) = part.parts();
        let len = seen.len().next_multiple_of(BATCH);
        for first in (0..self.rows()).step_by(Weighing::rows::<I>()) {
            let rows = first..self.rows().min(first + Weighing::rows::<I>());
            let scores = &mut buffers.scores[rows.start * CHUNK..rows.end * CHUNK];
            for (r, scores) in rows.clone().zip(scores.chunks_exact_mut(CHUNK)) {
                max[r] = self.largest(r, seen.clone(), &mut scores[..len]);
            }
            let rows = Weighing {
                scores,
                len,
                values: buffers.value_scales,
                max: &max[rows.clone()],
                total: &mut total[rows.clone()],
                scales: &mut buffers.weight_scales[rows.start * BATCHES..rows.end * BATCHES],
            };
            W::weights(self.isa, rows);
        }
    }

    /// The scales of the values of the positions seen.
    #[inline(always)]
    fn value_scales(&self, seen: Range<usize>, scales: &mut [f32]) {
        let stored = self.stored(self.step.shape.kv.value_dim);
        for (position, scales) in seen.step_by(GROUP).zip(scales.chunks_exact_mut(GROUP)) {
            let (page, at) = self.page(position);
            // SAFETY: as for the keys.
            unsafe { W::value_scales(stored, page, at, scales) };
        }
    }

    /// The largest score of row `r`; caps its scores, and makes those that it does not see [`NONE`].
    #[inline(always)]
    fn largest(&self, r: usize, seen: Range<usize>, scores: &mut [f32]) -> f32 {
        if let Some(cap) = self.step.shape.softcap {
            capped(self.isa, scores, cap);
        }
        let position = self.block.position(r / self.step.group());
        let to = (position + 1).min(seen.end).saturating_sub(seen.start);
        let from = (self.step.first_seen(position).max(seen.start) - seen.start).min(to);
        scores[..from].fill(NONE);
        scores[to..].fill(NONE);
        let mut max = self.isa.splat(NONE);
        for scores in scores.chunks_exact(I::LANES) {
            max = self.isa.max(max, self.isa.load(scores));
        }
        self.isa.reduce_max(max)
    }

    /// Sums of values, each times its weight.
    #[inline(always)]
    fn weigh(&self, chunk: &Chunk, buffers: &mut Buffers<'_>) {
        let stored = self.stored(self.step.shape.kv.value_dim);
        let mut part = State::new(buffers.part, self.rows(), self.step.width());
        let (values, _, _) = part.parts();
        values.fill(0.0);
        let mut sums = Sums {
            weights: buffers.scores.as_ptr(),
            scales: buffers.weight_scales.as_ptr(),
            stride: CHUNK,
            rows: self.rows(),
            values: [std::ptr::null(); GROUPS],
            tokens: 0,
            dim: stored.padded(),
            sums: values.as_mut_ptr(),
        };
        for first in chunk.seen.clone().step_by(BATCH) {
            sums.tokens = BATCH.min(chunk.seen.end - first);
            for group in 0..sums.tokens.div_ceil(GROUP) {
                let position = first + group * GROUP;
                self.prefetch(chunk.ahead(Cached::Values, position));
                let (page, at) = self.page(position);
                let count = GROUP.min(sums.tokens - group * GROUP);
                let room = buffers.batch[group * GROUP * stored.padded()..].as_mut_ptr();
                // SAFETY: as for the keys.
                sums.values[group] = unsafe { W::values(self.isa, stored, page, at, count, room) };
            }
            // SAFETY: the buffers have the stated shapes.
            unsafe { sums.run::<I, W>(self.isa) };
            sums.weights = sums.weights.wrapping_add(BATCH);
            sums.scales = sums.scales.wrapping_add(1);
        }
    }

    /// Asks for the memory of a group, all at once: asking line by line as the batch before is multiplied gained a tenth on one
    /// thread, nothing on two, and slowed the tiles. Many rows compute long enough without.
    #[inline(always)]
    fn prefetch(&self, ahead: Option<(Cached, usize)>) {
        if self.rows() > FEW_ROWS {
            return;
        }
        if let Some((part, position)) = ahead {
            let (page, at) = self.page(position);
            let KvLayer { key_dim, value_dim, .. } = self.step.shape.kv;
            let (memory, bytes) = match part {
                Cached::Keys => self.stored(key_dim).stored_keys(page, at / GROUP),
                Cached::Values => self.stored(value_dim).stored_values(page, at),
            };
            (0..bytes).step_by(LINE).for_each(|at| self.isa.prefetch(memory.wrapping_add(at)));
        }
    }

    fn stored(&self, dim: usize) -> Rows {
        let spec = self.kv.spec();
        Rows { kind: spec.kind, page_tokens: spec.page_tokens, dim }
    }

    /// The page of a position, and where in it.
    #[inline(always)]
    fn page(&self, position: usize) -> (crate::kv::HeadPage, usize) {
        let tokens = self.kv.spec().page_tokens;
        let page = self.block.seq.pages[position / tokens];
        (self.kv.head(page, self.step.shape.layer, self.block.kv_head), position % tokens)
    }
}

/// Caps scores in place, and makes ln 2 their unit.
#[inline(always)]
fn capped<I: Isa>(isa: I, row: &mut [f32], cap: f32) {
    let (inverse, cap) = (isa.splat(1.0 / cap), isa.splat(cap * LOG2_E));
    for scores in row.chunks_exact_mut(I::LANES) {
        isa.store(isa.mul(cap, tanh(isa, isa.mul(isa.load(scores), inverse))), scores);
    }
}
