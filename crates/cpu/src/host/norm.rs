//! `LayerNorm`, `BatchNorm`, `GroupNorm`, `Lrn`, `LpNorm`.

use kinglet_graph::axis;
use kinglet_graph::ops::{BatchNorm, GroupNorm, LayerNorm, LpNorm, Lrn};

use super::{Call, HostOp, Outcome, Outs, around, broadcast_strides, store, walk};

/// Mean and variance.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    (mean, values.map(|x| (x - mean) * (x - mean)).sum::<f64>() / count)
}

impl HostOp for LayerNorm {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, scale) = (call.view(0)?, call.view(1)?);
        let row: usize = x.shape[axis(self.axis, x.rank())?..].iter().product();
        let mut values = x.f64s()?;
        let (mut means, mut scales) = (Vec::new(), Vec::new());
        for row in values.chunks_mut(row.max(1)) {
            let (mean, variance) = if self.centre {
                moments(row.iter().copied())
            } else {
                (0.0, row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64)
            };
            let inverse = 1.0 / (variance + f64::from(self.eps)).sqrt();
            row.iter_mut().for_each(|x| *x = (*x - mean) * inverse);
            means.push(mean);
            scales.push(inverse);
        }
        let bias = call
            .get(2)
            .map(|b| Ok::<_, String>((b.f64s()?, broadcast_strides(b.shape, x.shape)?)))
            .transpose()?;
        let (w, steps) = (scale.f64s()?, broadcast_strides(scale.shape, x.shape)?);
        let mut i = 0;
        match &bias {
            Some((b, more)) => walk(x.shape, [&steps, more], |[at, add]| {
                values[i] = values[i] * w[at] + b[add];
                i += 1;
            }),
            None => walk(x.shape, [&steps], |[at]| {
                values[i] *= w[at];
                i += 1;
            }),
        }
        store(outs, 0, &values)?;
        for (i, list) in [(1, means), (2, scales)] {
            if outs.wants(i) {
                store(outs, i, &list)?;
            }
        }
        Ok(())
    }
}

impl HostOp for BatchNorm {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let list = |i: usize| call.view(i)?.f64s();
        let (scale, bias, mut mean, mut variance) = (list(1)?, list(2)?, list(3)?, list(4)?);
        let channels = x.shape.get(1).copied().unwrap_or(1);
        let (batch, inner) =
            (x.shape.first().copied().unwrap_or(1), x.shape.iter().skip(2).product::<usize>());
        if [&scale, &bias, &mean, &variance].iter().any(|v| v.len() != channels) {
            return Err(format!("takes {channels} factors"));
        }
        let mut values = x.f64s()?;
        for c in 0..channels {
            let places = (0..batch).flat_map(|n| (0..inner).map(move |i| (n * channels + c) * inner + i));
            let (mut m, mut v) = (mean[c], variance[c]);
            if self.training {
                (m, v) = moments(places.clone().map(|at| values[at]));
                let keep = f64::from(self.momentum);
                mean[c] = mean[c] * keep + m * (1.0 - keep);
                variance[c] = variance[c] * keep + v * (1.0 - keep);
            }
            let factor = scale[c] / (v + f64::from(self.eps)).sqrt();
            places.for_each(|at| values[at] = (values[at] - m) * factor + bias[c]);
        }
        store(outs, 0, &values)?;
        for (i, list) in [(1, mean), (2, variance)] {
            if outs.wants(i) {
                store(outs, i, &list)?;
            }
        }
        Ok(())
    }
}

impl HostOp for GroupNorm {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let (scale, bias) = (call.view(1)?.f64s()?, call.view(2)?.f64s()?);
        let channels = x.shape[1];
        let groups = self.groups.unwrap_or(channels).max(1);
        let inner: usize = x.shape[2..].iter().product();
        let per = channels / groups;
        let mut values = x.f64s()?;
        let factors =
            |list: &[f64], c: usize| if list.len() == channels { list[c] } else { list[c / per.max(1)] };
        if ![channels, groups].contains(&scale.len()) || scale.len() != bias.len() {
            return Err(format!("takes {channels} factors"));
        }
        for (i, group) in values.chunks_mut((per * inner).max(1)).enumerate() {
            let (mean, variance) = moments(group.iter().copied());
            let inverse = 1.0 / (variance + f64::from(self.eps)).sqrt();
            for (j, x) in group.iter_mut().enumerate() {
                let c = i % groups * per + j / inner.max(1);
                *x = (*x - mean) * inverse * factors(&scale, c) + factors(&bias, c);
            }
        }
        store(outs, 0, &values)
    }
}

impl HostOp for Lrn {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let (outer, channels, inner) = around(x.shape, 1);
        let values = x.f64s()?;
        let mut made = values.clone();
        let (before, after) = ((self.size - 1) / 2, self.size / 2);
        for o in 0..outer {
            for c in 0..channels {
                for i in 0..inner {
                    let at = |c: usize| (o * channels + c) * inner + i;
                    let near = c.saturating_sub(before)..(c + after + 1).min(channels);
                    let sum: f64 = near.map(|c| values[at(c)] * values[at(c)]).sum();
                    let base = f64::from(self.bias) + f64::from(self.alpha) / self.size as f64 * sum;
                    made[at(c)] = values[at(c)] / base.powf(self.beta.into());
                }
            }
        }
        store(outs, 0, &made)
    }
}

impl HostOp for LpNorm {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let (outer, n, inner) = around(x.shape, axis(self.axis, x.rank())?);
        let mut values = x.f64s()?;
        for o in 0..outer {
            for i in 0..inner {
                let at = |k: usize| (o * n + k) * inner + i;
                let norm = if self.p == 1 {
                    (0..n).map(|k| values[at(k)].abs()).sum::<f64>()
                } else {
                    (0..n).map(|k| values[at(k)] * values[at(k)]).sum::<f64>().sqrt()
                };
                (0..n).for_each(|k| values[at(k)] = if norm == 0.0 { 0.0 } else { values[at(k)] / norm });
            }
        }
        store(outs, 0, &values)
    }
}
