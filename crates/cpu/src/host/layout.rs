//! Ops that only move elements: of any type, texts included.

use kinglet_graph::axis;
use kinglet_graph::ops::{
    Concat, Cut, DepthSpace, Expand, Flatten, Identity, Pad, PadMode, Reshape, Slice, Split, Squeeze, Tile,
    Transpose, Trilu, Unsqueeze,
};
use kinglet_tensor::DType;

use super::{
    Arg, Call, HostOp, Outcome, Outs, View, around, broadcast_strides, room, shape_of, strides, walk,
};
use crate::value::Array;

/// Output `i` of this type and shape, made of the elements of `x` at these places, in order.
pub(super) fn pick(x: View<'_>, outs: &mut dyn Outs, i: usize, shape: &[usize], places: &[usize]) -> Outcome {
    if x.dtype == DType::Str {
        let texts = places.iter().map(|at| x.texts[*at].clone()).collect();
        return outs.put(i, Array::texts(shape.to_vec(), texts).ok_or("texts do not fill the shape")?.into());
    }
    if places.iter().any(|at| *at >= x.len()) {
        return Err(format!("an index lies outside of {:?}", x.shape));
    }
    let out = outs.make(i, x.dtype, shape)?;
    match x.width() {
        1 => copy::<1>(x.data, places, out),
        2 => copy::<2>(x.data, places, out),
        4 => copy::<4>(x.data, places, out),
        _ => copy::<8>(x.data, places, out),
    }
    Ok(())
}

fn copy<const W: usize>(data: &[u8], places: &[usize], out: &mut [u8]) {
    let (data, out) = (data.as_chunks::<W>().0, out.as_chunks_mut::<W>().0);
    out.iter_mut().zip(places).for_each(|(slot, at)| *slot = data[*at]);
}

/// The elements of input 0 in order, under the planned shape.
fn same(call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
    let x = call.view(0)?;
    let shape = shape_of(outs, 0)?;
    if x.dtype == DType::Str {
        return outs
            .put(0, Array::texts(shape, x.texts.to_vec()).ok_or("texts do not fill the shape")?.into());
    }
    let out = outs.make(0, x.dtype, &shape)?;
    if out.len() != x.data.len() {
        return Err(format!("{:?} cannot take shape {shape:?}", x.shape));
    }
    out.copy_from_slice(x.data);
    Ok(())
}

impl HostOp for Reshape {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        same(call, outs)
    }
}

impl HostOp for Flatten {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        same(call, outs)
    }
}

impl HostOp for Squeeze {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        same(call, outs)
    }
}

impl HostOp for Unsqueeze {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        same(call, outs)
    }
}

impl HostOp for Identity {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        match call.args.first() {
            Some(Arg::Other(value)) => outs.put(0, (*value).clone()),
            _ => same(call, outs),
        }
    }
}

impl HostOp for Transpose {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let (order, own) = (self.order(x.rank()), strides(x.shape));
        let shape: Vec<usize> = order.iter().map(|d| x.shape[*d]).collect();
        let steps: Vec<usize> = order.iter().map(|d| own[*d]).collect();
        let mut places = Vec::with_capacity(x.len());
        walk(&shape, [&steps], |[at]| places.push(at));
        pick(x, outs, 0, &shape, &places)
    }
}

impl HostOp for Expand {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let shape = shape_of(outs, 0)?;
        let mut places = Vec::with_capacity(shape.iter().product());
        walk(&shape, [&broadcast_strides(x.shape, &shape)?], |[at]| places.push(at));
        pick(x, outs, 0, &shape, &places)
    }
}

/// The places in an input of `from` for every index of `shape`, where dimension `d` at index `i` reads `map(d, i)`.
fn mapped(from: &[usize], shape: &[usize], map: impl Fn(usize, usize) -> usize) -> Vec<usize> {
    let own = strides(from);
    let tables: Vec<Vec<usize>> =
        (0..shape.len()).map(|d| (0..shape[d]).map(|i| map(d, i) * own[d]).collect()).collect();
    let mut places = vec![0];
    for table in &tables {
        places = places.iter().flat_map(|at| table.iter().map(move |more| at + more)).collect();
    }
    places
}

