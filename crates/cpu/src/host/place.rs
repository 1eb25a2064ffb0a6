//! `CentreCropPad`, `Col2Im`, `MaxUnpool`, `TensorScatter`, `Determinant`.

use kinglet_graph::axis;
use kinglet_graph::ops::{Axis, CentreCropPad, Col2Im, Determinant, MaxUnpool, TensorScatter};

use super::numbers::from_f64;
use super::window::{each, place};
use super::{Call, HostOp, Outcome, Outs, View, around, room, store, strides};

/// Non-negative integers of input `i`.
fn sizes(call: &Call<'_>, i: usize) -> Result<Vec<usize>, String> {
    let list = call.view(i)?.i64s()?;
    let sizes: Option<Vec<usize>> = list.iter().map(|n| usize::try_from(*n).ok()).collect();
    sizes.ok_or_else(|| format!("sizes {list:?}"))
}

/// Number of elements.
fn total(shape: &[usize]) -> Result<usize, String> {
    let product = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    product.ok_or_else(|| format!("a size of {shape:?} overflows"))
}

/// Copies element `from` of `x` to element `to`.
fn put(x: View<'_>, from: usize, out: &mut [u8], to: usize) {
    let w = x.width();
    out[to * w..][..w].copy_from_slice(&x.data[from * w..][..w]);
}

impl HostOp for CentreCropPad {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let shape = self.shape(x.shape, &sizes(call, 1)?)?;
        let out = outs.make(0, x.dtype, &shape)?;
        let (from, to) = (strides(x.shape), strides(&shape));
        // Along each dimension, how many elements both share and where they start in each.
        let both: Vec<usize> = x.shape.iter().zip(&shape).map(|(a, b)| *a.min(b)).collect();
        let start = |a: usize, b: usize| a.saturating_sub(b) / 2;
        out.fill(0);
        each(&both, |index| {
            let at = |steps: &[usize], own: &[usize], other: &[usize]| -> usize {
                (0..index.len()).map(|d| (index[d] + start(own[d], other[d])) * steps[d]).sum()
            };
            put(x, at(&from, x.shape, &shape), out, at(&to, &shape, x.shape));
        });
        Ok(())
    }
}

impl HostOp for Col2Im {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let (image, block) = (sizes(call, 1)?, sizes(call, 2)?);
        let (rank, taps) = (image.len(), total(&block)?);
        let &[n, rows, windows] = x.shape else { return Err("takes columns of 3 dimensions".into()) };
        if block.len() != rank || taps == 0 || !rows.is_multiple_of(taps) {
            return Err(format!("columns {:?} of windows {block:?} in an image {image:?}", x.shape));
        }
        let axes: Vec<Axis> = (0..rank)
            .map(|i| self.window.axis(i, rank, image[i], block[i], false))
            .collect::<Result<_, _>>()?;
        let grid: Vec<usize> = axes.iter().map(|a| a.output).collect();
        if total(&grid)? != windows {
            return Err(format!("{windows} windows, expected {grid:?}"));
        }
        let shape: Vec<usize> = [n, rows / taps].into_iter().chain(image.iter().copied()).collect();
        let out = outs.make(0, x.dtype, &shape)?;
        let (steps, area) = (strides(&image), image.iter().product::<usize>());
        let mut places = Vec::with_capacity(taps * windows);
        each(&block, |tap| each(&grid, |at| places.push(place(&axes, at, tap, &image, &steps))));
        let (values, mut made) = (x.f64s()?, vec![0.0; shape.iter().product()]);
        if !places.is_empty() {
            for (i, column) in values.chunks_exact(places.len()).enumerate() {
                for (value, at) in column.iter().zip(&places) {
                    if let Some(at) = at {
                        made[i * area + at] += value;
                    }
                }
            }
        }
        from_f64(x.dtype, &made, out)
    }
}

impl HostOp for MaxUnpool {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, places) = (call.view(0)?, call.view(1)?.i64s()?);
        let pooled = self.shape(x.shape)?;
        let shape = if call.get(2).is_some() { sizes(call, 2)? } else { pooled.clone() };
        if shape.len() != pooled.len() || shape.iter().zip(&pooled).any(|(a, b)| a < b) {
            return Err(format!("a result of {shape:?}, the pooling read {pooled:?}"));
        }
        let count = total(&pooled)?;
        let out = outs.make(0, x.dtype, &shape)?;
        let (from, to) = (strides(&pooled), strides(&shape));
        out.fill(0);
        for (i, at) in places.iter().enumerate().take(x.len()) {
            let at =
                usize::try_from(*at).ok().filter(|at| *at < count).ok_or(format!("place {at} of {count}"))?;
            let moved = (0..from.len()).map(|d| at / from[d] % pooled[d] * to[d]).sum();
            put(x, i, out, moved);
        }
        Ok(())
    }
}

impl HostOp for TensorScatter {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (cache, update) = (call.view(0)?, call.view(1)?);
        let along = axis(self.axis, cache.rank())?;
        let (outer, n, inner) = around(cache.shape, along);
        let (same, new, rest) = around(update.shape, along);
        if (outer, inner) != (same, rest) || cache.dtype != update.dtype {
            return Err(format!("a cache {:?} and an update {:?}", cache.shape, update.shape));
        }
        let starts = match call.get(2) {
            Some(_) => sizes(call, 2)?,
            None => vec![0; cache.shape[0]],
        };
        let out = room(outs, 0)?;
        out.copy_from_slice(cache.data);
        for o in 0..outer {
            let batch = o / (outer / cache.shape[0].max(1)).max(1);
            let start = *starts.get(batch).ok_or("too few places")?;
            for k in 0..new {
                let at = start.checked_add(k).map(|at| if self.circular { at % n.max(1) } else { at });
                let at = at.filter(|at| *at < n).ok_or(format!("place {start} + {k} in a cache of {n}"))?;
                (0..inner)
                    .for_each(|i| put(update, (o * new + k) * inner + i, out, (o * n + at) * inner + i));
            }
        }
        Ok(())
    }
}

impl HostOp for Determinant {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let n = x.shape[x.rank() - 1];
        let count: usize = x.shape[..x.rank() - 2].iter().product();
        let values = x.f64s()?;
        let made: Vec<f64> =
            (0..count).map(|i| determinant(values[i * n * n..][..n * n].to_vec(), n)).collect();
        store(outs, 0, &made)
    }
}

/// By elimination with the largest pivot.
fn determinant(mut m: Vec<f64>, n: usize) -> f64 {
    let mut product = 1.0;
    for k in 0..n {
        let pivot = (k..n).max_by(|a, b| m[a * n + k].abs().total_cmp(&m[b * n + k].abs())).unwrap_or(k);
        if m[pivot * n + k] == 0.0 {
            return 0.0;
        }
        if pivot != k {
            (0..n).for_each(|j| m.swap(pivot * n + j, k * n + j));
            product = -product;
        }
        product *= m[k * n + k];
        for i in k + 1..n {
            let factor = m[i * n + k] / m[k * n + k];
            (k..n).for_each(|j| m[i * n + j] -= factor * m[k * n + j]);
        }
    }
    product
}
