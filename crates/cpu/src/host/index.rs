//! `Gather`, `GatherElements`, `GatherNd`, `ScatterElements`, `ScatterNd`.

use kinglet_graph::axis;
use kinglet_graph::ops::{Gather, GatherElements, GatherNd, ScatterElements, ScatterKind, ScatterNd};
use kinglet_tensor::DType;

use super::layout::pick;
use super::numbers::{from_f64, from_i64, to_f64, to_i64};
use super::{Call, HostOp, Outcome, Outs, View, around, room, strides, walk};

/// An index below `n`; negative ones count from the end.
fn index(i: i64, n: usize) -> Result<usize, String> {
    let at = if i < 0 { i.saturating_add(n as i64) } else { i };
    usize::try_from(at)
        .ok()
        .filter(|at| *at < n)
        .ok_or_else(|| format!("index {i} is outside of {n} elements"))
}

impl HostOp for Gather {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, indices) = (call.view(0)?, call.view(1)?);
        let along = axis(self.axis, x.rank())?;
        let (outer, n, inner) = around(x.shape, along);
        let wanted: Vec<usize> = indices.i64s()?.iter().map(|i| index(*i, n)).collect::<Result<_, _>>()?;
        let mut shape = x.shape[..along].to_vec();
        shape.extend(indices.shape);
        shape.extend(&x.shape[along + 1..]);
        if x.dtype == DType::Str {
            let run = |first: usize| (0..inner).map(move |i| first + i);
            let firsts = (0..outer).flat_map(|o| wanted.iter().map(move |k| (o * n + k) * inner));
            return pick(x, outs, 0, &shape, &firsts.flat_map(run).collect::<Vec<_>>());
        }
        let run = inner * x.width();
        let out = outs.make(0, x.dtype, &shape)?;
        if run == 0 || out.is_empty() {
            return Ok(());
        }
        let firsts = (0..outer).flat_map(|o| wanted.iter().map(move |k| (o * n + k) * run));
        for (to, first) in out.chunks_exact_mut(run).zip(firsts) {
            to.copy_from_slice(x.data.get(first..first + run).ok_or("the data is shorter than its shape")?);
        }
        Ok(())
    }
}

/// For each element of the indices, its place in `x`.
fn element_places(x: View<'_>, indices: View<'_>, along: usize) -> Result<Vec<usize>, String> {
    let (own, wanted) = (strides(x.shape), indices.i64s()?);
    let mut steps = own.clone();
    steps[along] = 0;
    let (mut places, mut i) = (Vec::with_capacity(wanted.len()), 0);
    let mut failed = Ok(());
    walk(indices.shape, [&steps], |[at]| {
        match index(wanted[i], x.shape[along]) {
            Ok(k) => places.push(at + k * own[along]),
            Err(e) => failed = Err(e),
        }
        i += 1;
    });
    failed.map(|()| places)
}

impl HostOp for GatherElements {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, indices) = (call.view(0)?, call.view(1)?);
        let places = element_places(x, indices, axis(self.axis, x.rank())?)?;
        pick(x, outs, 0, indices.shape, &places)
    }
}

impl HostOp for GatherNd {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, indices) = (call.view(0)?, call.view(1)?);
        let (&depth, outer) = indices.shape.split_last().ok_or("indices need a dimension")?;
        let own = strides(x.shape);
        let batches: usize = x.shape[..self.batch_dims].iter().product();
        let per_batch = outer.iter().product::<usize>() / batches.max(1);
        let from = self.batch_dims + depth;
        let part: usize = x.shape[from..].iter().product();
        let each: usize = x.shape[self.batch_dims..].iter().product();
        let mut places = Vec::new();
        for (row, place) in indices.i64s()?.chunks(depth.max(1)).take(outer.iter().product()).enumerate() {
            let mut at = row / per_batch.max(1) * each;
            for (d, i) in place.iter().take(depth).enumerate() {
                at += index(*i, x.shape[self.batch_dims + d])? * own[self.batch_dims + d];
            }
            places.extend(at..at + part);
        }
        let shape: Vec<usize> = outer.iter().chain(&x.shape[from..]).copied().collect();
        pick(x, outs, 0, &shape, &places)
    }
}

impl HostOp for ScatterElements {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, indices, updates) = (call.view(0)?, call.view(1)?, call.view(2)?);
        let places = element_places(x, indices, axis(self.axis, x.rank())?)?;
        let own = strides(updates.shape);
        let mut from = Vec::with_capacity(places.len());
        walk(indices.shape, [&own], |[at]| from.push(at));
        scatter(self.kind, x, updates, &places, &from, outs)
    }
}

impl HostOp for ScatterNd {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, indices, updates) = (call.view(0)?, call.view(1)?, call.view(2)?);
        let depth = *indices.shape.last().ok_or("indices need a dimension")?;
        let own = strides(x.shape);
        let part: usize = x.shape[depth..].iter().product();
        let mut places = Vec::new();
        for place in indices.i64s()?.chunks(depth.max(1)) {
            let mut at = 0;
            for (d, i) in place.iter().take(depth).enumerate() {
                at += index(*i, x.shape[d])? * own[d];
            }
            places.extend(at..at + part);
        }
        if updates.len() != places.len() {
            return Err(format!("{} updates for {} elements", updates.len(), places.len()));
        }
        let from: Vec<usize> = (0..places.len()).collect();
        scatter(self.kind, x, updates, &places, &from, outs)
    }
}

/// Output 0: `x` with the element at each place updated by the one at `from`.
fn scatter(
    kind: ScatterKind,
    x: View<'_>,
    updates: View<'_>,
    places: &[usize],
    from: &[usize],
    outs: &mut dyn Outs,
) -> Outcome {
    if from.iter().any(|at| *at >= updates.len()) {
        return Err("there are fewer updates than indices".into());
    }
    let w = x.width();
    if kind == ScatterKind::Replace {
        if x.dtype == DType::Str {
            return Err("texts cannot be scattered".into());
        }
        let out = room(outs, 0)?;
        out.copy_from_slice(x.data);
        for (at, source) in places.iter().zip(from) {
            out[at * w..][..w].copy_from_slice(&updates.data[source * w..][..w]);
        }
        return Ok(());
    }
    if x.dtype.is_integer() {
        let (mut values, add) = (to_i64(x.dtype, x.data)?.into_owned(), to_i64(updates.dtype, updates.data)?);
        for (at, source) in places.iter().zip(from) {
            let (a, b) = (values[*at], add[*source]);
            values[*at] = match kind {
                ScatterKind::Add => a.wrapping_add(b),
                ScatterKind::Mul => a.wrapping_mul(b),
                ScatterKind::Min => a.min(b),
                _ => a.max(b),
            };
        }
        return from_i64(x.dtype, &values, room(outs, 0)?);
    }
    let (mut values, add) = (to_f64(x.dtype, x.data)?, to_f64(updates.dtype, updates.data)?);
    for (at, source) in places.iter().zip(from) {
        let (a, b) = (values[*at], add[*source]);
        values[*at] = match kind {
            ScatterKind::Add => a + b,
            ScatterKind::Mul => a * b,
            ScatterKind::Min => a.min(b),
            _ => a.max(b),
        };
    }
    from_f64(x.dtype, &values, room(outs, 0)?)
}
