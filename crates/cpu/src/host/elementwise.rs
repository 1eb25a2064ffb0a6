//! `Unary`, `Binary`, `Where`, `Clip`, `Cast`, `BitCast`, `Dropout`.

use kinglet_graph::ops::{
    Binary, BitCast, Cast, CastLike, Clip, Dropout, Fun, Fun2, ScaleRound, Unary, Where,
};
use kinglet_tensor::DType;

use super::numbers::{from_f64, from_i64, small_float, to_f64};
use super::{Call, HostOp, Outcome, Outs, View, broadcast_strides, room, shape_of, store, store_ints, walk};
use crate::value::Array;

impl HostOp for Unary {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        if x.dtype.is_integer() && exact(self.0) {
            let values: Vec<i64> = x.i64s()?.iter().map(|n| of_int(self.0, *n, x.dtype)).collect();
            return store_ints(outs, 0, &values);
        }
        let values: Vec<f64> = x.f64s()?.into_iter().map(|x| of_float(self.0, x)).collect();
        store(outs, 0, &values)
    }
}

/// Whether integers are computed as such.
fn exact(fun: Fun) -> bool {
    matches!(fun, Fun::Abs | Fun::Neg | Fun::Sign | Fun::Not | Fun::BitwiseNot | Fun::Relu)
}

fn of_int(fun: Fun, n: i64, dtype: DType) -> i64 {
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
    let wide = |x: f32| f64::from(x);
    let truth = |yes: bool| f64::from(u8::from(yes));
    match fun {
        Fun::Abs => x.abs(),
        Fun::Neg => -x,
        Fun::Sign => {
            if x == 0.0 || x.is_nan() {
                x
            } else {
                x.signum()
            }
        }
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
        Fun::BitwiseNot => x,
        Fun::IsNan => truth(x.is_nan()),
        Fun::IsInf { negative, positive } => {
            truth((positive && x == f64::INFINITY) || (negative && x == f64::NEG_INFINITY))
        }
        Fun::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Fun::Sigmoid => sigmoid(x),
        Fun::Softplus => softplus(x),
        Fun::Softsign => x / (1.0 + x.abs()),
        Fun::Mish => x * softplus(x).tanh(),
        Fun::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Fun::Swish(alpha) => x * sigmoid(wide(alpha) * x),
        Fun::LeakyRelu(slope) => {
            if x < 0.0 {
                wide(slope) * x
            } else {
                x
            }
        }
        Fun::Elu(alpha) => {
            if x < 0.0 {
                wide(alpha) * x.exp_m1()
            } else {
                x
            }
        }
        Fun::Celu(alpha) => x.max(0.0) + (wide(alpha) * (x / wide(alpha)).exp_m1()).min(0.0),
        Fun::Selu { alpha, gamma } => wide(gamma) * if x > 0.0 { x } else { wide(alpha) * x.exp_m1() },
        Fun::HardSigmoid { alpha, beta } => (wide(alpha) * x + wide(beta)).clamp(0.0, 1.0),
        Fun::ThresholdedRelu(alpha) => {
            if x > wide(alpha) {
                x
            } else {
                0.0
            }
        }
        Fun::Shrink { lambda, bias } => shrink(x, wide(lambda), wide(bias)),
        Fun::Gelu { tanh: false } => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Fun::Gelu { tanh: true } => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
    }
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
        return 2.0 / std::f64::consts::PI.sqrt() * sum;
    }
    let fraction = (1..=60).rev().fold(size, |tail, n| size + f64::from(n) / 2.0 / tail);
    (1.0 - (-x * x).exp() / (std::f64::consts::PI.sqrt() * fraction)).copysign(x)
}

