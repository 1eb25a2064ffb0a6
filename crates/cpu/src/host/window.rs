//! Sliding windows: `Conv`, `ConvTranspose`, `Pool`.

use kinglet_graph::ops::{Axis, Conv, ConvTranspose, Pool, PoolKind};
use kinglet_tensor::DType;

use super::{Call, HostOp, Outcome, Outs, View, shape_of, store, store_ints, strides};

/// Calls `f` with every index below `shape`, in order.
pub(super) fn each(shape: &[usize], mut f: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    loop {
        f(&index);
        let Some(d) = (0..shape.len()).rev().find(|d| index[*d] + 1 < shape[*d]) else { return };
        index[d] += 1;
        index[d + 1..].fill(0);
    }
}

/// The input place of a tap along each dimension; none in the padding.
pub(super) fn place(
    axes: &[Axis],
    out: &[usize],
    tap: &[usize],
    sizes: &[usize],
    steps: &[usize],
) -> Option<usize> {
    let mut at = 0;
    for d in 0..axes.len() {
        let i = (out[d] * axes[d].stride + tap[d] * axes[d].dilation) as i64 - axes[d].before;
        if i < 0 || i >= sizes[d] as i64 {
            return None;
        }
        at += i as usize * steps[d];
    }
    Some(at)
}

impl HostOp for Conv {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, w) = (call.view(0)?, call.view(1)?);
        let bias = call.get(2).map(|b| b.f64s()).transpose()?;
        let values =
            conv(self, x.shape, &x.f64s()?, w.shape, &w.f64s()?, bias.as_deref(), &shape_of(outs, 0)?)?;
        store(outs, 0, &values)
    }
}

/// The values of a convolution, row-major.
pub(super) fn conv(
    op: &Conv,
    xs: &[usize],
    x: &[f64],
    ws: &[usize],
    w: &[f64],
    bias: Option<&[f64]>,
    shape: &[usize],
) -> Result<Vec<f64>, String> {
    let rank = xs.len() - 2;
    if bias.is_some_and(|b| b.len() != ws[0]) {
        return Err(format!("takes {} biases", ws[0]));
    }
    let axes: Vec<Axis> =
        (0..rank).map(|i| op.window.axis(i, rank, xs[i + 2], ws[i + 2], false)).collect::<Result<_, _>>()?;
    let steps = strides(&xs[2..]);
    let (area, taps, out_area) = (
        xs[2..].iter().product::<usize>(),
        ws[2..].iter().product::<usize>(),
        shape[2..].iter().product::<usize>(),
    );
    // For each output place and tap, where the input lies: the same for all channels.
    let mut places = Vec::with_capacity(out_area * taps);
    each(&shape[2..], |out| each(&ws[2..], |tap| places.push(place(&axes, out, tap, &xs[2..], &steps))));
    let (per_in, per_out) = (ws[1], ws[0] / op.groups);
    let mut values = vec![0.0; shape.iter().product()];
    for n in 0..shape[0] {
        for o in 0..shape[1] {
            let row = &mut values[(n * shape[1] + o) * out_area..][..out_area];
            row.fill(bias.map_or(0.0, |b| b[o]));
            for c in 0..per_in {
                let input = &x[(n * xs[1] + o / per_out * per_in + c) * area..][..area];
                let kernel = &w[(o * per_in + c) * taps..][..taps];
                for (sum, at) in row.iter_mut().zip(places.chunks_exact(taps)) {
                    let dot = at.iter().zip(kernel).filter_map(|(at, k)| Some(input[(*at)?] * k));
                    *sum += dot.sum::<f64>();
                }
            }
        }
    }
    Ok(values)
}