impl HostOp for Tile {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let shape = shape_of(outs, 0)?;
        pick(x, outs, 0, &shape, &mapped(x.shape, &shape, |d, i| i % x.shape[d]))
    }
}

impl HostOp for Slice {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let cuts =
            call.with_args(|args| Slice::cuts(args, x.shape))?.ok_or("starts and ends must be integers")?;
        let shape: Vec<usize> = cuts.iter().map(|c| c.count).collect();
        let at = |d: usize, i: usize| {
            let Cut { start, step, .. } = cuts[d];
            (start as i64 + i as i64 * step) as usize
        };
        pick(x, outs, 0, &shape, &mapped(x.shape, &shape, at))
    }
}

impl HostOp for Pad {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let amounts = call.with_args(Pad::amounts)?.ok_or("pads must be integers")?;
        let shape = shape_of(outs, 0)?;
        let inside = |d: usize, i: usize| self.source(i as i64 - amounts[d].0, x.shape[d] as i64);
        // Along each dimension, which place an index reads; none of the value around.
        let tables: Vec<Vec<Option<usize>>> =
            (0..shape.len()).map(|d| (0..shape[d]).map(|i| inside(d, i)).collect()).collect();
        let w = x.width();
        let zero = [0u8; 8];
        let value = call.get(2).filter(|v| v.data.len() == w).map_or(&zero[..w.min(8)], |v| v.data);
        let out = room(outs, 0)?;
        // Dimensions behind the last one that is padded move in one piece.
        let whole = |d: &usize| tables[*d].iter().copied().eq((0..x.shape[*d]).map(Some));
        let behind = (0..shape.len()).rev().take_while(whole).count();
        let (padded, inner) = tables.split_at(shape.len() - behind);
        let piece = inner.iter().map(Vec::len).product::<usize>() * w;
        let Some((row, outer)) = padded.split_last() else {
            out.copy_from_slice(x.data);
            return Ok(());
        };
        let own = strides(&x.shape[..padded.len()]);
        let mut starts = vec![Some(0usize)];
        for (table, step) in outer.iter().zip(&own) {
            let next = |start: &Option<usize>| {
                let start = *start;
                table.iter().map(move |at| Some(start? + (*at)? * step)).collect::<Vec<_>>()
            };
            starts = starts.iter().flat_map(next).collect();
        }
        let value = value.repeat(piece / w.max(1));
        for (start, line) in starts.iter().zip(out.chunks_exact_mut((row.len() * piece).max(1))) {
            pad_row(x.data, *start, row, &value, line);
        }
        Ok(())
    }
}

/// Fills a row of pieces: piece `i` is the one at `start + row[i]`, or `value` where there is none.
fn pad_row(data: &[u8], start: Option<usize>, row: &[Option<usize>], value: &[u8], line: &mut [u8]) {
    let w = value.len();
    let mut i = 0;
    while i < row.len() {
        let from = start.and_then(|start| Some(start + row[i]?));
        // Neighbours that read neighbours are copied at once.
        let mut end = i + 1;
        while from.is_some() && end < row.len() && row[end] == row[end - 1].map(|at| at + 1) {
            end += 1;
        }
        match from {
            Some(from) => line[i * w..end * w].copy_from_slice(&data[from * w..][..(end - i) * w]),
            None => line[i * w..end * w].copy_from_slice(value),
        }
        i = end;
    }
}

trait Source {
    /// The element that place `at`, before, within or behind `n` of them, shows; none of the value around.
    fn source(&self, at: i64, n: i64) -> Option<usize>;
}

impl Source for Pad {
    fn source(&self, at: i64, n: i64) -> Option<usize> {
        if (0..n).contains(&at) {
            return Some(at as usize);
        }
        match self.mode {
            PadMode::Constant => None,
            _ if n == 0 => None,
            PadMode::Edge => Some(at.clamp(0, n - 1) as usize),
            PadMode::Wrap => Some(at.rem_euclid(n) as usize),
            PadMode::Reflect if n == 1 => Some(0),
            PadMode::Reflect => {
                let at = at.rem_euclid(2 * (n - 1));
                Some(at.min(2 * (n - 1) - at) as usize)
            }
        }
    }
}