impl HostOp for Binary {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (a, b) = (call.view(0)?, call.view(1)?);
        let shape = shape_of(outs, 0)?;
        let steps = [broadcast_strides(a.shape, &shape)?, broadcast_strides(b.shape, &shape)?];
        let mut places = Vec::with_capacity(shape.iter().product());
        walk(&shape, [&steps[0], &steps[1]], |at| places.push(at));
        if a.dtype == DType::Str {
            return texts(self.0, a, b, &places, outs);
        }
        if a.dtype.is_integer() && b.dtype.is_integer() {
            return ints(self.0, a, b, &places, outs);
        }
        let single = a.dtype == DType::F32;
        let (x, y) = (a.f64s()?, b.f64s()?);
        let values: Vec<f64> = places.iter().map(|&[i, j]| of_floats(self.0, x[i], y[j], single)).collect();
        store(outs, 0, &values)
    }
}

fn texts(fun: Fun2, a: View<'_>, b: View<'_>, places: &[[usize; 2]], outs: &mut dyn Outs) -> Outcome {
    if fun != Fun2::Equal {
        return Err(format!("{fun:?} of texts"));
    }
    let values: Vec<i64> = places.iter().map(|&[i, j]| i64::from(a.texts[i] == b.texts[j])).collect();
    store_ints(outs, 0, &values)
}

