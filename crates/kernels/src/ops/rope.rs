//! `rope_table` and `rope_store`: rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>) of
//! queries and keys, and storing keys and values in the state.
//!
//! Angles are computed once a run, in f64, and shared by all layers that rotate alike.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};
use kinglet_tensor::{KvLayer, SeqRows};

use crate::arena::{Rows, Span};
use crate::kv::KvView;
use crate::kv_codec;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Which elements of a head form a rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `(i, i + pairs)`: GPT-NeoX, Hugging Face checkpoints.
    Halves,
    /// `(2i, 2i + 1)`: the original, Llama in GGUF files.
    Interleaved,
}

/// Fills `out`, `[rows, 2 * inv_freq.len()]`, with the cosines, then the sines, of `position * inv_freq[i]`, each times
/// `magnitude`. A row's position is that of its token in its sequence.
pub fn rope_table(inv_freq: Vec<f64>, magnitude: f32, out: Span) -> Result<Box<dyn Step>, StepError> {
    Check("rope_table").span::<f32>("out", &out, 2 * inv_freq.len())?;
    Ok(Box::new(RopeTable { inv_freq, magnitude, out }))
}

struct RopeTable {
    inv_freq: Vec<f64>,
    magnitude: f32,
    out: Span,
}

// SAFETY: touches its span; each worker writes its own rows.
unsafe impl Step for RopeTable {
    fn label(&self) -> String {
        "rope_table".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Write(self.out)]
    }

    fn needs(&self) -> Needs {
        Needs { ragged: Some(self.out.rows), ..Needs::default() }
    }

    fn serial(&self, dims: &[usize]) -> bool {
        // A sine costs as much as some fifty simple operations.
        super::few(self.out.rows, self.out.cols.saturating_mul(50), dims)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (out, pairs) = (ctx.view::<f32>(&self.out), self.inv_freq.len());
        let share = worker.share(ctx.rows(self.out.rows), 1);
        for (row, position) in positions(ctx.seqs(), share) {
            // SAFETY: the row is this worker's.
            let out = unsafe { out.part_mut(row * 2 * pairs..(row + 1) * 2 * pairs) };
            let (cos, sin) = out.split_at_mut(pairs);
            for ((cos, sin), freq) in cos.iter_mut().zip(sin).zip(&self.inv_freq) {
                let (s, c) = (position.at as f64 * freq).sin_cos();
                *cos = (c * f64::from(self.magnitude)) as f32;
                *sin = (s * f64::from(self.magnitude)) as f32;
            }
        }
    }
}

/// Where a row's token stands.
#[derive(Clone, Copy, Debug)]
struct Position<'a> {
    seq: SeqRows<'a>,
    /// Its position in the sequence.
    at: usize,
}

/// The rows of `share` with their positions.
fn positions<'a>(
    seqs: &'a [SeqRows<'a>],
    share: Range<usize>,
) -> impl Iterator<Item = (usize, Position<'a>)> {
    seqs.iter().flat_map(move |seq| {
        let rows = share.start.max(seq.start)..share.end.min(seq.start + seq.len);
        rows.map(move |row| (row, Position { seq: *seq, at: seq.past + row - seq.start }))
    })
}

/// Queries, keys and values of one layer, `[rows, heads * dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QkvSpans {
    /// Queries; rotated in place.
    pub q: Span,
    /// Keys; rotated in place, then stored.
    pub k: Span,
    /// Values; stored.
    pub v: Span,
}

/// Rotates queries and keys in place by the angles of `rope` (a [`rope_table`] and its pairing; none leaves them as they
/// are), and stores keys and values at their positions in layer `layer` of the state, which has the given shape.
pub fn rope_store(
    layer: usize,
    shape: KvLayer,
    qkv: QkvSpans,
    rope: Option<(Span, RopeStyle)>,
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("rope_store");
    let QkvSpans { q, k, v } = qkv;
    let whole = shape.key_dim > 0 && q.cols.is_multiple_of(shape.key_dim);
    check.that(whole, || format!("{} columns of q do not fill heads of {}", q.cols, shape.key_dim))?;
    check.span::<f32>("q", &q, q.cols)?;
    check.span::<f32>("k", &k, shape.heads * shape.key_dim)?;
    check.span::<f32>("v", &v, shape.heads * shape.value_dim)?;
    check.same_rows("q and k", &q, &k)?;
    check.same_rows("q and v", &q, &v)?;
    if let Some((table, _)) = &rope {
        check.span::<f32>("table", table, table.cols)?;
        check.same_rows("q and the table", &q, table)?;
        let fits = table.cols.is_multiple_of(2) && table.cols <= shape.key_dim;
        check.that(fits, || format!("{} rotated elements of {}", table.cols, shape.key_dim))?;
    }
    Ok(Box::new(RopeStore { layer, shape, qkv, rope }))
}

