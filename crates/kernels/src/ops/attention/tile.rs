//! Register tiles: a few rows of one matrix times a panel of another, both of [`Words`].
//!
//! Each output is one chain of multiply-adds in index order, so that it does not depend on which rows or columns share its
//! tile.

use std::marker::PhantomData;

use kinglet_simd::{Isa, Kernel};

use super::words::Words;
use crate::kv::GROUP;
use crate::kv_codec::Rows;

/// Tokens whose keys or values are decoded and multiplied at a time.
pub(super) const BATCH: usize = 64;
/// Groups of a batch.
pub(super) const GROUPS: usize = BATCH / GROUP;
/// Batches whose softmax is taken together.
pub(super) const BATCHES: usize = 4;
/// Rows of the largest tile.
const TILE_ROWS: usize = 6;

/// Rows of the next tile when `left` are to do.
#[inline(always)]
fn tile_rows(left: usize) -> usize {
    match left {
        TILE_ROWS.. => TILE_ROWS,
        4 | 5 => 4,
        _ => left,
    }
}

/// `scores[r][t] = sum_w q[r][w] * keys[t / 16][w][t % 16]` for the first `tokens` of a batch, and more of no meaning behind
/// them.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    /// Words of queries, `[rows][keys.dim]`, and the scale of each.
    pub(super) q: *const f32,
    pub(super) q_scales: *const f32,
    pub(super) rows: usize,
    /// What the keys are.
    pub(super) stored: Rows,
    /// One panel `[words][16]` a group.
    pub(super) keys: [*const u8; GROUPS],
    pub(super) tokens: usize,
    /// `[rows][stride]`, of which at most `BATCH` columns are written.
    pub(super) scores: *mut f32,
    pub(super) stride: usize,
}

impl Scores {
    /// # Safety
    /// All pointers are valid for the stated shapes.
    #[inline(always)]
    pub(super) unsafe fn run<I: Isa, W: Words>(self, isa: I) {
        let mut r = 0;
        while r < self.rows {
            let rows = tile_rows(self.rows - r);
            match rows {
                TILE_ROWS => isa.dispatch(ScoreTile::<W, TILE_ROWS>(self, r, PhantomData)),
                4 => isa.dispatch(ScoreTile::<W, 4>(self, r, PhantomData)),
                3 => isa.dispatch(ScoreTile::<W, 3>(self, r, PhantomData)),
                2 => isa.dispatch(ScoreTile::<W, 2>(self, r, PhantomData)),
                _ => isa.dispatch(ScoreTile::<W, 1>(self, r, PhantomData)),
            }
            r += rows;
        }
    }
}

/// `R` rows of scores, from the given one on.
struct ScoreTile<W, const R: usize>(Scores, usize, PhantomData<W>);

impl<W: Words, const R: usize> Kernel for ScoreTile<W, R> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut first = 0;
        while first < self.0.tokens {
            let left = (self.0.tokens - first).div_ceil(I::LANES);
            first += if I::REGISTERS >= 32 && left > 2 {
                self.columns::<I, 4>(isa, first)
            } else {
                self.columns::<I, 2>(isa, first)
            };
        }
    }
}

impl<W: Words, const R: usize> ScoreTile<W, R> {
    /// Tokens `first..first + V * LANES`; returns how many.
    #[inline(always)]
    fn columns<I: Isa, const V: usize>(&self, isa: I, first: usize) -> usize {
        let (Scores { q, q_scales, stored, keys, scores, stride, .. }, first_row) = (self.0, self.1);
        let (mut acc, words) = ([[W::zero(isa); V]; R], stored.dim.div_ceil(W::NUMBERS));
        // SAFETY: `Scores::run` vouches for the shapes; `first_row + R` rows exist.
        unsafe {
            for w in 0..words {
                let mut panel = [isa.splat_i32(0); V];
                for (v, panel) in panel.iter_mut().enumerate() {
                    let token = first + v * I::LANES;
                    let at = w * GROUP + token % GROUP;
                    *panel = isa.load_i32_ptr(keys[token / GROUP].cast::<i32>().add(at));
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let q = isa.splat_i32(*q.add((first_row + r) * stored.dim + w).cast());
                    multiply_add::<I, W, V>(isa, acc, q, &panel);
                }
            }
            for (r, acc) in acc.into_iter().enumerate() {
                let query = *q_scales.add(first_row + r);
                for (v, acc) in acc.into_iter().enumerate() {
                    let token = first + v * I::LANES;
                    let found = W::scores(isa, acc, query, stored, keys[token / GROUP], token % GROUP);
                    isa.store_ptr(found, scores.add((first_row + r) * stride + token));
                }
            }
        }
        V * I::LANES
    }
}