fn of_floats(fun: Fun2, a: f64, b: f64, single: bool) -> f64 {
    let truth = |yes: bool| f64::from(u8::from(yes));
    match fun {
        Fun2::Add => a + b,
        Fun2::Sub => a - b,
        Fun2::Mul => a * b,
        Fun2::Div => a / b,
        Fun2::Pow => a.powf(b),
        Fun2::Mod if single => f64::from(modulo(a as f32, b as f32)),
        Fun2::Mod => a - (a / b).floor() * b,
        Fun2::Fmod => a % b,
        Fun2::Min => {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else {
                a.min(b)
            }
        }
        Fun2::Max => {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else {
                a.max(b)
            }
        }
        Fun2::PRelu => {
            if a < 0.0 {
                a * b
            } else {
                a
            }
        }
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

fn ints(fun: Fun2, a: View<'_>, b: View<'_>, places: &[[usize; 2]], outs: &mut dyn Outs) -> Outcome {
    let (x, y) = (a.i64s()?, b.i64s()?);
    let wide = a.dtype == DType::U64;
    let width = 8 * a.width() as i64;
    let mut values = Vec::with_capacity(places.len());
    for &[i, j] in places {
        values.push(of_ints(fun, x[i], y[j], wide, width).ok_or("division by zero")?);
    }
    store_ints(outs, 0, &values)
}

/// Integers of one type; `wide` ones are 64 bits without sign.
fn of_ints(fun: Fun2, a: i64, b: i64, wide: bool, width: i64) -> Option<i64> {
    let order = if wide { (a as u64).cmp(&(b as u64)) } else { a.cmp(&b) };
    Some(match fun {
        Fun2::Add => a.wrapping_add(b),
        Fun2::Sub => a.wrapping_sub(b),
        Fun2::Mul => a.wrapping_mul(b),
        Fun2::Div if wide => (a as u64).checked_div(b as u64)? as i64,
        Fun2::Div => {
            if b == 0 {
                return None;
            } else {
                a.wrapping_div(b)
            }
        }
        Fun2::Mod | Fun2::Fmod if wide => (a as u64).checked_rem(b as u64)? as i64,
        Fun2::Mod => {
            let rest = if b == 0 { return None } else { a.wrapping_rem(b) };
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        }
        Fun2::Fmod => {
            if b == 0 {
                return None;
            } else {
                a.wrapping_rem(b)
            }
        }
        Fun2::Pow => power(a, b),
        Fun2::Min => {
            if order.is_le() {
                a
            } else {
                b
            }
        }
        Fun2::Max => {
            if order.is_ge() {
                a
            } else {
                b
            }
        }
        Fun2::PRelu => {
            if a < 0 && !wide {
                a.wrapping_mul(b)
            } else {
                a
            }
        }
        Fun2::And => i64::from(a != 0 && b != 0),
        Fun2::Or => i64::from(a != 0 || b != 0),
        Fun2::Xor => i64::from((a != 0) != (b != 0)),
        Fun2::BitAnd => a & b,
        Fun2::BitOr => a | b,
        Fun2::BitXor => a ^ b,
        Fun2::ShiftLeft => {
            if (0..width).contains(&b) {
                a << b
            } else {
                0
            }
        }
        Fun2::ShiftRight => {
            if (0..width).contains(&b) {
                ((a as u64) >> b) as i64
            } else {
                0
            }
        }
        Fun2::Equal => i64::from(order.is_eq()),
        Fun2::Less => i64::from(order.is_lt()),
        Fun2::LessOrEqual => i64::from(order.is_le()),
        Fun2::Greater => i64::from(order.is_gt()),
        Fun2::GreaterOrEqual => i64::from(order.is_ge()),
    })
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

impl HostOp for Where {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (condition, a, b) = (call.view(0)?, call.view(1)?, call.view(2)?);
        let shape = shape_of(outs, 0)?;
        let steps_of = |v: View<'_>| broadcast_strides(v.shape, &shape);
        let steps = [steps_of(condition)?, steps_of(a)?, steps_of(b)?];
        let mut places = Vec::with_capacity(shape.iter().product());
        walk(&shape, [&steps[0], &steps[1], &steps[2]], |at| places.push(at));
        if a.dtype == DType::Str {
            let pick =
                |&[c, i, j]: &[usize; 3]| if condition.data[c] != 0 { &a.texts[i] } else { &b.texts[j] };
            let texts = places.iter().map(|p| pick(p).clone()).collect();
            return outs.put(0, Array::texts(shape, texts).ok_or("texts do not fill the shape")?.into());
        }
        let w = a.width();
        let out = room(outs, 0)?;
        for (slot, [c, i, j]) in out.chunks_exact_mut(w).zip(places) {
            let from = if condition.data[c] != 0 { &a.data[i * w..] } else { &b.data[j * w..] };
            slot.copy_from_slice(&from[..w]);
        }
        Ok(())
    }
}

impl HostOp for Clip {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        if x.dtype.is_integer() {
            let bound = |i: usize| call.get(i).map(|_| call.int(i)).transpose();
            let (low, high) = (bound(1)?, bound(2)?);
            let wide = x.dtype == DType::U64;
            let less = |a: i64, b: i64| if wide { (a as u64) < b as u64 } else { a < b };
            let one = |n: i64| {
                let n = low.filter(|low| less(n, *low)).unwrap_or(n);
                high.filter(|high| less(*high, n)).unwrap_or(n)
            };
            let values: Vec<i64> = x.i64s()?.iter().map(|n| one(*n)).collect();
            return store_ints(outs, 0, &values);
        }
        let bound = |i: usize, default: f64| match call.get(i) {
            None => Ok(default),
            Some(view) => view.f64s()?.first().copied().ok_or_else(|| "an empty bound".to_owned()),
        };
        let (low, high) = (bound(1, f64::NEG_INFINITY)?, bound(2, f64::INFINITY)?);
        let one = |x: f64| if x.is_nan() { x } else { x.max(low).min(high) };
        let values: Vec<f64> = x.f64s()?.into_iter().map(one).collect();
        store(outs, 0, &values)
    }
}

impl HostOp for Cast {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let shape = shape_of(outs, 0)?;
        if self.to == DType::Str {
            return outs
                .put(0, Array::texts(shape, written(x)?).ok_or("texts do not fill the shape")?.into());
        }
        if x.dtype == DType::Str {
            return from_texts(x.texts, self.to, outs.make(0, self.to, &shape)?);
        }
        if let Some(format) = small_float(self.to) {
            let single = |x: f64| {
                if self.to == DType::F8E8M0 { scale(x, self.round) } else { format.encode(x, self.saturate) }
            };
            let codes: Vec<u8> = to_f64(x.dtype, x.data)?.into_iter().map(single).collect();
            outs.make(0, self.to, &shape)?.copy_from_slice(&codes);
            return Ok(());
        }
        if x.dtype.is_integer() && self.to.is_integer() {
            let values = x.i64s()?;
            return from_i64(self.to, &values, outs.make(0, self.to, &shape)?);
        }
        let values = x.f64s()?;
        if self.to.is_integer() && self.to != DType::Bool && self.to != DType::U64 {
            // Codes of fewer bits than a byte are rounded.
            let few = matches!(self.to, DType::I4 | DType::U4 | DType::I2 | DType::U2);
            let whole = |x: &f64| if few { x.round_ties_even() as i64 } else { *x as i64 };
            let ints: Vec<i64> = values.iter().map(whole).collect();
            return from_i64(self.to, &ints, outs.make(0, self.to, &shape)?);
        }
        from_f64(self.to, &values, outs.make(0, self.to, &shape)?)
    }
}

