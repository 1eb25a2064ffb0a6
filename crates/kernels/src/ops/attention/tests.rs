//! Attention against an f64 reference, over shapes, storage types, ragged batches, levels and teams.

use super::super::testing::{Bench, T, bits, close, teams, values};
use super::super::{QkvSpans, rope_store};
use super::*;
use crate::{KvStore, Team};
use kinglet_simd::Level;
use kinglet_tensor::{KvSpec, KvType, PageId};

const PAGE: usize = 32;

/// One sequence: tokens already stored, tokens of this batch.
type Lens = (usize, usize);

struct Case {
    shape: AttentionShape,
    kind: KvType,
    seqs: Vec<Lens>,
    bound: f64,
}

fn shape(heads: usize, kv_heads: usize, key_dim: usize, value_dim: usize) -> AttentionShape {
    let kv = KvLayer { heads: kv_heads, key_dim, value_dim };
    AttentionShape { layer: 1, kv, heads, scale: 1.3 / (key_dim as f32).sqrt(), window: None, softcap: None }
}

/// Pages of each sequence, scattered over the store.
fn pages(seqs: &[Lens]) -> Vec<Vec<PageId>> {
    let total: usize = seqs.iter().map(|(past, new)| (past + new).div_ceil(PAGE)).sum();
    let mut free = (0..total as PageId).rev();
    seqs.iter().map(|(past, new)| free.by_ref().take((past + new).div_ceil(PAGE)).collect()).collect()
}

/// Queries, keys and values of every token of a sequence.
struct Tokens {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn tokens(&self) -> Vec<Tokens> {
        let AttentionShape { heads, kv, .. } = self.shape;
        let make = |(i, (past, new)): (usize, &Lens)| {
            let (n, seed) = (past + new, 10 * i as u64);
            Tokens {
                q: values(seed + 1, n * heads * kv.key_dim),
                k: values(seed + 2, n * kv.heads * kv.key_dim),
                v: values(seed + 3, n * kv.heads * kv.value_dim),
            }
        };
        self.seqs.iter().enumerate().map(make).collect()
    }

    fn expected(&self, tokens: &[Tokens]) -> Vec<f64> {
        let of = |(tokens, &(past, new)): (&Tokens, &Lens)| {
            (past..past + new).flat_map(|p| self.row(tokens, p)).collect::<Vec<_>>()
        };
        tokens.iter().zip(&self.seqs).flat_map(of).collect()
    }

    fn row(&self, tokens: &Tokens, position: usize) -> Vec<f64> {
        let AttentionShape { heads, kv, scale, window, softcap, .. } = self.shape;
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
        let head = |h: usize| {
            let g = h * kv.heads / heads;
            let q = wide(&tokens.q[(position * heads + h) * kv.key_dim..][..kv.key_dim]);
            let score = |p: usize| {
                let k = &tokens.k[(p * kv.heads + g) * kv.key_dim..][..kv.key_dim];
                let s = f64::from(scale) * q.iter().zip(k).map(|(q, &k)| q * f64::from(k)).sum::<f64>();
                softcap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
            };
            let scores: Vec<f64> = (first..=position).map(score).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut out = vec![0.0; kv.value_dim];
            for (p, w) in (first..).zip(&weights) {
                let v = &tokens.v[(p * kv.heads + g) * kv.value_dim..][..kv.value_dim];
                out.iter_mut().zip(v).for_each(|(o, &v)| *o += w / total * f64::from(v));
            }
            out
        };
        (0..heads).flat_map(head).collect()
    }

    /// Stores the past, then runs the batch; both in chunks of rows as `seqs` says.
    fn run(&self, tokens: &[Tokens], level: Level, team: &Team) -> Vec<f32> {
        let spec = KvSpec { layers: vec![self.shape.kv; 2], kind: self.kind, page_tokens: PAGE };
        let mut store = KvStore::new(spec).expect("valid");
        let pages = pages(&self.seqs);
        store.reserve(pages.iter().map(Vec::len).sum()).expect("memory");
        self.batch(tokens, &pages, &mut store, level, team, |(past, _)| (0, past));
        self.batch(tokens, &pages, &mut store, level, team, |lens| lens)
    }