/// `sums[r][d] += sum_w weights[r][w] * values[w][d]` over the words `w` of the first `tokens` of a batch.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// Words, `[rows][stride]`, and the scale of each row, [`BATCHES`] apart.
    pub(super) weights: *const f32,
    pub(super) scales: *const f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    /// One panel `[words][dim]` a group.
    pub(super) values: [*const u8; GROUPS],
    pub(super) tokens: usize,
    /// A multiple of 16.
    pub(super) dim: usize,
    /// `[rows][dim]`.
    pub(super) sums: *mut f32,
}

impl Sums {
    /// # Safety
    /// All pointers are valid for the stated shapes.
    #[inline(always)]
    pub(super) unsafe fn run<I: Isa, W: Words>(self, isa: I) {
        let mut r = 0;
        while r < self.rows {
            let rows = tile_rows(self.rows - r);
            match rows {
                TILE_ROWS => isa.dispatch(SumTile::<W, TILE_ROWS>(self, r, PhantomData)),
                4 => isa.dispatch(SumTile::<W, 4>(self, r, PhantomData)),
                3 => isa.dispatch(SumTile::<W, 3>(self, r, PhantomData)),
                2 => isa.dispatch(SumTile::<W, 2>(self, r, PhantomData)),
                _ => isa.dispatch(SumTile::<W, 1>(self, r, PhantomData)),
            }
            r += rows;
        }
    }
}

/// `R` rows of a product, from the given one on.
struct SumTile<W, const R: usize>(Sums, usize, PhantomData<W>);

impl<W: Words, const R: usize> Kernel for SumTile<W, R> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut d = 0;
        while d < self.0.dim {
            let left = (self.0.dim - d) / I::LANES;
            d += if I::REGISTERS >= 32 && left >= 4 {
                self.columns::<I, 4>(isa, d)
            } else if left >= 2 {
                self.columns::<I, 2>(isa, d)
            } else {
                self.columns::<I, 1>(isa, d)
            };
        }
    }
}

impl<W: Words, const R: usize> SumTile<W, R> {
    /// Columns `first..first + V * LANES`; returns how many.
    #[inline(always)]
    fn columns<I: Isa, const V: usize>(&self, isa: I, first: usize) -> usize {
        let (Sums { weights, scales, stride, values, tokens, dim, sums, .. }, first_row) = (self.0, self.1);
        let offsets: [usize; V] = std::array::from_fn(|v| first + v * I::LANES);
        // SAFETY: `Sums::run` vouches for the shapes; `r + R` rows and these columns exist.
        unsafe {
            let at = |r: usize| sums.add((first_row + r) * dim);
            let mut acc = [[W::zero(isa); V]; R];
            for (r, acc) in acc.iter_mut().enumerate() {
                for (acc, offset) in acc.iter_mut().zip(offsets) {
                    *acc = W::begin(isa, at(r).add(offset));
                }
            }
            for (group, &values) in values.iter().enumerate().take(tokens.div_ceil(GROUP)) {
                let before = group * GROUP / W::NUMBERS;
                let rows = GROUP.min(tokens - group * GROUP);
                let words = rows.div_ceil(W::NUMBERS);
                for w in 0..words {
                    let mut panel = [isa.splat_i32(0); V];
                    for (panel, offset) in panel.iter_mut().zip(offsets) {
                        *panel = isa.load_i32_ptr(values.cast::<i32>().add(w * dim + offset));
                    }
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let weight =
                            isa.splat_i32(*weights.add((first_row + r) * stride + before + w).cast());
                        multiply_add::<I, W, V>(isa, acc, weight, &panel);
                    }
                }
            }
            for (r, acc) in acc.into_iter().enumerate() {
                let scale = *scales.add((first_row + r) * BATCHES);
                for (acc, offset) in acc.into_iter().zip(offsets) {
                    W::end(isa, acc, scale, at(r).add(offset));
                }
            }
        }
        V * I::LANES
    }
}

/// `acc[v] += a * b[v]`.
#[inline(always)]
fn multiply_add<I: Isa, W: Words, const V: usize>(
    isa: I,
    acc: &mut [W::Sum<I>; V],
    a: I::I32,
    b: &[I::I32; V],
) {
    for (acc, b) in acc.iter_mut().zip(b) {
        *acc = W::multiply_add(isa, a, *b, *acc);
    }
}
