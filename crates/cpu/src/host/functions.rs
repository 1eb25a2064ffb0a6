//! Functions of one and of two elements, in f64 and in integers.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use kinglet_graph::ops::{Fun, Fun2};
use kinglet_tensor::DType;

/// Whether integers are computed as such.
pub(super) fn exact(fun: Fun) -> bool {
    matches!(fun, Fun::Abs | Fun::Neg | Fun::Sign | Fun::Not | Fun::BitwiseNot | Fun::Relu)
}

pub(super) fn of_int(fun: Fun, n: i64, dtype: DType) -> i64 {
    match fun {
        Fun::Abs if dtype == DType::U64 => n,
        Fun::Abs => n.wrapping_abs(),
        Fun::Neg => n.wrapping_neg(),
        Fun::Sign if dtype == DType::U64 => i64::from(n != 0),
        Fun::Sign => n.signum(),
        Fun::Not => i64::from(n == 0),
        Fun::Relu if dtype != DType::U64 => n.max(0),
        Fun::BitwiseNot => !n,
        _ => n,
    }
}

pub(super) fn of_float(fun: Fun, x: f64) -> f64 {
    match fun {
        Fun::Abs => x.abs(),
        Fun::Neg => -x,
        Fun::Sign if x == 0.0 || x.is_nan() => x,
        Fun::Sign => x.signum(),
        Fun::Ceil => x.ceil(),
        Fun::Floor => x.floor(),
        Fun::Round => x.round_ties_even(),
        Fun::Sqrt => x.sqrt(),
        Fun::Reciprocal => 1.0 / x,
        Fun::Exp => x.exp(),
        Fun::Log => x.ln(),
        Fun::Sin => x.sin(),
        Fun::Cos => x.cos(),
        Fun::Tan => x.tan(),
        Fun::Asin => x.asin(),
        Fun::Acos => x.acos(),
        Fun::Atan => x.atan(),
        Fun::Sinh => x.sinh(),
        Fun::Cosh => x.cosh(),
        Fun::Tanh => x.tanh(),
        Fun::Asinh => x.asinh(),
        Fun::Acosh => x.acosh(),
        Fun::Atanh => x.atanh(),
        Fun::Erf => erf(x),
        Fun::Not => truth(x == 0.0),
        Fun::IsNan => truth(x.is_nan()),
        Fun::IsInf { negative, positive } => {
            truth((positive && x == f64::INFINITY) || (negative && x == f64::NEG_INFINITY))
        }
        activation => activated(activation, x),
    }
}

/// Functions that networks bend values with; `x` for any other.
fn activated(fun: Fun, x: f64) -> f64 {
    let wide = |x: f32| f64::from(x);
    match fun {
        Fun::Relu if x < 0.0 => 0.0,
        Fun::Sigmoid => sigmoid(x),
        Fun::Softplus => softplus(x),
        Fun::Softsign => x / (1.0 + x.abs()),
        Fun::Mish => x * softplus(x).tanh(),
        Fun::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Fun::Swish(alpha) => x * sigmoid(wide(alpha) * x),
        Fun::LeakyRelu(slope) if x < 0.0 => wide(slope) * x,
        Fun::Elu(alpha) if x < 0.0 => wide(alpha) * x.exp_m1(),
        Fun::Celu(alpha) => x.max(0.0) + (wide(alpha) * (x / wide(alpha)).exp_m1()).min(0.0),
        Fun::Selu { gamma, .. } if x > 0.0 => wide(gamma) * x,
        Fun::Selu { alpha, gamma } => wide(gamma) * (wide(alpha) * x.exp_m1()),
        Fun::HardSigmoid { alpha, beta } => (wide(alpha) * x + wide(beta)).clamp(0.0, 1.0),
        Fun::ThresholdedRelu(alpha) if x > wide(alpha) => x,
        Fun::ThresholdedRelu(_) => 0.0,
        Fun::Shrink { lambda, bias } => shrink(x, wide(lambda), wide(bias)),
        Fun::Gelu { tanh: false } => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
        Fun::Gelu { tanh: true } => 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
        _ => x,
    }
}

