//! `attention`: causal grouped-query attention over the paged state, flash style (Dao et al. 2022,
//! <https://arxiv.org/abs/2205.14135>): no row of scores longer than a chunk ever exists.
//!
//! Keys and values in Q16 are multiplied as they are, with queries and weights in 16-bit codes too; sums are then of
//! integers, and exact. All others are made floats first.
//!
//! The positions of a sequence are cut into chunks, at places that depend on nothing else. Each chunk gives a row its own
//! maximum, sum of weights and weighted values; a state takes them in, chunk after chunk. Since the arithmetic of a row
//! knows only its own chunks, its result is the same in any batch, on any number of workers, and whether chunks are
//! merged as they come or later:
//!
//! ```text
//! block = tokens of a sequence x query heads of one key/value head      units that workers take one by one:
//!                                                                       many blocks:  [block]
//! for each chunk:  S = q k^T -> softmax -> P v -> merge into the state   few blocks:   [block, chunk], merged at the end
//! ```

mod block;
mod state;
mod tile;
mod words;

use std::marker::PhantomData;
use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};
use kinglet_tensor::{KvLayer, KvType, SeqRows};

use self::block::{Block, BlockRun, Buffers, CHUNK};
use self::state::State;
use self::words::{Codes, Float, Words};
use crate::arena::Span;
use crate::kv::{GROUP, KvView};
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Rows that a block has, about.
const BLOCK_ROWS: usize = 48;
/// Rows times chunks for which states can be kept until they are merged.
const SLOT_ROWS: usize = 4096;

/// What kind of attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Layer of the state that it reads.
    pub layer: usize,
    /// The layer's shape.
    pub kv: KvLayer,
    /// Query heads, a multiple of the key/value heads; head `h` reads key/value head `h * kv.heads / heads`.
    pub heads: usize,
    /// Factor on `q . k`.
    pub scale: f32,
    /// A row at position `p` sees positions `> p - window` only.
    pub window: Option<usize>,
    /// `s = cap * tanh(s / cap)` before the softmax.
    pub softcap: Option<f32>,
}

/// `out[t, h] = sum_p softmax_p(scale * q[t, h] . k[p]) * v[p]` over the positions `p` of the row's sequence up to the
/// row's own. `q` is `[rows, heads * key_dim]`, `out` `[rows, heads * value_dim]`.
pub fn attention(shape: AttentionShape, q: Span, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("attention");
    let (heads, kv) = (shape.heads, shape.kv);
    let whole =
        kv.heads > 0 && kv.key_dim > 0 && kv.value_dim > 0 && heads > 0 && heads.is_multiple_of(kv.heads);
    check.that(whole, || format!("{heads} heads over {kv:?}"))?;
    check.that(shape.window != Some(0), || "a window of 0 sees nothing".into())?;
    check.span::<f32>("q", &q, heads * kv.key_dim)?;
    check.span::<f32>("out", &out, heads * kv.value_dim)?;
    check.same_rows("q and out", &q, &out)?;
    Ok(Box::new(Attention { shape, q, out }))
}

struct Attention {
    shape: AttentionShape,
    q: Span,
    out: Span,
}

// SAFETY: touches its spans, its scratch and its layer; units are taken by one worker each and write to their own heads
// and slots, and merging begins after a barrier.
unsafe impl Step for Attention {
    fn label(&self) -> String {
        let AttentionShape { heads, kv, window, softcap, .. } = self.shape;
        let window = window.map_or_else(String::new, |window| format!(" window {window}"));
        let softcap = softcap.map_or_else(String::new, |cap| format!(" softcap {cap}"));
        format!("attention {heads}/{} heads{window}{softcap}", kv.heads)
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.q), Access::Write(self.out)]
    }

    fn needs(&self) -> Needs {
        let floats = Buffers::len(self.most_rows(), self.shape.kv.key_dim, self.width());
        Needs {
            scratch: SLOT_ROWS * (self.width() + 2) * size_of::<f32>(),
            worker_scratch: floats * size_of::<f32>(),
            ragged: Some(self.q.rows),
            layer: Some((self.shape.layer, self.shape.kv)),
            ..Needs::default()
        }
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let Some(kv) = ctx.kv() else { return };
        let (q, out) = (ctx.view(&self.q), ctx.view(&self.out));
        let kernel = AttentionKernel { step: self, ctx: *ctx, worker, kv, q, out };
        dispatch(ctx.level(), kernel);
    }
}

