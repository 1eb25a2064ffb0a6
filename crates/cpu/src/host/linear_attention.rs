//! `LinearAttention`: one position after the other, in f64.

use kinglet_graph::ops::LinearAttention;

use super::numbers::from_f64;
use super::{Call, HostOp, Outcome, Outs, store};

/// A list with the same number of elements for each row: one for each key dimension, for each head, or for all heads.
struct PerRow {
    values: Vec<f64>,
    each: usize,
}

impl PerRow {
    /// Input `i`, when it is there, with one of `sizes` for each of `rows`.
    fn of(call: &Call<'_>, i: usize, rows: usize, sizes: [usize; 2]) -> Result<Option<Self>, String> {
        let Some(view) = call.get(i) else { return Ok(None) };
        let each = sizes.into_iter().find(|n| view.len() == rows * n);
        let each = each
            .ok_or_else(|| format!("input {i} is {:?}, expected {sizes:?} for each of {rows}", view.shape))?;
        Ok(Some(Self { values: view.f64s()?, each }))
    }

    /// The element of key dimension `i` of `keys`, for one of `heads`.
    fn at(&self, row: usize, (head, heads): (usize, usize), (i, keys): (usize, usize)) -> f64 {
        let own = if self.each == heads * keys { head * keys + i } else { head.min(self.each - 1) };
        self.values[row * self.each + own]
    }
}

/// Moves a state `[keys, width]` on: `S = exp(g) S + b k (v - S' k)`, the last product with the delta rule only.
fn advance(
    state: &mut [f64],
    key: &[f64],
    value: &[f64],
    decay: impl Fn(usize) -> f64,
    (rate, delta): (f64, bool),
) {
    let width = value.len();
    let mut value = value.to_vec();
    for (i, line) in state.chunks_exact_mut(width).enumerate() {
        let factor = decay(i).exp();
        line.iter_mut().for_each(|s| *s *= factor);
    }
    if delta {
        for (line, k) in state.chunks_exact(width).zip(key) {
            value.iter_mut().zip(line).for_each(|(v, s)| *v -= s * k);
        }
    }
    for (line, k) in state.chunks_exact_mut(width).zip(key) {
        line.iter_mut().zip(&value).for_each(|(s, v)| *s += k * rate * v);
    }
}

impl HostOp for LinearAttention {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (q, k, v) = (call.view(0)?, call.view(1)?, call.view(2)?);
        let (&[batch, time, wide], &[.., all]) = (q.shape, v.shape) else {
            return Err("takes queries of 3 dimensions".into());
        };
        let (heads, kv) = (self.heads, self.kv_heads);
        let (keys, width) = (wide / heads, all / kv);
        if k.shape != [batch, time, kv * keys] || v.shape != [batch, time, kv * width] {
            return Err(format!("queries {:?}, keys {:?}, values {:?}", q.shape, k.shape, v.shape));
        }
        let (rows, size) = (batch * time, keys * width);
        let mut states = match call.get(3) {
            Some(before) if before.len() != batch * kv * size => {
                return Err(format!("a state {:?}, expected {:?}", before.shape, [batch, kv, keys, width]));
            }
            Some(before) => before.f64s()?,
            None => vec![0.0; batch * kv * size],
        };
        let (decay, rate) =
            (PerRow::of(call, 4, rows, [kv * keys, kv])?, PerRow::of(call, 5, rows, [kv, 1])?);
        let (qv, kvs, vv) = (q.f64s()?, k.f64s()?, v.f64s()?);
        let scale = self.scale.map_or(1.0 / (keys as f64).sqrt(), f64::from);
        let mut made = vec![0.0; rows * heads * width];
        // Without elements there is nothing to compute.
        let rows = if size == 0 { 0 } else { rows };
        for (row, head) in (0..rows).flat_map(|row| (0..kv).map(move |head| (row, head))) {
            let at = (head, kv);
            let state = &mut states[(row / time * kv + head) * size..][..size];
            let (key, value) =
                (&kvs[(row * kv + head) * keys..][..keys], &vv[(row * kv + head) * width..][..width]);
            let rate = rate.as_ref().map_or(1.0, |list| list.at(row, at, (0, 1)));
            let decay = |i| decay.as_ref().map_or(0.0, |list| list.at(row, at, (i, keys)));
            advance(state, key, value, decay, (rate, self.delta));
            for query in head * heads / kv..(head + 1) * heads / kv {
                let out = &mut made[(row * heads + query) * width..][..width];
                for (line, q) in state.chunks_exact(width).zip(&qv[(row * heads + query) * keys..]) {
                    out.iter_mut().zip(line).for_each(|(y, s)| *y += scale * q * s);
                }
            }
        }
        store(outs, 0, &made)?;
        if outs.wants(1) {
            let dtype = call.get(3).map_or(q.dtype, |s| s.dtype);
            from_f64(dtype, &states, outs.make(1, dtype, &[batch, kv, keys, width])?)?;
        }
        Ok(())
    }
}