    fn batch(
        &self,
        tokens: &[Tokens],
        pages: &[Vec<PageId>],
        store: &mut KvStore,
        level: Level,
        team: &Team,
        part: impl Fn(Lens) -> Lens,
    ) -> Vec<f32> {
        let AttentionShape { heads, kv, .. } = self.shape;
        let mut start = 0;
        let mut seqs = vec![];
        let (mut q, mut k, mut v) = (vec![], vec![], vec![]);
        for ((tokens, &lens), pages) in tokens.iter().zip(&self.seqs).zip(pages) {
            let (past, len) = part(lens);
            seqs.push(SeqRows { start, len, past, pages });
            start += len;
            let take = |x: &[f32], cols: usize| x[past * cols..(past + len) * cols].to_vec();
            q.extend(take(&tokens.q, heads * kv.key_dim));
            k.extend(take(&tokens.k, kv.heads * kv.key_dim));
            v.extend(take(&tokens.v, kv.heads * kv.value_dim));
        }
        let mut bench = Bench::new(start);
        let qkv = QkvSpans {
            q: bench.input(&q, heads * kv.key_dim),
            k: bench.input(&k, kv.heads * kv.key_dim),
            v: bench.input(&v, kv.heads * kv.value_dim),
        };
        let out = bench.place_span(Span::f32(0, T, heads * kv.value_dim));
        let steps = vec![
            rope_store(1, kv, qkv, None).expect("valid"),
            attention(self.shape, qkv.q, out).expect("valid"),
        ];
        bench.run(steps, out, level, team, Some((store, &seqs)))
    }

    fn check(&self) {
        let tokens = self.tokens();
        let expected = self.expected(&tokens);
        for level in Level::available() {
            let what = format!("{level} {} {:?} {:?}", self.kind, self.shape, self.seqs);
            let mut runs = teams().map(|team| self.run(&tokens, level, team));
            let first = runs.next().expect("teams");
            close(&what, &first, &expected, self.bound);
            runs.for_each(|other| assert_eq!(bits(&first), bits(&other), "{what}: depends on the team"));
        }
    }
}

#[test]
fn shapes_windows_and_caps() {
    let seqs = vec![(0, 20), (40, 1), (17, 7)];
    let plain = [
        shape(9, 3, 64, 64),
        shape(2, 2, 7, 5),
        shape(7, 1, 80, 96),
        shape(4, 2, 16, 40),
        shape(60, 1, 8, 8),
    ];
    let special = [
        AttentionShape { window: Some(1), ..plain[0] },
        AttentionShape { window: Some(9), ..plain[0] },
        AttentionShape { softcap: Some(0.5), ..plain[0] },
        AttentionShape { softcap: Some(2.0), window: Some(33), ..plain[2] },
    ];
    for shape in plain.into_iter().chain(special) {
        Case { shape, kind: KvType::F32, seqs: seqs.clone(), bound: 2e-6 }.check();
    }
}

#[test]
fn storage_types() {
    let bounds = [(KvType::F16, 6e-4), (KvType::Bf16, 5e-3), (KvType::Q8_0, 6e-3), (KvType::Q16, 1e-4)];
    for (kind, bound) in bounds {
        for (key_dim, value_dim) in [(64, 64), (32, 96)] {
            let shape = shape(6, 2, key_dim, value_dim);
            Case { shape, kind, seqs: vec![(300, 1), (0, 33)], bound }.check();
        }
    }
    for shape in [shape(2, 2, 7, 5), shape(7, 1, 80, 96), shape(60, 1, 8, 8)] {
        Case { shape, kind: KvType::Q16, seqs: vec![(0, 20), (40, 1), (17, 7)], bound: 1e-4 }.check();
    }
}

