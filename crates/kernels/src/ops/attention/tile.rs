//! Register tiles: a few rows of one matrix times a panel of another, summed in f32.
//!
//! Each output is one chain of fused multiply-adds in index order, so that it does not depend on which rows or columns
//! share its tile. Weights and values are [`Words`].

use std::marker::PhantomData;

use kinglet_simd::{Isa, Kernel};

use super::words::{Float, Words};
use crate::kv::GROUP;

/// Tokens whose keys or values are decoded and multiplied at a time.
pub(super) const BATCH: usize = 64;
/// Groups of a batch.
pub(super) const GROUPS: usize = BATCH / GROUP;

/// Rows of the next tile when `left` are to do.
#[inline(always)]
fn tile_rows(left: usize) -> usize {
    match left {
        6.. => 6,
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
    /// One panel `[dim][16]` a group.
    pub(super) keys: [*const f32; GROUPS],
    pub(super) tokens: usize,
    /// `[rows][stride]`, of which at most `BATCH` columns are written.
    pub(super) scores: *mut f32,
    pub(super) stride: usize,
}

impl Scores {
    /// # Safety
    /// All pointers are valid for the stated shapes.
    #[inline(always)]
    pub(super) unsafe fn run<I: Isa>(self, isa: I) {
        let mut r = 0;
        while r < self.rows {
            let rows = tile_rows(self.rows - r);
            match rows {
                6 => isa.dispatch(ScoreTile::<6> { all: self, r }),
                4 => isa.dispatch(ScoreTile::<4> { all: self, r }),
                3 => isa.dispatch(ScoreTile::<3> { all: self, r }),
                2 => isa.dispatch(ScoreTile::<2> { all: self, r }),
                _ => isa.dispatch(ScoreTile::<1> { all: self, r }),
            }
            r += rows;
        }
    }
}

struct ScoreTile<const R: usize> {
    all: Scores,
    r: usize,
}

impl<const R: usize> Kernel for ScoreTile<R> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut first = 0;
        while first < self.all.tokens {
            let left = (self.all.tokens - first).div_ceil(I::LANES);
            first += if I::REGISTERS >= 32 && left > 2 {
                self.columns::<I, 4>(isa, first)
            } else {
                self.columns::<I, 2>(isa, first)
            };
        }
    }
}

impl<const R: usize> ScoreTile<R> {
    /// Tokens `first..first + V * LANES`; returns how many.
    #[inline(always)]
    fn columns<I: Isa, const V: usize>(&self, isa: I, first: usize) -> usize {
        let Scores { q, dim, keys, scores, stride, .. } = self.all;
        let panel: [*const i32; V] = std::array::from_fn(|v| {
            let token = first + v * I::LANES;
            keys[token / GROUP].wrapping_add(token % GROUP).cast()
        });
        let mut acc = [[isa.zero(); V]; R];
        // SAFETY: `Scores::run` vouches for the shapes; `r + R` rows exist.
        unsafe {
            for d in 0..dim {
                let keys: [I::I32; V] = load(isa, &panel, d * GROUP);
                for (r, acc) in acc.iter_mut().enumerate() {
                    let q = isa.bits_of(isa.splat(*q.add((self.r + r) * dim + d)));
                    multiply_add::<I, Float, V>(isa, acc, q, &keys);
                }
            }
            for (r, acc) in acc.into_iter().enumerate() {
                for (v, acc) in acc.into_iter().enumerate() {
                    isa.store_ptr(acc, scores.add((self.r + r) * stride + first + v * I::LANES));
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
    /// One panel a group, `[words][dim]`.
    pub(super) values: [*const i32; GROUPS],
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
                6 => isa.dispatch(SumTile::<W, 6>(self, r, PhantomData)),
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
            for (group, values) in values.iter().enumerate().take(tokens.div_ceil(GROUP)) {
                let panel = offsets.map(|offset| values.wrapping_add(offset));
                let before = group * GROUP / W::NUMBERS;
                for w in 0..GROUP.min(tokens - group * GROUP).div_ceil(W::NUMBERS) {
                    let values: [I::I32; V] = load(isa, &panel, w * dim);
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let weight = isa.splat_i32(*weights.add((first_row + r) * stride + before + w));
                        multiply_add::<I, W, V>(isa, acc, weight, &values);
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

/// The vectors at `offset` behind each pointer.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn load<I: Isa, const V: usize>(isa: I, panel: &[*const i32; V], offset: usize) -> [I::I32; V] {
    let mut vectors = [isa.splat_i32(0); V];
    for (vector, pointer) in vectors.iter_mut().zip(panel) {
        // SAFETY: by the caller's promise.
        *vector = unsafe { isa.load_i32_ptr(pointer.add(offset)) };
    }
    vectors
}

/// `acc[v] += a * b[v]`.
#[inline(always)]
fn multiply_add<I: Isa, W: Words, const V: usize>(isa: I, acc: &mut [I::F32; V], a: I::I32, b: &[I::I32; V]) {
    for (acc, b) in acc.iter_mut().zip(b) {
        *acc = W::multiply_add(isa, a, *b, *acc);
    }
}
