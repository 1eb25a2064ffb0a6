//! Register tiles: a few rows of one matrix times a panel of another, in f32.
//!
//! Each output is one chain of fused multiply-adds in index order, so that it does not depend on which rows or columns
//! share its tile.

use kinglet_simd::{Isa, Kernel};

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
        let panel: [*const f32; V] = std::array::from_fn(|v| {
            let token = first + v * I::LANES;
            keys[token / GROUP].wrapping_add(token % GROUP)
        });
        let mut acc = [[isa.zero(); V]; R];
        // SAFETY: `Scores::run` vouches for the shapes; `r + R` rows exist.
        unsafe {
            for d in 0..dim {
                let keys: [I::F32; V] = load(isa, &panel, d * GROUP);
                for (r, acc) in acc.iter_mut().enumerate() {
                    let q = isa.splat(*q.add((self.r + r) * dim + d));
                    multiply_add(isa, acc, q, &keys);
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

/// `sums[r][d] += sum_t weights[r][t] * values[t][d]` for the first `tokens` of a batch.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// `[rows][stride]`.
    pub(super) weights: *const f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    /// One panel `[16][dim]` a group.
    pub(super) values: [*const f32; GROUPS],
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
    pub(super) unsafe fn run<I: Isa>(self, isa: I) {
        let mut r = 0;
        while r < self.rows {
            let rows = tile_rows(self.rows - r);
            match rows {
                6 => isa.dispatch(SumTile::<6> { all: self, r }),
                4 => isa.dispatch(SumTile::<4> { all: self, r }),
                3 => isa.dispatch(SumTile::<3> { all: self, r }),
                2 => isa.dispatch(SumTile::<2> { all: self, r }),
                _ => isa.dispatch(SumTile::<1> { all: self, r }),
            }
            r += rows;
        }
    }
}

struct SumTile<const R: usize> {
    all: Sums,
    r: usize,
}

impl<const R: usize> Kernel for SumTile<R> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut d = 0;
        while d < self.all.dim {
            let left = (self.all.dim - d) / I::LANES;
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

impl<const R: usize> SumTile<R> {
    /// Columns `first..first + V * LANES`; returns how many.
    #[inline(always)]
    fn columns<I: Isa, const V: usize>(&self, isa: I, first: usize) -> usize {
        let Sums { weights, stride, values, tokens, dim, sums, .. } = self.all;
        let offsets: [usize; V] = std::array::from_fn(|v| first + v * I::LANES);
        // SAFETY: `Sums::run` vouches for the shapes; `r + R` rows and these columns exist.
        unsafe {
            let at = |r: usize| sums.add((self.r + r) * dim);
            let mut acc = [[isa.zero(); V]; R];
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = load(isa, &offsets.map(|offset| at(r).add(offset).cast_const()), 0);
            }
            for (group, values) in values.iter().enumerate().take(tokens.div_ceil(GROUP)) {
                let panel = offsets.map(|offset| values.wrapping_add(offset));
                for t in 0..GROUP.min(tokens - group * GROUP) {
                    let values: [I::F32; V] = load(isa, &panel, t * dim);
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let weight = isa.splat(*weights.add((self.r + r) * stride + group * GROUP + t));
                        multiply_add(isa, acc, weight, &values);
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
unsafe fn load<I: Isa, const V: usize>(isa: I, panel: &[*const f32; V], offset: usize) -> [I::F32; V] {
    let mut vectors = [isa.zero(); V];
    for (vector, pointer) in vectors.iter_mut().zip(panel) {
        // SAFETY: by the caller's promise.
        *vector = unsafe { isa.load_ptr(pointer.add(offset)) };
    }
    vectors
}

/// `acc[v] += a * b[v]`.
#[inline(always)]
fn multiply_add<I: Isa, const V: usize>(isa: I, acc: &mut [I::F32; V], a: I::F32, b: &[I::F32; V]) {
    for (acc, b) in acc.iter_mut().zip(b) {
        *acc = isa.fma(a, *b, *acc);
    }
}