impl HostOp for Concat {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let views: Vec<View<'_>> = (0..call.args.len()).map(|i| call.view(i)).collect::<Result<_, _>>()?;
        concat(&views, self.axis, outs)
    }
}

/// All views behind each other along an axis, as output 0.
pub(super) fn concat(views: &[View<'_>], along: i64, outs: &mut dyn Outs) -> Outcome {
    let first = views.first().ok_or("nothing to join")?;
    let along = axis(along, first.rank())?;
    let mut shape = first.shape.to_vec();
    shape[along] = views.iter().map(|v| v.shape[along]).sum();
    let (outer, _, inner) = around(&shape, along);
    if first.dtype == DType::Str {
        let rows = |o: usize| {
            views
                .iter()
                .flat_map(move |v| v.texts[o * v.shape[along] * inner..][..v.shape[along] * inner].iter())
        };
        let texts = (0..outer).flat_map(rows).cloned().collect();
        return outs.put(0, Array::texts(shape, texts).ok_or("texts do not fill the shape")?.into());
    }
    let w = first.width();
    let out = outs.make(0, first.dtype, &shape)?;
    let mut at = 0;
    for o in 0..outer {
        for v in views {
            let bytes = v.shape[along] * inner * w;
            out[at..at + bytes].copy_from_slice(&v.data[o * bytes..][..bytes]);
            at += bytes;
        }
    }
    Ok(())
}

impl HostOp for Split {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let along = axis(self.axis, x.rank())?;
        let sizes = call.with_args(|args| self.sizes(args))?.ok_or("sizes must be integers")?;
        let (outer, n, inner) = around(x.shape, along);
        let mut start = 0;
        for (i, size) in sizes.iter().enumerate() {
            let mut shape = x.shape.to_vec();
            shape[along] = *size;
            if outs.wants(i) {
                let rows = |o: usize| (o * n + start) * inner..(o * n + start + size) * inner;
                let places: Vec<usize> = (0..outer).flat_map(rows).collect();
                pick(x, outs, i, &shape, &places)?;
            }
            start += size;
        }
        Ok(())
    }
}

impl HostOp for Trilu {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let k = if call.get(1).is_some() { call.int(1)? } else { 0 };
        let &[.., rows, cols] = x.shape else { return Err("takes matrices".into()) };
        let w = x.width();
        let out = room(outs, 0)?;
        out.copy_from_slice(x.data);
        for (i, slot) in out.chunks_exact_mut(w).enumerate() {
            let (row, col) = ((i / cols % rows) as i64, (i % cols) as i64);
            let keep = if self.upper { col >= row.saturating_add(k) } else { col <= row.saturating_add(k) };
            if !keep {
                slot.fill(0);
            }
        }
        Ok(())
    }
}

impl HostOp for DepthSpace {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let &[n, c, h, w] = x.shape else { return Err("takes [N, C, H, W]".into()) };
        let b = self.block;
        let (from, order): (Vec<usize>, [usize; 6]) = match (self.to_space, self.channels_first) {
            (true, false) => (vec![n, b, b, c / (b * b), h, w], [0, 3, 4, 1, 5, 2]),
            (true, true) => (vec![n, c / (b * b), b, b, h, w], [0, 1, 4, 2, 5, 3]),
            (false, false) => (vec![n, c, h / b, b, w / b, b], [0, 3, 5, 1, 2, 4]),
            (false, true) => (vec![n, c, h / b, b, w / b, b], [0, 1, 3, 5, 2, 4]),
        };
        let own = strides(&from);
        let (sizes, steps): (Vec<usize>, Vec<usize>) = order.iter().map(|d| (from[*d], own[*d])).unzip();
        let mut places = Vec::with_capacity(x.len());
        walk(&sizes, [&steps], |[at]| places.push(at));
        let shape = shape_of(outs, 0)?;
        pick(x, outs, 0, &shape, &places)
    }
}
