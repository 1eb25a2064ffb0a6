//! `Attend` and `Rotate` in f64.

use kinglet_graph::ops::{Attend, Blank, Rotate};
use kinglet_tensor::DType;

use super::numbers::from_f64;
use super::{Call, HostOp, Outcome, Outs, View, broadcast_strides, shape_of, store, strides, walk};

/// `[B, H, S, D]` and values in that order.
fn split(x: View<'_>, heads: usize) -> Result<([usize; 4], Vec<f64>), String> {
    let values = x.f64s()?;
    match *x.shape {
        [b, h, s, d] => Ok(([b, h, s, d], values)),
        [b, s, c] if heads > 0 => {
            let d = c / heads;
            let mut moved = Vec::with_capacity(values.len());
            walk(&[b, heads, s, d], [&[s * c, d, c, 1]], |[at]| moved.push(values[at]));
            Ok(([b, heads, s, d], moved))
        }
        _ => Err("takes three or four dimensions".into()),
    }
}

/// The past followed by the new, along the positions.
fn joined(
    past: Option<View<'_>>,
    new: &[f64],
    [b, h, s, d]: [usize; 4],
) -> Result<(usize, Vec<f64>), String> {
    let Some(past) = past else { return Ok((s, new.to_vec())) };
    let (old, length) = (past.f64s()?, past.shape.get(2).copied().unwrap_or(0));
    if old.len() != b * h * length * d {
        return Err("the past has another shape".into());
    }
    let mut all = Vec::with_capacity(old.len() + new.len());
    for i in 0..b * h {
        all.extend(&old[i * length * d..][..length * d]);
        all.extend(&new[i * s * d..][..s * d]);
    }
    Ok((length + s, all))
}

/// What a mask adds to scores `[B, H, S, T]`; positions behind its last dimension are masked, unless it repeats.
fn masked(mask: View<'_>, [b, h, s, t]: [usize; 4], sum: &mut [f64]) -> Outcome {
    let width = mask.shape.last().copied().unwrap_or(1);
    let (values, repeats) = (mask.f64s()?, width == 1);
    let outer = [b, h, s, if repeats { 1 } else { width }];
    if !repeats && width > t {
        return Err(format!("a mask {:?} for {t} keys", mask.shape));
    }
    let mut steps = broadcast_strides(mask.shape, &outer)?;
    steps[3] = 0;
    let logic = mask.dtype == DType::Bool;
    let mut rows = sum.chunks_exact_mut(t.max(1));
    walk(&[b, h, s, 1], [&steps], |[at]| {
        for (j, x) in rows.next().into_iter().flatten().enumerate() {
            *x += match values.get(if repeats { at } else { at + j }).filter(|_| repeats || j < width) {
                Some(value) if !logic => *value,
                Some(value) if *value != 0.0 => 0.0,
                _ => f64::NEG_INFINITY,
            };
        }
    });
    Ok(())
}

/// What is added to scores `[B, H, S, T]`.
fn bias(call: &Call<'_>, op: &Attend, [b, h, s, t]: [usize; 4], past: usize) -> Result<Vec<f64>, String> {
    let mut sum = vec![0.0; b * h * s * t];
    if let Some(mask) = call.get(3) {
        masked(mask, [b, h, s, t], &mut sum)?;
    }
    let valid = call.get(6).map(|v| v.i64s().map(|v| v.into_owned())).transpose()?;
    let cached = call.get(4).is_none();
    for (i, x) in sum.iter_mut().enumerate() {
        let (j, row, entry) = ((i % t) as i64, (i / t % s) as i64, i / (h * s * t));
        let valid = valid.as_ref().and_then(|list| list.get(entry).copied());
        let before = valid.filter(|_| cached).map_or(past as i64, |n| n - s as i64);
        if valid.is_some_and(|n| j >= n) || !sees(op, row + before, j) {
            *x = f64::NEG_INFINITY;
        }
    }
    Ok(sum)
}

/// Whether the query at position `own` sees position `j`.
fn sees(op: &Attend, own: i64, j: i64) -> bool {
    let within = |distance: i64, bound: Option<usize>| bound.is_none_or(|most| distance <= most as i64);
    (!op.causal || j <= own) && within(own - j, op.window[0]) && within(j - own, op.window[1])
}

