//! The running softmax of some rows.

use kinglet_simd::Isa;

use crate::kv::GROUP;
use crate::ops::vec::exp2;

/// The maximum of no scores: far below any, but finite, so that differences are.
pub(super) const NONE: f32 = f32::MIN;

/// What rows have seen so far: weighted values, largest score (in units of ln 2), sum of weights `2^(score - max)`.
pub(super) struct State<'a> {
    /// `[rows][width]`.
    values: &'a mut [f32],
    width: usize,
    /// Padded to whole vectors, as `total`.
    max: &'a mut [f32],
    total: &'a mut [f32],
}

impl<'a> State<'a> {
    /// Floats that it takes.
    pub(super) fn len(rows: usize, width: usize) -> usize {
        rows * width + 2 * rows.next_multiple_of(GROUP)
    }

    /// A view of what `memory`, of at least `len` floats, holds.
    pub(super) fn new(memory: &'a mut [f32], rows: usize, width: usize) -> Self {
        let padded = rows.next_multiple_of(GROUP);
        let (values, rest) = memory.split_at_mut(rows * width);
        let (max, rest) = rest.split_at_mut(padded);
        Self { values, width, max, total: &mut rest[..padded] }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.values.fill(0.0);
        self.max.fill(NONE);
        self.total.fill(0.0);
    }

    /// Takes in what `part` has seen. Spoils `part` and `keep`, which has room for a number a row, padded.
    #[inline(always)]
    pub(super) fn merge<I: Isa>(&mut self, isa: I, part: State<'_>, keep: &mut [f32]) {
        for r in (0..self.max.len()).step_by(I::LANES) {
            let (old, new) = (isa.load(&self.max[r..]), isa.load(&part.max[r..]));
            let both = isa.max(old, new);
            let (old, new) = (exp2(isa, isa.sub(old, both)), exp2(isa, isa.sub(new, both)));
            let kept = isa.mul(isa.load(&self.total[r..]), old);
            isa.store(isa.fma(isa.load(&part.total[r..]), new, kept), &mut self.total[r..]);
            isa.store(both, &mut self.max[r..]);
            isa.store(new, &mut part.max[r..]);
            isa.store(old, &mut keep[r..]);
        }
        let rows = self.values.chunks_exact_mut(self.width).zip(part.values.chunks_exact(self.width));
        for ((values, more), (keep, factor)) in rows.zip(keep.iter().zip(part.max.iter())) {
            let (keep, factor) = (isa.splat(*keep), isa.splat(*factor));
            for (value, more) in values.chunks_exact_mut(I::LANES).zip(more.chunks_exact(I::LANES)) {
                let kept = isa.mul(isa.load(value), keep);
                isa.store(isa.fma(isa.load(more), factor, kept), value);
            }
        }
    }

    /// The parts of a state that is being filled: weighted values, largest scores, sums of weights.
    pub(super) fn parts(&mut self) -> (&mut [f32], &mut [f32], &mut [f32]) {
        (self.values, self.max, self.total)
    }

    /// The result of row `r`: its mean value, into `out`.
    #[inline(always)]
    pub(super) fn finish<I: Isa>(&self, isa: I, r: usize, out: &mut [f32]) {
        let inverse = isa.splat(1.0 / self.total[r]);
        let values = self.values[r * self.width..(r + 1) * self.width].chunks_exact(I::LANES);
        for (value, out) in values.zip(out.chunks_mut(I::LANES)) {
            isa.store_part(isa.mul(isa.load(value), inverse), out);
        }
    }
}
