//! Scales that minimise the weighted squared error of a block, for formats that leave the choice to the encoder.
//!
//! A scale is tried at several stretches of the value range; for each, values go to their nearest levels and the
//! best scale for *those* levels follows in closed form. The best of all tries wins.

use super::codebook::NONLINEAR;
use super::encode::peak;

/// Nearest integer of a value well below 2^22, ties to even. Vectorises on every target.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    const MAGIC: f32 = 1.5 * (1u32 << 23) as f32;
    (x + MAGIC) - MAGIC
}

#[inline(always)]
pub(super) fn level(x: f32, low: f32, high: f32) -> f32 {
    nearest(x.max(low).min(high))
}

/// `scale` and `min`, neither negative, such that `x = scale * q - min` for levels `q` from 0 to `top`.
pub(super) fn affine<const N: usize>(x: &[f32; N], w: &[f32; N], top: f32) -> (f32, f32) {
    let (low, high) = x.iter().fold((0.0f32, f32::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
    if high <= low {
        return (0.0, -low);
    }
    let fixed = Fixed::of(x, w);
    let mut best = (f32::INFINITY, 0.0, 0.0);
    for step in 0..=20 {
        let stretch = (top - 1.0 + step as f32 * 0.1) / (high - low);
        let fit = Sums::of(x, w, |x| level((x - low) * stretch, 0.0, top)).affine(&fixed);
        best = if fit.0 < best.0 { fit } else { best };
    }
    (best.1, best.2)
}

/// `scale`, of either sign, such that `x = scale * q` for levels `q` from `low` to `high`.
pub(super) fn symmetric<const N: usize>(x: &[f32; N], w: &[f32; N], low: f32, high: f32) -> f32 {
    let peak = peak(x);
    if peak == 0.0 {
        return 0.0;
    }
    let tries = (-9..=9).flat_map(|step| [low + step as f32 * 0.1, high + step as f32 * 0.1]);
    best_scale(tries.map(|end| Sums::of(x, w, |x| level(x / peak * end, low, high))))
}

/// `scale`, of either sign, such that `x = scale * q` for values `q` of the nonlinear table.
pub(super) fn nonlinear(x: &[f32; 32], w: &[f32; 32]) -> f32 {
    let peak = peak(x);
    if peak == 0.0 {
        return 0.0;
    }
    let tries = (-8..=8).flat_map(|step| [step as f32 * 2.0 - 127.0, step as f32 * 2.0 + 113.0]);
    best_scale(
        tries.map(|end| {
            Sums::of(x, w, |x| f32::from(NONLINEAR[usize::from(nearest_nonlinear(x / peak * end))]))
        }),
    )
}

/// The code whose value is nearest to `x`: the number of midpoints below it.
#[inline(always)]
pub(super) fn nearest_nonlinear(x: f32) -> u8 {
    let mut code = 0;
    for pair in NONLINEAR.windows(2) {
        code += u8::from(x * 2.0 > f32::from(pair[0]) + f32::from(pair[1]));
    }
    code
}

fn best_scale(tries: impl Iterator<Item = Sums>) -> f32 {
    let mut best = (0.0, 0.0);
    for sums in tries {
        let scale = sums.qx / sums.qq;
        let gain = sums.qx * scale;
        best = if gain > best.0 { (gain, scale) } else { best };
    }
    best.1
}

/// Weighted sums over a block that do not depend on the levels tried: of 1, x, x².
struct Fixed {
    one: f32,
    x: f32,
    xx: f32,
}

impl Fixed {
    fn of<const N: usize>(x: &[f32; N], w: &[f32; N]) -> Self {
        let [one, x, xx] = sums(x, w, |x, w| [w, w * x, w * x * x]);
        Self { one, x, xx }
    }
}

/// Weighted sums over a block for the levels tried: of q, q², qx.
struct Sums {
    q: f32,
    qq: f32,
    qx: f32,
}

impl Sums {
    #[inline(always)]
    fn of<const N: usize>(x: &[f32; N], w: &[f32; N], quantize: impl Fn(f32) -> f32) -> Self {
        let [q, qq, qx] = sums(x, w, |x, w| {
            let q = quantize(x);
            [w * q, w * q * q, w * q * x]
        });
        Self { q, qq, qx }
    }

    /// Error, scale and min of the least-squares line `x = scale * q - min` with `min >= 0`.
    fn affine(&self, fixed: &Fixed) -> (f32, f32, f32) {
        let determinant = fixed.one * self.qq - self.q * self.q;
        let scale = (fixed.one * self.qx - self.q * fixed.x) / determinant;
        let min = (self.q * self.qx - self.qq * fixed.x) / determinant;
        let (scale, min) =
            if determinant > 0.0 && min >= 0.0 { (scale, min) } else { (self.qx / self.qq, 0.0) };
        if !(scale >= 0.0 && scale.is_finite() && min.is_finite()) {
            return (f32::INFINITY, 0.0, 0.0);
        }
        let cross = scale * self.qx - min * fixed.x;
        let square = scale * scale * self.qq - 2.0 * scale * min * self.q + min * min * fixed.one;
        (fixed.xx - 2.0 * cross + square, scale, min)
    }
}

/// Sums of `K` terms of each value and weight, eight lanes at a time. `N` is a multiple of eight.
#[inline(always)]
pub(super) fn sums<const N: usize, const K: usize>(
    x: &[f32; N],
    w: &[f32; N],
    terms: impl Fn(f32, f32) -> [f32; K],
) -> [f32; K] {
    let mut lanes = [[0.0f32; 8]; K];
    for (x, w) in x.as_chunks::<8>().0.iter().zip(w.as_chunks::<8>().0) {
        for lane in 0..8 {
            let terms = terms(x[lane], w[lane]);
            for k in 0..K {
                lanes[k][lane] += terms[k];
            }
        }
    }
    lanes.map(|lanes| lanes.iter().sum())
}