/// The code of a power of two near `x`.
fn scale(x: f64, round: ScaleRound) -> u8 {
    if x.is_nan() || x.is_infinite() {
        return if x.is_nan() { 255 } else { 254 };
    }
    let exponent = x.abs().log2();
    let exponent = match round {
        ScaleRound::Up => exponent.ceil(),
        ScaleRound::Down => exponent.floor(),
        ScaleRound::Nearest => {
            let low = exponent.floor();
            if x.abs() / low.exp2() >= 1.5 { low + 1.0 } else { low }
        }
    };
    (exponent.clamp(-127.0, 127.0) as i32 + 127) as u8
}

/// Numbers as NumPy writes them.
fn written(x: View<'_>) -> Result<Vec<String>, String> {
    if x.dtype == DType::Str {
        return Ok(x.texts.to_vec());
    }
    if x.dtype == DType::Bool {
        return Ok(x.data.iter().map(|b| if *b != 0 { "True".into() } else { "False".into() }).collect());
    }
    if x.dtype.is_integer() {
        return Ok(x.i64s()?.iter().map(|n| n.to_string()).collect());
    }
    let single = x.dtype == DType::F32;
    let one = |x: &f64| match *x {
        x if x.is_nan() => "NaN".to_owned(),
        x if x.is_infinite() => {
            if x > 0.0 {
                "INF".into()
            } else {
                "-INF".into()
            }
        }
        x if single => format!("{:?}", x as f32),
        x => format!("{x:?}"),
    };
    Ok(x.f64s()?.iter().map(one).collect())
}

fn from_texts(texts: &[String], to: DType, out: &mut [u8]) -> Outcome {
    let number = |text: &String| {
        let plain = text.trim();
        match plain.to_ascii_lowercase().as_str() {
            "inf" | "+inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            _ => plain.parse::<f64>().map_err(|_| format!("`{plain}` is no number")),
        }
    };
    if to.is_integer() {
        let values: Vec<i64> = texts
            .iter()
            .map(|t| t.trim().parse::<i64>().or_else(|_| number(t).map(|x| x as i64)))
            .collect::<Result<_, _>>()?;
        return from_i64(to, &values, out);
    }
    from_f64(to, &texts.iter().map(number).collect::<Result<Vec<_>, _>>()?, out)
}

impl HostOp for CastLike {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        self.cast(call.view(1)?.dtype).host(&Call { args: &call.args[..1] }, outs)
    }
}

impl HostOp for BitCast {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        room(outs, 0)?.copy_from_slice(call.view(0)?.data);
        Ok(())
    }
}

impl HostOp for Dropout {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let training = call.get(2).and_then(|v| v.data.first().copied()).unwrap_or(0) != 0;
        let ratio = match call.get(1) {
            Some(view) => view.f64s()?.first().copied().unwrap_or(0.5),
            None => 0.5,
        };
        if training && ratio > 0.0 {
            return Err("dropping elements at random (training) is not supported".into());
        }
        room(outs, 0)?.copy_from_slice(x.data);
        if outs.wants(1) {
            room(outs, 1)?.fill(1);
        }
        Ok(())
    }
}

/// The remainder with the sign of the divisor.
fn modulo(a: f32, b: f32) -> f32 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
}