struct RopeStore {
    layer: usize,
    shape: KvLayer,
    qkv: QkvSpans,
    rope: Option<(Span, RopeStyle)>,
}

// SAFETY: touches its spans and its layer; each worker its own rows, and tokens of different rows never share bytes:
// the run checks that no page has two writers.
unsafe impl Step for RopeStore {
    fn label(&self) -> String {
        match self.rope {
            Some((_, style)) => format!("rope {style:?} + kv_store"),
            None => "kv_store".into(),
        }
    }

    fn spans(&self) -> Vec<Access> {
        let QkvSpans { q, k, v } = self.qkv;
        match self.rope {
            Some((table, _)) => {
                vec![Access::Update(q), Access::Update(k), Access::Read(v), Access::Read(table)]
            }
            None => vec![Access::Read(k), Access::Read(v)],
        }
    }

    fn needs(&self) -> Needs {
        let ragged: Option<Rows> = Some(self.qkv.q.rows);
        Needs { ragged, layer: Some((self.layer, self.shape)), ..Needs::default() }
    }

    fn serial(&self, dims: &[usize]) -> bool {
        super::few(self.qkv.q.rows, self.qkv.q.cols, dims)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let Some(kv) = ctx.kv() else { return };
        let QkvSpans { q, k, v } = self.qkv;
        let share = worker.share(ctx.rows(q.rows), 1);
        dispatch(
            ctx.level(),
            RopeStoreKernel {
                step: self,
                share,
                seqs: ctx.seqs(),
                kv,
                q: ctx.view(&q),
                k: ctx.view(&k),
                v: ctx.view(&v),
                table: self.rope.map(|(table, style)| (ctx.view(&table), style)),
            },
        );
    }
}

struct RopeStoreKernel<'a> {
    step: &'a RopeStore,
    share: Range<usize>,
    seqs: &'a [SeqRows<'a>],
    kv: KvView<'a>,
    q: SharedMut<'a, f32>,
    k: SharedMut<'a, f32>,
    v: SharedMut<'a, f32>,
    table: Option<(SharedMut<'a, f32>, RopeStyle)>,
}

impl Kernel for RopeStoreKernel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (row, position) in positions(self.seqs, self.share.clone()) {
            self.rotate_row(isa, row);
            self.store_row(isa, row, position);
        }
    }
}

impl RopeStoreKernel<'_> {
    #[inline(always)]
    fn rotate_row<I: Isa>(&self, isa: I, row: usize) {
        let (Some((table, style)), Some((span, _))) = (self.table, self.step.rope) else { return };
        let (dim, q_cols, k_cols) = (self.step.shape.key_dim, self.step.qkv.q.cols, self.step.qkv.k.cols);
        // SAFETY: the row of each is this worker's; the table is only read.
        let (table, q, k) = unsafe {
            (
                table.part(row * span.cols..(row + 1) * span.cols),
                self.q.part_mut(row * q_cols..(row + 1) * q_cols),
                self.k.part_mut(row * k_cols..(row + 1) * k_cols),
            )
        };
        let angles = table.split_at(span.cols / 2);
        for head in q.chunks_exact_mut(dim).chain(k.chunks_exact_mut(dim)) {
            match style {
                RopeStyle::Halves => rotate_halves(isa, &mut head[..span.cols], angles),
                RopeStyle::Interleaved => rotate_pairs(&mut head[..span.cols], angles),
            }
        }
    }

    #[inline(always)]
    fn store_row<I: Isa>(&self, isa: I, row: usize, position: Position<'_>) {
        let KvLayer { heads, key_dim, value_dim } = self.step.shape;
        let spec = self.kv.spec();
        let (page, at) = (position.seq.pages[position.at / spec.page_tokens], position.at % spec.page_tokens);
        let rows = |dim| kv_codec::Rows { kind: spec.kind, page_tokens: spec.page_tokens, dim };
        for head in 0..heads {
            let target = self.kv.head(page, self.step.layer, head);
            let (k, v) = ((row * heads + head) * key_dim, (row * heads + head) * value_dim);
            // SAFETY: the rows are only read from here on; the run checked the position, and its token is only written
            // by this worker.
            unsafe {
                rows(key_dim).store_key(isa, target, at, self.k.part(k..k + key_dim));
                rows(value_dim).store_value(isa, target, at, self.v.part(v..v + value_dim));
            }
        }
    }
}

