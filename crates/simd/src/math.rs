//! Transcendental functions over vectors, made of [`Isa`] operations.
//!
//! Error bounds are against the real value over the whole range and hold on every instruction set. NaN gives NaN.

use crate::Isa;

/// `e^x` within 2 ULP; overflows to infinity, underflows through subnormals to zero.
#[inline(always)]
pub fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Past these the result is infinity or zero whatever follows; the operand order keeps NaN.
    let x = isa.max(isa.splat(-105.0), isa.min(isa.splat(89.0), x));
    let n = isa.to_i32(isa.mul(x, isa.splat(std::f32::consts::LOG2_E)));
    let nf = isa.to_f32(n);
    // ln 2 in two parts, so that the reduction is exact to well below an ULP.
    let r = isa.fma(nf, isa.splat(-0.693_359_4), x);
    let r = isa.fma(nf, isa.splat(2.121_944_4e-4), r);
    let mut p = isa.splat(1.987_569_2e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = isa.fma(p, r, isa.splat(c));
    }
    let y = isa.add(isa.fma(p, isa.mul(r, r), r), isa.splat(1.0));
    // 2^n in two factors, each of them a normal number.
    let half = isa.sar_i32(n, 1);
    let rest = isa.sub_i32(n, half);
    isa.mul(isa.mul(y, pow2(isa, half)), pow2(isa, rest))
}

/// `2^n` for `-126 <= n <= 127`.
#[inline(always)]
fn pow2<I: Isa>(isa: I, n: I::I32) -> I::F32 {
    isa.float_of_bits(isa.shl_i32(isa.add_i32(n, isa.splat_i32(127)), 23))
}

/// `1 / (1 + e^-x)` within 4 ULP where the result is a normal number.
#[inline(always)]
pub fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    isa.div(one, isa.add(one, exp(isa, isa.neg(x))))
}

/// Hyperbolic tangent within 6 ULP.
#[inline(always)]
pub fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (one, two) = (isa.splat(1.0), isa.splat(2.0));
    let a = isa.abs(x);
    // Away from zero: 1 - 2 / (e^2|x| + 1).
    let far = isa.sub(one, isa.div(two, isa.add(exp(isa, isa.mul(two, a)), one)));
    // Near zero: x + x^3 P(x^2), which keeps the relative error.
    let s = isa.mul(a, a);
    let mut p = isa.splat(-5.704_988_7e-3);
    for c in [2.063_909e-2, -5.373_971_6e-2, 0.133_314_42, -0.333_332_8] {
        p = isa.fma(p, s, isa.splat(c));
    }
    let near = isa.fma(isa.mul(p, s), a, a);
    let y = isa.select(isa.lt(a, isa.splat(0.625)), near, far);
    let y = isa.select(isa.lt(x, isa.zero()), isa.neg(y), y);
    isa.select(isa.eq(x, x), y, x)
}

/// The error function within 4 ULP.
#[inline(always)]
pub fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let a = isa.min(isa.splat(4.0), isa.abs(x));
    // Away from zero: 1 - e^P(|x|), P being the logarithm of the complement.
    let mut p = isa.splat(1.863_792_1e-4);
    for c in [-2.947_658_5e-3, 2.183_806_5e-2, -0.103_106_76, -0.638_144_85, -1.127_089_1, -3.415_228_4e-4] {
        p = isa.fma(p, a, isa.splat(c));
    }
    let far = isa.sub(isa.splat(1.0), exp(isa, p));
    // Near zero: x + x Q(x^2), which keeps the relative error.
    let s = isa.mul(a, a);
    let mut q = isa.splat(7.806_903e-5);
    for c in [-7.997_853e-4, 5.187_162e-3, -2.685_334_7e-2, 0.112_835_79, -0.376_126_26, 0.128_379_17] {
        q = isa.fma(q, s, isa.splat(c));
    }
    let y = isa.select(isa.lt(a, isa.splat(1.0)), isa.fma(q, a, a), far);
    let y = isa.select(isa.lt(x, isa.zero()), isa.neg(y), y);
    isa.select(isa.eq(x, x), y, x)
}

/// Where the normal distribution counts as 0 or 1: its tails are below 2e-8.
const GELU_END: f32 = 5.5;

/// The normal distribution less a half, over `x`, as a polynomial of `2 (x / GELU_END)^2 - 1`; highest power first.
const GELU: [f32; 16] = [
    -2.441_569e-4,
    6.333_662_3e-4,
    -5.003_369e-4,
    7.140_419e-4,
    -2.461_856_7e-3,
    4.629_877_4e-3,
    -6.786_491_3e-3,
    1.022_234_5e-2,
    -1.501_318_2e-2,
    2.036_655_3e-2,
    -2.604_511e-2,
    3.206_988_8e-2,
    -3.879_311_3e-2,
    4.773_765_8e-2,
    -6.417_233e-2,
    0.128_551_93,
];

/// `x (1 + erf(x / sqrt 2)) / 2`; absolute error below `4e-7 max(1, |x|)`.
#[inline(always)]
pub fn gelu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    gelu_each(isa, [x])[0]
}

/// [`gelu`] of several vectors, one step after the other for all of them: each is a long chain of dependent steps.
#[inline(always)]
pub fn gelu_each<I: Isa, const N: usize>(isa: I, x: [I::F32; N]) -> [I::F32; N] {
    let (mut near, mut u, mut p) = (x, x, [isa.splat(GELU[0]); N]);
    let scale = isa.splat(2.0 / (GELU_END * GELU_END));
    for (near, u) in near.iter_mut().zip(&mut u) {
        // The operand order keeps NaN.
        *near = isa.max(isa.splat(-GELU_END), isa.min(isa.splat(GELU_END), *near));
        *u = isa.fma(isa.mul(*near, *near), scale, isa.splat(-1.0));
    }
    for &c in &GELU[1..] {
        for (p, u) in p.iter_mut().zip(u) {
            *p = isa.fma(*p, u, isa.splat(c));
        }
    }
    let mut y = x;
    for (i, y) in y.iter_mut().enumerate() {
        let share = isa.fma(p[i], near[i], isa.splat(0.5));
        *y = isa.mul(*y, isa.max(isa.zero(), isa.min(isa.splat(1.0), share)));
    }
    y
}