impl HostOp for Attend {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let ([b, h, s, d], q) = split(call.view(0)?, self.heads)?;
        let (kd, k) = split(call.view(1)?, self.kv_heads)?;
        let (vd, v) = split(call.view(2)?, self.kv_heads)?;
        let grouped = kd[1] > 0 && h.is_multiple_of(kd[1]);
        if kd != [b, kd[1], kd[2], d] || vd[..3] != kd[..3] || !grouped {
            return Err(format!("{h} heads of {d} queries {b} times, keys {kd:?} and values {vd:?}"));
        }
        let ((t, keys), (also, values)) = (joined(call.get(4), &k, kd)?, joined(call.get(5), &v, vd)?);
        if t != also {
            return Err(format!("{t} keys and {also} values with the past"));
        }
        let (kv_heads, width) = (kd[1], vd[3]);
        let scale = self.scale.map_or(1.0 / (d as f64).sqrt(), f64::from);
        let bias = bias(call, self, [b, h, s, t], t - kd[2])?;
        let (mut y, mut shown) = (vec![0.0; b * h * s * width], vec![0.0; b * h * s * t]);
        for row in 0..b * h * s {
            let (i, head, entry) = (row % s, row / s % h, row / (h * s));
            let kv = entry * kv_heads + head * kv_heads / h;
            let query = &q[((entry * h + head) * s + i) * d..][..d];
            let key = |j: usize| &keys[(kv * t + j) * d..][..d];
            let raw: Vec<f64> =
                (0..t).map(|j| query.iter().zip(key(j)).map(|(a, b)| a * b).sum::<f64>() * scale).collect();
            let cap = f64::from(self.softcap);
            let capped: Vec<f64> =
                raw.iter().map(|x| if cap > 0.0 { cap * (x / cap).tanh() } else { *x }).collect();
            let masked: Vec<f64> = capped.iter().zip(&bias[row * t..]).map(|(x, m)| x + m).collect();
            let most = masked.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exps: Vec<f64> = masked.iter().map(|x| (x - most).exp()).collect();
            let total: f64 = exps.iter().sum();
            let unseen = masked.iter().all(|x| *x == f64::NEG_INFINITY);
            let blank = match self.blank {
                Blank::Never => false,
                Blank::Hidden => unseen,
                Blank::Always => total.is_nan(),
            };
            let shares: Vec<f64> = exps.iter().map(|x| if blank { 0.0 } else { x / total }).collect();
            let list = [&capped, &capped, &masked, &shares][usize::from(self.scores.min(3))];
            shown[row * t..][..t].copy_from_slice(list);
            for (j, share) in shares.iter().enumerate() {
                let value = &values[(kv * t + j) * width..][..width];
                y[row * width..][..width].iter_mut().zip(value).for_each(|(sum, x)| *sum += share * x);
            }
        }
        let shape = shape_of(outs, 0)?;
        if shape.len() == 3 {
            let mut moved = Vec::with_capacity(y.len());
            walk(&[b, s, h, width], [&[h * s * width, width, s * width, 1]], |[at]| moved.push(y[at]));
            y = moved;
        }
        store(outs, 0, &y)?;
        for (i, list, shape, x) in [
            (1, &keys, [b, kd[1], t, d], call.view(1)?),
            (2, &values, [b, vd[1], t, width], call.view(2)?),
            (3, &shown, [b, h, s, t], call.view(0)?),
        ] {
            if outs.wants(i) {
                from_f64(x.dtype, list, outs.make(i, x.dtype, &shape)?)?;
            }
        }
        Ok(())
    }
}

impl HostOp for Rotate {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let (cos, sin) = (call.view(1)?, call.view(2)?);
        let (sizes, steps) = match *x.shape {
            [b, h, s, d] => ([b, s, h, d], {
                let w = strides(x.shape);
                [w[0], w[2], w[1], w[3]]
            }),
            [b, s, c] if self.heads > 0 => {
                ([b, s, self.heads, c / self.heads], [s * c, c, c / self.heads, 1])
            }
            _ => return Err("takes three or four dimensions".into()),
        };
        let [batch, length, heads, width] = sizes;
        let dims = if self.dims == 0 { width } else { self.dims };
        let half = dims / 2;
        let ids = call.get(3).map(|v| v.i64s().map(|v| v.into_owned())).transpose()?;
        let (c, s) = (cos.f64s()?, sin.f64s()?);
        let mut values = x.f64s()?;
        for b in 0..batch {
            for t in 0..length {
                let row = match &ids {
                    Some(ids) => *ids.get(b * length + t).ok_or("too few position ids")?,
                    None => (b * length + t) as i64,
                };
                let row = usize::try_from(row).map_err(|_| "a negative position")?.checked_mul(half);
                let row = row.and_then(|from| Some(from..from.checked_add(half)?));
                let angles = row.and_then(|row| c.get(row.clone()).zip(s.get(row)));
                let (c, s) = angles.ok_or("a position is outside of the table")?;
                for h in 0..heads {
                    let start = b * steps[0] + t * steps[1] + h * steps[2];
                    for i in 0..half {
                        let (p, q) = if self.interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
                        let (u, v) = (values[start + p], values[start + q]);
                        values[start + p] = c[i] * u - s[i] * v;
                        values[start + q] = s[i] * u + c[i] * v;
                    }
                }
            }
        }
        store(outs, 0, &values)
    }
}