fn truth(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn shrink(x: f64, lambda: f64, bias: f64) -> f64 {
    if x < -lambda {
        x + bias
    } else if x > lambda {
        x - bias
    } else {
        0.0
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The error function by its series near zero and its continued fraction beyond; absolute error below 1e-12.
pub(super) fn erf(x: f64) -> f64 {
    let size = x.abs();
    if x.is_nan() {
        return x;
    }
    if size >= 6.5 {
        return 1f64.copysign(x);
    }
    if size < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 2.0 / PI.sqrt() * sum;
    }
    let fraction = (1..=60).rev().fold(size, |tail, n| size + f64::from(n) / 2.0 / tail);
    (1.0 - (-x * x).exp() / (PI.sqrt() * fraction)).copysign(x)
}

pub(super) fn of_floats(fun: Fun2, a: f64, b: f64) -> f64 {
    let unordered = a.is_nan() || b.is_nan();
    match fun {
        Fun2::Add => a + b,
        Fun2::Sub => a - b,
        Fun2::Mul => a * b,
        Fun2::Div => a / b,
        Fun2::Pow => a.powf(b),
        Fun2::Mod => modulo(a, b),
        Fun2::Fmod => a % b,
        Fun2::Min | Fun2::Max if unordered => f64::NAN,
        Fun2::Min => a.min(b),
        Fun2::Max => a.max(b),
        Fun2::PRelu if a < 0.0 => a * b,
        Fun2::PRelu => a,
        Fun2::Equal => truth(a == b),
        Fun2::Less => truth(a < b),
        Fun2::LessOrEqual => truth(a <= b),
        Fun2::Greater => truth(a > b),
        Fun2::GreaterOrEqual => truth(a >= b),
        Fun2::And => truth(a != 0.0 && b != 0.0),
        Fun2::Or => truth(a != 0.0 || b != 0.0),
        Fun2::Xor => truth((a != 0.0) != (b != 0.0)),
        Fun2::BitAnd | Fun2::BitOr | Fun2::BitXor | Fun2::ShiftLeft | Fun2::ShiftRight => f64::NAN,
    }
}

/// The remainder with the sign of the divisor, also where it is 0.
fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        0f64.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}

/// Integers of one type; `wide` ones are 64 bits without sign. None for a division by zero.
pub(super) fn of_ints(fun: Fun2, a: i64, b: i64, wide: bool, width: i64) -> Option<i64> {
    let order = if wide { (a as u64).cmp(&(b as u64)) } else { a.cmp(&b) };
    Some(match fun {
        Fun2::Add => a.wrapping_add(b),
        Fun2::Sub => a.wrapping_sub(b),
        Fun2::Mul => a.wrapping_mul(b),
        Fun2::Div | Fun2::Mod | Fun2::Fmod if b == 0 => return None,
        Fun2::Div if wide => (a as u64 / b as u64) as i64,
        Fun2::Div => a.wrapping_div(b),
        Fun2::Mod | Fun2::Fmod if wide => (a as u64 % b as u64) as i64,
        Fun2::Mod => {
            let rest = a.wrapping_rem(b);
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        }
        Fun2::Fmod => a.wrapping_rem(b),
        Fun2::Pow => power(a, b),
        Fun2::Min if order.is_le() => a,
        Fun2::Min => b,
        Fun2::Max if order.is_ge() => a,
        Fun2::Max => b,
        Fun2::PRelu if a < 0 && !wide => a.wrapping_mul(b),
        Fun2::PRelu => a,
        Fun2::Equal => i64::from(order.is_eq()),
        Fun2::Less => i64::from(order.is_lt()),
        Fun2::LessOrEqual => i64::from(order.is_le()),
        Fun2::Greater => i64::from(order.is_gt()),
        Fun2::GreaterOrEqual => i64::from(order.is_ge()),
        bits => of_bits(bits, a, b, wide, width),
    })
}

/// Truth values, and bits of integers of so many. To the right, copies of the sign follow.
fn of_bits(fun: Fun2, a: i64, b: i64, wide: bool, width: i64) -> i64 {
    let within = (0..width).contains(&b);
    match fun {
        Fun2::And => i64::from(a != 0 && b != 0),
        Fun2::Or => i64::from(a != 0 || b != 0),
        Fun2::Xor => i64::from((a != 0) != (b != 0)),
        Fun2::BitAnd => a & b,
        Fun2::BitOr => a | b,
        Fun2::BitXor => a ^ b,
        Fun2::ShiftLeft if within => a << b,
        Fun2::ShiftRight if within && wide => ((a as u64) >> b) as i64,
        Fun2::ShiftRight if within => a >> b,
        Fun2::ShiftRight if a < 0 && !wide => -1,
        _ => 0,
    }
}

fn power(base: i64, exponent: i64) -> i64 {
    match (base, exponent) {
        (1, _) => 1,
        (-1, n) if n < 0 => {
            if n % 2 == 0 {
                1
            } else {
                -1
            }
        }
        (_, n) if n < 0 => 0,
        (base, n) => base.wrapping_pow(n.min(u32::MAX.into()) as u32),
    }
}