impl HostOp for ConvTranspose {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, w) = (call.view(0)?, call.view(1)?);
        let (shape, rank) = (shape_of(outs, 0)?, x.rank() - 2);
        let (xv, wv) = (x.f64s()?, w.f64s()?);
        let axes: Vec<(usize, i64)> = (0..rank)
            .map(|i| self.axis(i, rank, x.shape[i + 2], w.shape[i + 2]))
            .collect::<Result<_, _>>()?;
        let (area, taps, out_area) = (
            x.shape[2..].iter().product::<usize>(),
            w.shape[2..].iter().product::<usize>(),
            shape[2..].iter().product::<usize>(),
        );
        let steps = strides(&shape[2..]);
        let mut places = Vec::with_capacity(area * taps);
        each(&x.shape[2..], |at| {
            each(&w.shape[2..], |tap| {
                let one = |d: usize| {
                    let i =
                        (at[d] * self.window.stride(d) + tap[d] * self.window.dilation(d)) as i64 - axes[d].1;
                    (0..shape[d + 2] as i64).contains(&i).then(|| i as usize * steps[d])
                };
                places.push((0..rank).map(one).sum::<Option<usize>>());
            });
        });
        let (per_in, per_out) = (x.shape[1] / self.groups, w.shape[1]);
        let bias = call.get(2).map(|b| b.f64s()).transpose()?;
        let mut values = vec![0.0; shape.iter().product()];
        for n in 0..shape[0] {
            for o in 0..shape[1] {
                let row = &mut values[(n * shape[1] + o) * out_area..][..out_area];
                row.fill(bias.as_ref().map_or(0.0, |b| b[o]));
                for c in 0..per_in {
                    let channel = o / per_out * per_in + c;
                    let input = &xv[(n * x.shape[1] + channel) * area..][..area];
                    let kernel = &wv[(channel * per_out + o % per_out) * taps..][..taps];
                    for (value, at) in input.iter().zip(places.chunks_exact(taps)) {
                        at.iter().zip(kernel).for_each(|(at, k)| {
                            if let Some(at) = at {
                                row[*at] += value * k;
                            }
                        });
                    }
                }
            }
        }
        store(outs, 0, &values)
    }
}

impl HostOp for Pool {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let shape = shape_of(outs, 0)?;
        let rank = x.rank() - 2;
        let kernel = if self.kernel.is_empty() { x.shape[2..].to_vec() } else { self.kernel.clone() };
        let axes: Vec<Axis> = (0..rank)
            .map(|i| self.window.axis(i, rank, x.shape[i + 2], kernel[i], self.ceil))
            .collect::<Result<_, _>>()?;
        let values = x.f64s()?;
        let (area, steps) = (x.shape[2..].iter().product::<usize>(), strides(&x.shape[2..]));
        let (mut made, mut indices) = (Vec::with_capacity(shape.iter().product()), Vec::new());
        for plane in 0..x.shape[0] * x.shape[1] {
            let input = &values[plane * area..][..area];
            each(&shape[2..], |out| {
                let mut taken = Vec::new();
                let mut inside = 0usize;
                each(&kernel, |tap| {
                    inside += usize::from(in_padding(&axes, out, tap, &x.shape[2..]));
                    taken.extend(place(&axes, out, tap, &x.shape[2..], &steps));
                });
                let (value, at) = pooled(self.kind, input, &taken, inside);
                made.push(value);
                indices.push(index(self.kind, plane * area, at, x));
            });
        }
        if x.dtype.is_integer() {
            store_ints(outs, 0, &made.iter().map(|x| *x as i64).collect::<Vec<_>>())?;
        } else {
            store(outs, 0, &made)?;
        }
        if outs.wants(1) && outs.planned(1).is_some_and(|(dtype, _)| dtype == DType::I64) {
            store_ints(outs, 1, &indices)?;
        }
        Ok(())
    }
}

/// Whether a tap lies in the input or in its declared padding (not where a last window overhangs).
fn in_padding(axes: &[Axis], out: &[usize], tap: &[usize], sizes: &[usize]) -> bool {
    (0..axes.len()).all(|d| {
        let i = (out[d] * axes[d].stride + tap[d] * axes[d].dilation) as i64 - axes[d].before;
        i < sizes[d] as i64 + axes[d].after
    })
}

fn pooled(kind: PoolKind, input: &[f64], taken: &[usize], inside: usize) -> (f64, usize) {
    match kind {
        PoolKind::Max { .. } => {
            taken.iter().fold((f64::NEG_INFINITY, taken.first().copied().unwrap_or(0)), |(best, at), i| {
                if input[*i] > best || input[*i].is_nan() { (input[*i], *i) } else { (best, at) }
            })
        }
        PoolKind::Average { count_pad } => {
            let count = if count_pad { inside } else { taken.len() };
            (taken.iter().map(|i| input[*i]).sum::<f64>() / count as f64, 0)
        }
        PoolKind::Lp(p) => {
            let sum: f64 = taken.iter().map(|i| input[*i].abs().powi(p as i32)).sum();
            (sum.powf(1.0 / f64::from(p)), 0)
        }
    }
}

/// The index of a place in the flattened input.
fn index(kind: PoolKind, plane: usize, at: usize, x: View<'_>) -> i64 {
    if !matches!(kind, PoolKind::Max { column_major: true }) {
        return (plane + at) as i64;
    }
    let (mut rest, mut place, mut step) = (at, 0, 1);
    let sizes = &x.shape[2..];
    let own = strides(sizes);
    for d in 0..sizes.len() {
        place += rest / own[d] * step;
        rest %= own[d];
        step *= sizes[d];
    }
    (plane + place) as i64
}