/// Rotates `(x[i], x[i + n])` by the angles whose cosines and sines are given.
#[inline(always)]
fn rotate_halves<I: Isa>(isa: I, x: &mut [f32], (cos, sin): (&[f32], &[f32])) {
    let (a, b) = x.split_at_mut(cos.len());
    let pairs = a.chunks_mut(I::LANES).zip(b.chunks_mut(I::LANES));
    for ((a, b), (cos, sin)) in pairs.zip(cos.chunks(I::LANES).zip(sin.chunks(I::LANES))) {
        let (c, s) = (isa.load_part(cos), isa.load_part(sin));
        let (x, y) = (isa.load_part(a), isa.load_part(b));
        isa.store_part(isa.sub(isa.mul(x, c), isa.mul(y, s)), a);
        isa.store_part(isa.add(isa.mul(y, c), isa.mul(x, s)), b);
    }
}

/// Rotates `(x[2i], x[2i + 1])`. Written for the compiler's vectoriser: the lanes must be shuffled.
#[inline(always)]
fn rotate_pairs(x: &mut [f32], (cos, sin): (&[f32], &[f32])) {
    for ((pair, c), s) in x.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
        *pair = [pair[0] * c - pair[1] * s, pair[1] * c + pair[0] * s];
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, T, close, teams, values};
    use super::*;
    use kinglet_simd::Level;
    use kinglet_tensor::{KvSpec, KvType};

    const LAYER: KvLayer = KvLayer { heads: 2, key_dim: 40, value_dim: 24 };

    fn freqs(pairs: usize) -> Vec<f64> {
        (0..pairs).map(|i| 10000f64.powf(-(i as f64) / pairs as f64)).collect()
    }

    fn rotated(x: &[f32], position: usize, style: RopeStyle, freqs: &[f64], magnitude: f64) -> Vec<f64> {
        let mut out: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        for head in out.chunks_mut(LAYER.key_dim) {
            for (i, freq) in freqs.iter().enumerate() {
                let (a, b) = match style {
                    RopeStyle::Halves => (i, i + freqs.len()),
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                };
                let (s, c) = (position as f64 * freq).sin_cos();
                let (x, y) = (head[a], head[b]);
                (head[a], head[b]) = (magnitude * (x * c - y * s), magnitude * (y * c + x * s));
            }
        }
        out
    }

    #[test]
    fn queries_and_keys_turn_and_values_are_stored() {
        let seqs = [
            SeqRows { start: 0, len: 3, past: 0, pages: &[3] },
            SeqRows { start: 3, len: 1, past: 100_000, pages: &[0; 6251] },
            SeqRows { start: 4, len: 9, past: 12, pages: &[2, 1] },
        ];
        let rows = 13;
        let at = |row: usize| match row {
            0..3 => row,
            3 => 100_000,
            _ => 12 + row - 4,
        };
        let (x, k, v) = (values(1, rows * 160), values(2, rows * 80), values(3, rows * 48));
        for (style, pairs) in [(RopeStyle::Halves, 20), (RopeStyle::Interleaved, 20), (RopeStyle::Halves, 7)]
        {
            let expected = |x: &[f32], cols: usize| -> Vec<f64> {
                x.chunks(cols)
                    .enumerate()
                    .flat_map(|(row, x)| rotated(x, at(row), style, &freqs(pairs), 1.5))
                    .collect()
            };
            let mut bench = Bench::new(rows);
            let qkv = QkvSpans { q: bench.input(&x, 160), k: bench.input(&k, 80), v: bench.input(&v, 48) };
            let table = bench.place_span(Span::f32(0, T, 2 * pairs));
            for level in Level::available() {
                for (team, (span, reference)) in
                    teams().zip([(qkv.q, expected(&x, 160)), (qkv.k, expected(&k, 80))].iter().cycle())
                {
                    let spec = KvSpec { layers: vec![LAYER; 2], kind: KvType::F32, page_tokens: 16 };
                    let mut store = crate::KvStore::new(spec).expect("valid");
                    store.reserve(4).expect("memory");
                    let steps = vec![
                        rope_table(freqs(pairs), 1.5, table).expect("valid"),
                        rope_store(1, LAYER, qkv, Some((table, style))).expect("valid"),
                    ];
                    let found = bench.run::<f32>(steps, *span, level, team, Some((&mut store, &seqs)));
                    close(&format!("{level} {style:?}"), &found, reference, 1e-6);
                }
            }
        }
    }
}
