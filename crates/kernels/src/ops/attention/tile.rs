//! Register tiles: a few rows of one matrix times a panel of another, summed in f32.
//!
//! Each output is one chain of fused multiply-adds in index order, so that it does not depend on which rows or columns
//! share its tile. Weights and values are [`Words`].

use std::marker::PhantomData;

use kinglet_simd::{Isa, Kernel};

use super::words::{Float, Source, Words};
use crate::kv::GROUP;
use crate::kv_codec::Stored;

/// Tokens whose keys or values are decoded and multiplied at a time.
pub(super) const BATCH: usize = 64;
/// Groups of a batch.
pub(super) const GROUPS: usize = BATCH / GROUP;
/// Rows of the largest tile: what no more of them read is worth decoding in registers.
pub(super) const TILE_ROWS: usize = 6;

/// Rows of the next tile when `left` are to do.
#[inline(always)]
fn tile_rows(left: usize) -> usize {
    match left {
        TILE_ROWS.. => TILE_ROWS,
        4 | 5 => 4,
        _ => left,
    }
}

/// `scores[r][t] = sum_d q[r][d] * keys[t / 16][d][t % 16]` for the first `tokens` of a batch, and more
/// of no meaning behind them.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    /// `[rows][dim]`.
    pub(super) q: *const f32,
    pub(super) rows: usize,
    pub(super) dim: usize,
    /// One panel `[dim][16]` a group, of the type that [`run`](Self::run) is told.
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
    pub(super) unsafe fn run<I: Isa, S: Stored>(self, isa: I) {
        let mut r = 0;
        while r < self.rows {
            let rows = tile_rows(self.rows - r);
            match rows {
                TILE_ROWS => isa.dispatch(ScoreTile::<S, TILE_ROWS>(self, r, PhantomData)),
                4 => isa.dispatch(ScoreTile::<S, 4>(self, r, PhantomData)),
                3 => isa.dispatch(ScoreTile::<S, 3>(self, r, PhantomData)),
                2 => isa.dispatch(ScoreTile::<S, 2>(self, r, PhantomData)),
                _ => isa.dispatch(ScoreTile::<S, 1>(self, r, PhantomData)),
            }
            r += rows;
        }
    }
}

/// `R` rows of scores, from the given one on.
struct ScoreTile<S, const R: usize>(Scores, usize, PhantomData<S>);

impl<S: Stored, const R: usize> Kernel for ScoreTile<S, R> {
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

impl<S: Stored, const R: usize> ScoreTile<S, R> {
    /// Tokens `first..first + V * LANES`; returns how many.
    #[inline(always)]
    fn columns<I: Isa, const V: usize>(&self, isa: I, first: usize) -> usize {
        let (Scores { q, dim, keys, scores, stride, .. }, first_row) = (self.0, self.1);
        let mut acc = [[isa.zero(); V]; R];
        // SAFETY: `Scores::run` vouches for the shapes; `first_row + R` rows exist.
        unsafe {
            for d in 0..dim {
                let mut panel = [isa.splat_i32(0); V];
                for (v, panel) in panel.iter_mut().enumerate() {
                    let token = first + v * I::LANES;
                    let at = d * GROUP + token % GROUP;
                    *panel = isa.bits_of(S::load(isa, keys[token / GROUP], at));
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let q = isa.bits_of(isa.splat(*q.add((first_row + r) * dim + d)));
                    multiply_add::<I, Float, V>(isa, acc, q, &panel);
                }
            }
            for (r, acc) in acc.into_iter().enumerate() {
                for (v, acc) in acc.into_iter().enumerate() {
                    isa.store_ptr(acc, scores.add((first_row + r) * stride + first + v * I::LANES));
                }
            }
        }
        V * I::LANES
    }
}

/// `sums[r][d] += sum_w weights[r][w] * values[w][d]` over the words `w` of the first `tokens` of a batch.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// `[rows][stride]`.
    pub(super) weights: *const i32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    /// One panel a group, `dim` wide, as the source that [`run`](Self::run) is told has them.
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
    pub(super) unsafe fn run<I: Isa, W: Words, S: Source>(self, isa: I) {
        let mut r = 0;
        while r < self.rows {
            let rows = tile_rows(self.rows - r);
            match rows {
                TILE_ROWS => isa.dispatch(SumTile::<W, S, TILE_ROWS>(self, r, PhantomData)),
                4 => isa.dispatch(SumTile::<W, S, 4>(self, r, PhantomData)),
                3 => isa.dispatch(SumTile::<W, S, 3>(self, r, PhantomData)),
                2 => isa.dispatch(SumTile::<W, S, 2>(self, r, PhantomData)),
                _ => isa.dispatch(SumTile::<W, S, 1>(self, r, PhantomData)),
            }
            r += rows;
        }
    }
}

/// `R` rows of a product, from the given one on.
struct SumTile<W, S, const R: usize>(Sums, usize, PhantomData<(W, S)>);

impl<W: Words, S: Source, const R: usize> Kernel for SumTile<W, S, R> {
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

impl<W: Words, S: Source, const R: usize> SumTile<W, S, R> {
    /// Columns `first..first + V * LANES`; returns how many.
    #[inline(always)]
    fn columns<I: Isa, const V: usize>(&self, isa: I, first: usize) -> usize {
        let (Sums { weights, stride, values, tokens, dim, sums, .. }, first_row) = (self.0, self.1);
        let offsets: [usize; V] = std::array::from_fn(|v| first + v * I::LANES);
        // SAFETY: `Sums::run` vouches for the shapes; `r + R` rows and these columns exist.
        unsafe {
            let at = |r: usize| sums.add((first_row + r) * dim);
            let mut acc = [[isa.zero(); V]; R];
            for (r, acc) in acc.iter_mut().enumerate() {
                for (acc, offset) in acc.iter_mut().zip(offsets) {
                    *acc = isa.load_ptr(at(r).add(offset));
                }
            }
            for (group, &values) in values.iter().enumerate().take(tokens.div_ceil(GROUP)) {
                let before = group * GROUP / W::NUMBERS;
                let rows = GROUP.min(tokens - group * GROUP);
                for w in 0..rows.div_ceil(W::NUMBERS) {
                    let mut panel = [isa.splat_i32(0); V];
                    for (panel, offset) in panel.iter_mut().zip(offsets) {
                        *panel = S::word::<I, W>(isa, values, (rows, dim), w, offset);
                    }
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let weight = isa.splat_i32(*weights.add((first_row + r) * stride + before + w));
                        multiply_add::<I, W, V>(isa, acc, weight, &panel);
                    }
                }
            }
            for (r, acc) in acc.into_iter().enumerate() {
                for (acc, offset) in acc.into_iter().zip(offsets) {
                    isa.store_ptr(acc, at(r).add(offset));
                }
            }
        }
        V * I::LANES
    }
}

/// `acc[v] += a * b[v]`.
#[inline(always)]
fn multiply_add<I: Isa, W: Words, const V: usize>(isa: I, acc: &mut [I::F32; V], a: I::I32, b: &[I::I32; V]) {
    for (acc, b) in acc.iter_mut().zip(b) {
        *acc = W::multiply_add(isa, a, *b, *acc);
    }
}
