//! Elements of every type as f64 or i64, and back.

use std::borrow::Cow;

use bytemuck::{Pod, cast_slice, pod_read_unaligned, try_cast_slice};
use half::{bf16, f16};
use kinglet_tensor::DType;

/// Bytes as elements; copied when they are not aligned.
pub(crate) fn cast<T: Pod>(data: &[u8]) -> Cow<'_, [T]> {
    try_cast_slice(data).map_or_else(|_| Cow::Owned(copied(data)), Cow::Borrowed)
}

fn copied<T: Pod>(data: &[u8]) -> Vec<T> {
    data.chunks_exact(size_of::<T>()).map(pod_read_unaligned).collect()
}

macro_rules! each {
    ($data:expr, $from:ty, $x:ident => $value:expr) => {
        cast::<$from>($data).iter().map(|&$x| $value).collect()
    };
}

/// The elements as f64. 64-bit integers beyond 2^53 are rounded.
pub(crate) fn to_f64(dtype: DType, data: &[u8]) -> Result<Vec<f64>, String> {
    Ok(match dtype {
        DType::F64 => cast::<f64>(data).into_owned(),
        DType::F32 => each!(data, f32, x => f64::from(x)),
        DType::F16 => each!(data, u16, x => f16::from_bits(x).to_f64()),
        DType::BF16 => each!(data, u16, x => bf16::from_bits(x).to_f64()),
        DType::U64 => each!(data, u64, x => x as f64),
        other if other.is_integer() => to_i64(other, data)?.iter().map(|n| *n as f64).collect(),
        other => {
            let table =
                small_float(other).ok_or_else(|| format!("elements of type {other} are no numbers"))?;
            data.iter().map(|code| table.decode(*code)).collect()
        }
    })
}

/// The elements of an integer type as i64; U64 keeps its bits.
pub(crate) fn to_i64(dtype: DType, data: &[u8]) -> Result<Cow<'_, [i64]>, String> {
    Ok(match dtype {
        DType::I64 | DType::U64 => cast::<i64>(data),
        DType::I32 => Cow::Owned(each!(data, i32, x => x.into())),
        DType::U32 => Cow::Owned(each!(data, u32, x => x.into())),
        DType::I16 => Cow::Owned(each!(data, i16, x => x.into())),
        DType::U16 => Cow::Owned(each!(data, u16, x => x.into())),
        DType::I8 | DType::I4 | DType::I2 => Cow::Owned(each!(data, i8, x => x.into())),
        DType::U8 | DType::U4 | DType::U2 | DType::Bool => Cow::Owned(each!(data, u8, x => x.into())),
        other => return Err(format!("elements of type {other} are no integers")),
    })
}

fn fill<T: Pod, S: Copy>(out: &mut [u8], values: &[S], f: impl Fn(S) -> T) {
    for (slot, value) in out.chunks_exact_mut(size_of::<T>()).zip(values) {
        slot.copy_from_slice(cast_slice(&[f(*value)]));
    }
}

/// Stores numbers as `dtype`: floats to the nearest, integers towards zero and within the type's range.
pub(crate) fn from_f64(dtype: DType, values: &[f64], out: &mut [u8]) -> Result<(), String> {
    match dtype {
        DType::F64 => fill(out, values, |x| x),
        DType::F32 => fill(out, values, |x| x as f32),
        DType::F16 => fill(out, values, |x| f16::from_f64(x).to_bits()),
        DType::BF16 => fill(out, values, |x| bf16::from_f64(x).to_bits()),
        DType::Bool => fill(out, values, |x| u8::from(x != 0.0)),
        DType::U64 => fill(out, values, |x| x as u64),
        other if other.is_integer() => {
            let ints: Vec<i64> = values.iter().map(|x| *x as i64).collect();
            from_i64(other, &ints, out)?;
        }
        other => {
            let table = small_float(other).ok_or_else(|| format!("numbers cannot be stored as {other}"))?;
            fill(out, values, |x| table.encode(x, true));
        }
    }
    Ok(())
}

/// Stores integers as `dtype`: cut to its width.
pub(crate) fn from_i64(dtype: DType, values: &[i64], out: &mut [u8]) -> Result<(), String> {
    match dtype {
        DType::I64 | DType::U64 => fill(out, values, |n| n),
        DType::I32 | DType::U32 => fill(out, values, |n| n as i32),
        DType::I16 | DType::U16 => fill(out, values, |n| n as i16),
        DType::I8 | DType::U8 => fill(out, values, |n| n as i8),
        DType::Bool => fill(out, values, |n| u8::from(n != 0)),
        DType::U4 => fill(out, values, |n| n as u8 & 15),
        DType::U2 => fill(out, values, |n| n as u8 & 3),
        DType::I4 => fill(out, values, |n| (n as i8) << 4 >> 4),
        DType::I2 => fill(out, values, |n| (n as i8) << 6 >> 6),
        other => from_f64(other, &values.iter().map(|n| *n as f64).collect::<Vec<_>>(), out)?,
    }
    Ok(())
}

