//! `Quantize`, `Dequantize`, `DynamicQuantize`, `RoundWeights`.

use kinglet_graph::axis;
use kinglet_graph::ops::{Dequantize, DynamicQuantize, Quantize, RoundWeights};
use kinglet_tensor::DType;

use super::numbers::{from_f64, from_i64, small_float};
use super::{Call, HostOp, Outcome, Outs, View, around, room, store};

/// For each element of `x`, which scale is its.
fn owners(x: &[usize], scale: View<'_>, along: i64, block: usize) -> Result<Vec<usize>, String> {
    let total = x.iter().product();
    if scale.len() == 1 {
        return Ok(vec![0; total]);
    }
    let along = axis(along, x.len())?;
    let (_, n, inner) = around(x, along);
    let per = if scale.rank() == 1 { n } else { scale.shape.get(along).copied().unwrap_or(0) };
    let block = if scale.rank() == 1 {
        1
    } else if block > 0 {
        block
    } else {
        n.div_ceil(per.max(1))
    };
    if scale.rank() == 1 {
        if scale.len() != n {
            return Err(format!("{} scales for {n} indices", scale.len()));
        }
        return Ok((0..total).map(|i| i / inner % n).collect());
    }
    let owner = |i: usize| (i / (n * inner) * per + i / inner % n / block) * inner + i % inner;
    if scale.rank() != x.len() || (total > 0 && owner(total - 1) >= scale.len()) {
        return Err(format!("scales {:?} for {x:?}", scale.shape));
    }
    Ok((0..total).map(owner).collect())
}

/// The zero points, one for each scale, when they are given.
fn zeros(call: &Call<'_>, scale: View<'_>) -> Result<Option<Vec<f64>>, String> {
    let zeros = call.get(2).map(|z| z.f64s()).transpose()?;
    match zeros {
        Some(list) if list.len() != scale.len() => {
            Err(format!("{} zero points for {} scales", list.len(), scale.len()))
        }
        other => Ok(other),
    }
}

/// Least and greatest code of an integer type.
fn range(dtype: DType) -> Option<(f64, f64)> {
    Some(match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        DType::I16 => (-32768.0, 32767.0),
        DType::U4 => (0.0, 15.0),
        DType::I4 => (-8.0, 7.0),
        DType::U2 => (0.0, 3.0),
        DType::I2 => (-2.0, 1.0),
        DType::I32 => (-2_147_483_648.0, 2_147_483_647.0),
        _ => return None,
    })
}

impl HostOp for Quantize {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, scale) = (call.view(0)?, call.view(1)?);
        let owners = owners(x.shape, scale, self.axis, self.block)?;
        let zeros = zeros(call, scale)?;
        let to = call.get(2).map_or(self.to, |z| z.dtype);
        let (values, scales) = (x.f64s()?, scale.f64s()?);
        // Quotients are rounded as the arithmetic of the input's type rounds them.
        let ratio = |i: usize| match x.dtype {
            DType::F64 => values[i] / scales[owners[i]],
            _ => f64::from(values[i] as f32 / scales[owners[i]] as f32),
        };
        let zero = |i: usize| zeros.as_ref().map_or(0.0, |z| z[owners[i]]);
        let out = outs.make(0, to, x.shape)?;
        if let Some((low, high)) = range(to) {
            let code = |i: usize| (ratio(i).round_ties_even() + zero(i)).clamp(low, high) as i64;
            return from_i64(to, &(0..values.len()).map(code).collect::<Vec<_>>(), out);
        }
        let format = small_float(to).ok_or_else(|| format!("codes of type {to}"))?;
        out.iter_mut()
            .enumerate()
            .for_each(|(i, code)| *code = format.encode(ratio(i) + zero(i), self.saturate));
        Ok(())
    }
}

impl HostOp for Dequantize {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, scale) = (call.view(0)?, call.view(1)?);
        let owners = owners(x.shape, scale, self.axis, self.block)?;
        let zeros = zeros(call, scale)?;
        let (codes, scales) = (x.f64s()?, scale.f64s()?);
        let one = |i: usize| (codes[i] - zeros.as_ref().map_or(0.0, |z| z[owners[i]])) * scales[owners[i]];
        store(outs, 0, &(0..codes.len()).map(one).collect::<Vec<_>>())
    }
}

impl HostOp for DynamicQuantize {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let values = x.f64s()?;
        let groups = x.shape.iter().take(self.outer).product::<usize>();
        let each = x.shape.iter().skip(self.outer).product::<usize>();
        let (mut codes, mut scales, mut zeros) = (Vec::with_capacity(values.len()), vec![], vec![]);
        for values in values.chunks(each.max(1)).take(groups) {
            let (scale, zero) = scale_of(values);
            let code = |x: &f64| f64::from(((*x as f32 / scale).round_ties_even() + zero).clamp(0.0, 255.0));
            codes.extend(values.iter().map(code));
            scales.push(f64::from(scale));
            zeros.push(f64::from(zero));
        }
        let size = |(i, n): (usize, &usize)| if i < self.outer { *n } else { 1 };
        let shape: Vec<usize> = match self.outer {
            0 => Vec::new(),
            _ => x.shape.iter().enumerate().map(size).collect(),
        };
        scales.resize(groups, 1.0);
        zeros.resize(groups, 0.0);
        from_f64(DType::U8, &codes, room(outs, 0)?)?;
        if outs.wants(1) {
            from_f64(x.dtype, &scales, outs.make(1, x.dtype, &shape)?)?;
        }
        if outs.wants(2) {
            from_f64(DType::U8, &zeros, outs.make(2, DType::U8, &shape)?)?;
        }
        Ok(())
    }
}

/// Scale and zero of the 256 steps from the least to the greatest number, zero included.
fn scale_of(values: &[f64]) -> (f32, f32) {
    let least = values.iter().copied().fold(0.0, f64::min) as f32;
    let most = values.iter().copied().fold(0.0, f64::max) as f32;
    let scale = (most - least) / 255.0;
    let scale = if scale > 0.0 { scale } else { 1.0 };
    (scale, (-least / scale).clamp(0.0, 255.0).round_ties_even())
}

impl HostOp for RoundWeights {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let values = x.f64s()?;
        let (_, n, inner) = around(x.shape, self.axis);
        let owner = |i: usize| i / inner.max(1) % n.max(1);
        let mut most = vec![0.0f32; n];
        values.iter().enumerate().for_each(|(i, x)| most[owner(i)] = most[owner(i)].max(x.abs() as f32));
        let scales: Vec<f32> = most.iter().map(|most| if *most > 0.0 { most / 127.0 } else { 1.0 }).collect();
        let code = |(i, x): (usize, &f64)| f64::from((*x as f32 / scales[owner(i)]).round_ties_even());
        from_f64(DType::I8, &values.iter().enumerate().map(code).collect::<Vec<_>>(), room(outs, 0)?)?;
        if outs.wants(1) {
            let scales: Vec<f64> = scales.into_iter().map(f64::from).collect();
            from_f64(x.dtype, &scales, outs.make(1, x.dtype, &[n])?)?;
        }
        Ok(())
    }
}
