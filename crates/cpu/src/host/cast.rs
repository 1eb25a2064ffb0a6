//! `Cast`, `CastLike`, `BitCast`: numbers of another type, and texts.

use kinglet_graph::ops::{BitCast, Cast, CastLike, ScaleRound};
use kinglet_tensor::DType;

use super::numbers::{from_f64, from_i64, small_float, to_f64};
use super::{Call, HostOp, Outcome, Outs, View, room, shape_of};
use crate::value::Array;

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
