//! Loops over rows that several operations share: maps and sums.

use kinglet_simd::{Isa, MAX_LANES};

/// `y = f(x)` on each lane.
pub(super) trait Map1: Copy + Send + Sync {
    /// Implementations are `#[inline(always)]`.
    fn apply<I: Isa>(self, isa: I, x: I::F32) -> I::F32;
}

/// `y = f(a, b)` on each lane.
pub(crate) trait Map2: Copy + Send + Sync {
    /// Implementations are `#[inline(always)]`.
    fn apply<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32;
}

/// `a + b`.
#[derive(Clone, Copy)]
pub(crate) struct Add;

impl Map2 for Add {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32 {
        isa.add(a, b)
    }
}

/// The larger of both.
#[derive(Clone, Copy)]
pub(crate) struct Max;

impl Map2 for Max {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32 {
        isa.max(a, b)
    }
}

/// `out[i] = f(x[i])`, as far as both go.
#[inline(always)]
pub(super) fn map1<I: Isa>(isa: I, f: impl Map1, x: &[f32], out: &mut [f32]) {
    let n = x.len().min(out.len());
    let (x, out) = (x[..n].chunks_exact(I::LANES), &mut out[..n]);
    let tail = x.remainder();
    let mut out = out.chunks_exact_mut(I::LANES);
    for (x, out) in x.zip(&mut out) {
        isa.store(f.apply(isa, isa.load(x)), out);
    }
    isa.store_part(f.apply(isa, isa.load_part(tail)), out.into_remainder());
}

/// `out[i] = f(a[i], b[i])`, as far as all go.
#[inline(always)]
pub(super) fn map2<I: Isa>(isa: I, f: impl Map2, a: &[f32], b: &[f32], out: &mut [f32]) {
    let n = a.len().min(b.len()).min(out.len());
    let (a, b, out) = (a[..n].chunks_exact(I::LANES), b[..n].chunks_exact(I::LANES), &mut out[..n]);
    let tails = (a.remainder(), b.remainder());
    let mut out = out.chunks_exact_mut(I::LANES);
    for ((a, b), out) in a.zip(b).zip(&mut out) {
        isa.store(f.apply(isa, isa.load(a), isa.load(b)), out);
    }
    isa.store_part(f.apply(isa, isa.load_part(tails.0), isa.load_part(tails.1)), out.into_remainder());
}

/// The sum of `(x - shift)^2`, in `4 * LANES` partial sums: relative error about `1e-7 * sqrt(n / 64)`.
#[inline(always)]
pub(crate) fn sum_squares<I: Isa>(isa: I, x: &[f32], shift: f32) -> f32 {
    let mut sums = [isa.zero(); 4];
    let shift_v = isa.splat(shift);
    let blocks = x.chunks_exact(4 * I::LANES);
    let tail = blocks.remainder();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block.chunks_exact(I::LANES)) {
            let d = isa.sub(isa.load(x), shift_v);
            *sum = isa.fma(d, d, *sum);
        }
    }
    let rest: f32 = tail.iter().map(|x| (x - shift) * (x - shift)).sum();
    total(isa, sums) + rest
}

/// The sum of `x`, in `4 * LANES` partial sums.
#[inline(always)]
pub(super) fn sum<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let mut sums = [isa.zero(); 4];
    let blocks = x.chunks_exact(4 * I::LANES);
    let tail = blocks.remainder();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block.chunks_exact(I::LANES)) {
            *sum = isa.add(*sum, isa.load(x));
        }
    }
    total(isa, sums) + tail.iter().sum::<f32>()
}

#[inline(always)]
fn total<I: Isa>(isa: I, [a, b, c, d]: [I::F32; 4]) -> f32 {
    isa.reduce_sum(isa.add(isa.add(a, b), isa.add(c, d)))
}

/// `f` over all lanes of each vector: that of vector `i` in lane `i`. Vectors behind the lanes are not looked at.
#[inline(always)]
pub(crate) fn fold_each<I: Isa>(isa: I, f: impl Map2, each: &[I::F32; MAX_LANES]) -> I::F32 {
    let (mut fours, apart) = ([isa.zero(); MAX_LANES / 4], I::LANES / 4);
    for i in 0..apart {
        fours[i] = fold_four(isa, f, [each[i], each[i + apart], each[i + 2 * apart], each[i + 3 * apart]]);
    }
    fold_fours(isa, f, fours)
}

/// The first part of [`fold_each`]: vectors `LANES / 4` apart, the first of them `i`, become one.
#[inline(always)]
pub(crate) fn fold_four<I: Isa>(isa: I, f: impl Map2, [a, b, c, d]: [I::F32; 4]) -> I::F32 {
    let (even, odd) = (isa.zip(a, c), isa.zip(b, d));
    let all = isa.zip(f.apply(isa, even.0, even.1), f.apply(isa, odd.0, odd.1));
    f.apply(isa, all.0, all.1)
}

/// The second part of [`fold_each`]: `LANES / 4` such vectors become one.
#[inline(always)]
pub(crate) fn fold_fours<I: Isa>(isa: I, f: impl Map2, mut fours: [I::F32; MAX_LANES / 4]) -> I::F32 {
    let mut left = I::LANES / 8;
    while left > 0 {
        for i in 0..left {
            let (low, high) = isa.zip(fours[i], fours[i + left]);
            fours[i] = f.apply(isa, low, high);
        }
        left /= 2;
    }
    fours[0]
}

/// Coefficients of `2^f` for `-1/2 <= f <= 1/2`, fitted for the least relative error; highest power first.
#[allow(clippy::approx_constant, reason = "fitted, and near ln 2 for that very reason")]
const EXP2: [f32; 6] = [0.001_326_472_7, 0.009_671_513, 0.055_507_336, 0.240_222_42, 0.693_147, 1.0];

/// `2^x` within 2 ULP for `-126 <= x <= 0`; what is below gives `2^-126`.
#[inline(always)]
pub(crate) fn exp2<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let x = isa.max(isa.splat(-126.0), x);
    let n = isa.to_i32(x);
    let f = isa.sub(x, isa.to_f32(n));
    let mut p = isa.splat(EXP2[0]);
    for c in EXP2[1..].iter().copied() {
        p = isa.fma(p, f, isa.splat(c));
    }
    isa.float_of_bits(isa.add_i32(isa.bits_of(p), isa.shl_i32(n, 23)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_simd::{Kernel, Level, dispatch};

    struct Exp2<'a>(&'a [f32], &'a mut [f32]);

    impl Kernel for Exp2<'_> {
        type Out = ();

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            for (x, out) in self.0.chunks(I::LANES).zip(self.1.chunks_mut(I::LANES)) {
                isa.store_part(exp2(isa, isa.load_part(x)), out);
            }
        }
    }

    #[test]
    fn powers_are_within_two_units_in_the_last_place() {
        let x: Vec<f32> = (0..=126 * 512).map(|i| -i as f32 / 512.0).chain([-200.0, f32::MIN]).collect();
        for level in Level::available() {
            let mut found = vec![0.0; x.len()];
            dispatch(level, Exp2(&x, &mut found));
            for (&x, &found) in x.iter().zip(&found) {
                let expected = f64::from(x.max(-126.0)).exp2();
                let ulp = (f64::from(found) - expected).abs() / expected / f64::from(f32::EPSILON);
                assert!(ulp <= 2.0, "{level}: 2^{x} is {found}, off by {ulp} ULP");
            }
        }
    }
}