/// A float of at most 8 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SmallFloat {
    bits: u32,
    mantissa: u32,
    bias: i32,
    kind: Kind,
}

/// Which codes are special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As IEEE 754: the largest exponent is infinite or NaN.
    Ieee,
    /// All ones is NaN; no infinities.
    Finite,
    /// The negative zero is NaN; no infinities.
    Unsigned,
    /// Every code is a number.
    Plain,
    /// A power of two without sign; all ones is NaN.
    Scale,
}

/// The format of a small float type.
pub(crate) fn small_float(dtype: DType) -> Option<SmallFloat> {
    let (bits, mantissa, bias, kind) = match dtype {
        DType::F8E4M3 => (8, 3, 7, Kind::Finite),
        DType::F8E4M3FNUZ => (8, 3, 8, Kind::Unsigned),
        DType::F8E5M2 => (8, 2, 15, Kind::Ieee),
        DType::F8E5M2FNUZ => (8, 2, 16, Kind::Unsigned),
        DType::F4E2M1 => (4, 1, 1, Kind::Plain),
        DType::F8E8M0 => (8, 0, 127, Kind::Scale),
        _ => return None,
    };
    Some(SmallFloat { bits, mantissa, bias, kind })
}

impl SmallFloat {
    /// The number that a code stands for.
    pub(crate) fn decode(self, code: u8) -> f64 {
        if self.kind == Kind::Scale {
            return if code == 255 { f64::NAN } else { 2f64.powi(i32::from(code) - self.bias) };
        }
        let sign = if code >> (self.bits - 1) & 1 == 1 { -1.0 } else { 1.0 };
        let magnitude = code & self.magnitude();
        let top = self.magnitude();
        let (exponent, fraction) =
            (i32::from(magnitude >> self.mantissa), magnitude & ((1 << self.mantissa) - 1));
        match self.kind {
            Kind::Finite if magnitude == top => return f64::NAN,
            Kind::Unsigned if code == 1 << (self.bits - 1) => return f64::NAN,
            Kind::Ieee if exponent == i32::from(top >> self.mantissa) => {
                return if fraction == 0 { sign * f64::INFINITY } else { f64::NAN };
            }
            _ => {}
        }
        let unit = 2f64.powi(-(self.mantissa as i32));
        let value = if exponent == 0 {
            f64::from(fraction) * unit * 2f64.powi(1 - self.bias)
        } else {
            (1.0 + f64::from(fraction) * unit) * 2f64.powi(exponent - self.bias)
        };
        sign * value
    }

    /// All bits but the sign.
    fn magnitude(self) -> u8 {
        ((1u16 << (self.bits - 1)) - 1) as u8
    }

    /// The largest code of a finite positive number.
    fn largest(self) -> u8 {
        let top = self.magnitude();
        match self.kind {
            Kind::Finite => top - 1,
            Kind::Ieee => ((top >> self.mantissa) << self.mantissa) - 1,
            _ => top,
        }
    }

    /// The code of the nearest number, ties to even. What is too large becomes the largest number when `saturate`, else
    /// infinite or NaN.
    pub(crate) fn encode(self, x: f64, saturate: bool) -> u8 {
        if self.kind == Kind::Scale {
            return if x.is_nan() {
                255
            } else {
                (x.abs().log2().ceil().clamp(-127.0, 127.0) as i32 + 127) as u8
            };
        }
        let sign = u8::from(x.is_sign_negative()) << (self.bits - 1);
        let (nan, infinity) = match self.kind {
            // The quiet NaN: the upper half of the fractions behind infinity.
            Kind::Ieee => {
                (sign | (self.largest() + 1) | 1 << (self.mantissa - 1), sign | (self.largest() + 1))
            }
            Kind::Finite => (sign | self.magnitude(), sign | self.magnitude()),
            Kind::Unsigned => (1 << (self.bits - 1), 1 << (self.bits - 1)),
            // Without a code of its own, NaN is the negative zero.
            _ => (1 << (self.bits - 1), sign | self.largest()),
        };
        if x.is_nan() {
            return nan;
        }
        let largest = self.largest();
        let code = if x.is_infinite() { u8::MAX } else { self.nearest(x.abs()) };
        if code > largest {
            return if saturate { sign | largest } else { infinity };
        }
        if code == 0 && self.kind == Kind::Unsigned { 0 } else { sign | code }
    }

    /// The code of the nearest positive number; beyond the largest when it rounds up to there.
    fn nearest(self, x: f64) -> u8 {
        let step = 2f64.powi(-(self.mantissa as i32));
        let exponent = if x > 0.0 { (x.log2().floor() as i32).max(1 - self.bias) } else { 1 - self.bias };
        // `log2` may be off by one next to a power of two.
        let exponent = if 2f64.powi(exponent + 1) <= x { exponent + 1 } else { exponent };
        let scaled = (x / 2f64.powi(exponent) / step).round_ties_even();
        let base = f64::from(exponent + self.bias - 1) * f64::from(1u32 << self.mantissa);
        (base + scaled).min(255.0) as u8
    }
}