#[test]
fn long_contexts_are_split_and_merged() {
    let shape = shape(3, 1, 32, 32);
    for seqs in [vec![(1000, 1)], vec![(511, 2), (256, 1)], vec![(255, 1)], vec![(0, 600)], vec![(700, 60)]] {
        for window in [None, Some(300)] {
            for (kind, bound) in [(KvType::F16, 6e-4), (KvType::Q16, 1e-4)] {
                let shape = AttentionShape { window, ..shape };
                Case { shape, kind, seqs: seqs.clone(), bound }.check();
            }
        }
    }
}

/// A row's result is the same, bit by bit, alone and in a batch, in prefill and in decode.
#[test]
fn rows_do_not_depend_on_their_batch() {
    for (window, kind) in [(None, KvType::F16), (None, KvType::Q16), (Some(100), KvType::Q16)] {
        let shape = AttentionShape { window, ..shape(6, 3, 32, 48) };
        let alone = |past: usize| Case { shape, kind, seqs: vec![(past, 1)], bound: 0.0 };
        let batch = Case { seqs: vec![(0, 290)], ..alone(0) };
        let tokens = batch.tokens();
        for level in Level::available() {
            for team in teams() {
                let all = batch.run(&tokens, level, team);
                for past in [0, 1, 16, 139, 255, 256, 289] {
                    let one = alone(past).run(&tokens, level, team);
                    let row = &all[past * 6 * 48..(past + 1) * 6 * 48];
                    assert_eq!(bits(&one), bits(row), "{level}: row {past}, {window:?}, {kind}");
                }
            }
        }
    }
}

/// One column of keys a thousand times as large as the others, codes at their bounds, zeros, numbers too small to count.
#[test]
fn extreme_rows_in_codes() {
    let shape = shape(4, 2, 64, 32);
    let case = Case { shape, kind: KvType::Q16, seqs: vec![(290, 3)], bound: 2e-3 };
    let mut tokens = case.tokens();
    for tokens in &mut tokens {
        for (at, k) in tokens.k.iter_mut().enumerate() {
            match at / 64 % 4 {
                0 => *k *= if at % 64 == 5 { 1000.0 } else { 1.0 },
                1 => *k = 1.0,
                2 => *k = 0.0,
                _ => *k *= 1e-33,
            }
        }
        tokens.q.iter_mut().enumerate().filter(|(at, _)| at % 64 == 5).for_each(|(_, q)| *q *= 1e-3);
        tokens.v.iter_mut().enumerate().for_each(|(at, v)| *v *= if at / 32 % 3 == 0 { 0.0 } else { 1.0 });
    }
    let expected = case.expected(&tokens);
    for level in Level::available() {
        for team in teams() {
            close(&format!("{level}"), &case.run(&tokens, level, team), &expected, case.bound);
        }
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let shape = shape(2, 1, 16, 16);
    let case = Case { shape, kind: KvType::Q16, seqs: vec![(0, 40)], bound: 0.0 };
    for (bad, keys) in [(f32::NAN, true), (f32::INFINITY, true), (f32::NAN, false), (f32::INFINITY, false)] {
        let mut tokens = case.tokens();
        let rows = if keys { &mut tokens[0].k } else { &mut tokens[0].v };
        rows[35 * 16 + 3] = bad;
        for level in Level::available() {
            for team in teams() {
                let out = case.run(&tokens, level, team);
                let (before, after) = out.split_at(35 * 2 * 16);
                assert!(before.iter().all(|x| x.is_finite()), "{level}: {bad} is seen before its time");
                assert!(after.iter().all(|x| x.is_nan()), "{level}: {bad} is lost");
            }
        }
    }
}

#[test]
fn impossible_shapes_are_refused() {
    let span = |offset, cols| Span::f32(offset, T, cols);
    let check = |shape: AttentionShape, q, out| {
        attention(shape, span(0, q), span(4096, out)).err().expect("refused");
    };
    check(shape(5, 2, 8, 8), 40, 40);
    check(shape(4, 2, 8, 8), 40, 32);
    check(shape(4, 2, 8, 8), 32, 40);
    check(AttentionShape { window: Some(0), ..shape(4, 2, 8, 8) }, 32, 32);
}