impl Attention {
    /// Query heads that share a key/value head.
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv.heads
    }

    /// Tokens of a whole block.
    fn block_tokens(&self) -> usize {
        (BLOCK_ROWS / self.group()).max(1)
    }

    /// Rows of a whole block, padded to whole vectors.
    fn most_rows(&self) -> usize {
        (self.block_tokens() * self.group()).next_multiple_of(GROUP)
    }

    /// Floats of a row of values, padded to whole vectors.
    fn width(&self) -> usize {
        self.shape.kv.value_dim.next_multiple_of(GROUP)
    }

    /// First position that a row at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.shape.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Chunks that some row of the block sees.
    fn chunks(&self, block: &Block<'_>) -> Range<usize> {
        self.first_seen(block.position(0)) / CHUNK..block.position(block.tokens - 1) / CHUNK + 1
    }

    /// All blocks of a batch, sequence after sequence, in the order of their tokens.
    fn blocks<'a>(&self, seqs: &'a [SeqRows<'a>]) -> impl Iterator<Item = Block<'a>> {
        (0..).map_while(|index| self.block(seqs, index))
    }

    /// The block of a number among those of all sequences.
    fn block<'a>(&self, seqs: &[SeqRows<'a>], mut index: usize) -> Option<Block<'a>> {
        let (tokens, heads) = (self.block_tokens(), self.shape.kv.heads);
        for seq in seqs {
            let count = seq.len.div_ceil(tokens) * heads;
            if index < count {
                let first = index / heads * tokens;
                let tokens = tokens.min(seq.len - first);
                return Some(Block { seq: *seq, kv_head: index % heads, first, tokens });
            }
            index -= count;
        }
        None
    }

    /// The chunk of a number among those of all blocks, and where its state's slot begins.
    fn unit<'a>(&self, seqs: &'a [SeqRows<'a>], mut index: usize) -> Option<(Block<'a>, usize, usize)> {
        let mut at = 0;
        for block in self.blocks(seqs) {
            let chunks = self.chunks(&block);
            if index < chunks.len() {
                let len = self.slots_len(&block) / chunks.len();
                return Some((block, chunks.start + index, at + index * len));
            }
            index -= chunks.len();
            at += self.slots_len(&block);
        }
        None
    }

    /// Floats of all states of a block's chunks.
    fn slots_len(&self, block: &Block<'_>) -> usize {
        self.chunks(block).len() * State::len(block.tokens * self.group(), self.width())
    }

    /// Whether to share out chunks rather than blocks: when blocks alone would leave workers idle.
    fn splits(&self, seqs: &[SeqRows<'_>], workers: usize, room: usize) -> bool {
        let enough = 4 * workers;
        let blocks = self.blocks(seqs).take(enough);
        workers > 1
            && blocks.count() < enough
            && self.blocks(seqs).any(|block| self.chunks(&block).len() > 1)
            && self.blocks(seqs).map(|block| self.slots_len(&block)).sum::<usize>() <= room
    }
}

struct AttentionKernel<'a> {
    step: &'a Attention,
    ctx: StepCtx<'a>,
    worker: Worker<'a>,
    kv: KvView<'a>,
    q: SharedMut<'a, f32>,
    out: SharedMut<'a, f32>,
}

impl Kernel for AttentionKernel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let scratch = self.ctx.worker_scratch::<f32>(self.worker);
        // SAFETY: the worker's own scratch.
        let memory = unsafe { scratch.part_mut(0..scratch.len()) };
        let step = self.step;
        let mut buffers = Buffers::new(memory, step.most_rows(), step.shape.kv.key_dim, step.width());
        if self.kv.spec().kind == KvType::Q16 {
            self.all::<I, Codes>(isa, &mut buffers);
        } else {
            self.all::<I, Float>(isa, &mut buffers);
        }
    }
}

impl<'a> AttentionKernel<'a> {
    #[inline(always)]
    fn all<I: Isa, W: Words>(&self, isa: I, buffers: &mut Buffers<'_>) {
        let step = self.step;
        if step.splits(self.ctx.seqs(), self.worker.count(), self.ctx.scratch::<f32>().len()) {
            self.chunks::<I, W>(isa, buffers);
            self.worker.barrier();
            self.merge::<I, W>(isa, buffers);
        } else {
            self.blocks::<I, W>(isa, buffers);
        }
    }

    fn block_run<I: Isa, W: Words>(&self, isa: I, block: Block<'a>) -> BlockRun<'a, I, W> {
        BlockRun { isa, step: self.step, kv: self.kv, block, words: PhantomData }
    }

    /// Takes blocks until there are none left: near those whose rows the worker had in the steps before.
    #[inline(always)]
    fn blocks<I: Isa, W: Words>(&self, isa: I, buffers: &mut Buffers<'_>) {
        let (step, seqs) = (self.step, self.ctx.seqs());
        let count = step.blocks(seqs).count();
        let take = || step.block(seqs, self.ctx.take_near(self.worker, count)?);
        while let Some(block) = take() {
            let run = self.block_run::<I, W>(isa, block);
            run.load_queries(self.q, buffers);
            run.whole(buffers, self.out);
        }
    }

    /// Takes chunks of blocks until there are none left, leaving their states in the shared scratch. A worker's chunks follow
    /// each other, so that it may ask for the next one's keys.
    #[inline(always)]
    fn chunks<I: Isa, W: Words>(&self, isa: I, buffers: &mut Buffers<'_>) {
        let (step, seqs, slots) = (self.step, self.ctx.seqs(), self.ctx.scratch::<f32>());
        let count = step.blocks(seqs).map(|block| step.chunks(&block).len()).sum();
        let take = || step.unit(seqs, self.ctx.take_near(self.worker, count)?);
        while let Some((block, chunk, at)) = take() {
            let next = if self.worker.is_front() { Some(chunk + 1) } else { chunk.checked_sub(1) };
            let run = self.block_run::<I, W>(isa, block);
            run.load_queries(self.q, buffers);
            let len = State::len(block.tokens * step.group(), step.width());
            // SAFETY: the slot of this unit, which only this worker took.
            run.only(chunk, next, buffers, unsafe { slots.part_mut(at..at + len) });
        }
    }

    /// Merges the states of this worker's share of the blocks.
    #[inline(always)]
    fn merge<I: Isa, W: Words>(&self, isa: I, buffers: &mut Buffers<'_>) {
        let slots = self.ctx.scratch::<f32>();
        let share = self.worker.share(self.step.blocks(self.ctx.seqs()).count(), 1);
        let mut at = 0;
        for (index, block) in self.step.blocks(self.ctx.seqs()).enumerate() {
            let len = self.step.slots_len(&block);
            if share.contains(&index) {
                // SAFETY: the slots of this block, which is in this worker's share only.
                let slots = unsafe { slots.part_mut(at..at + len) };
                self.block_run::<I, W>(isa, block).merge(slots, buffers, self.out);
            }
            at += len;
        }
    }
}

#[cfg(test)]
mod tests;
