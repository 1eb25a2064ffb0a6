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
        let inside = |d: usize, i: usize| {
            let at = i as i64 - amounts[d].0;
            let n = x.shape[d] as i64;
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
        };
        let w = x.width();
        let zero = [0u8; 8];
        let value = call.get(2).filter(|v| v.data.len() == w).map_or(&zero[..w.min(8)], |v| v.data);
        let own = strides(x.shape);
        let out = room(outs, 0)?;
        let mut index = vec![0usize; shape.len()];
        for slot in out.chunks_exact_mut(w) {
            let place = (0..shape.len()).map(|d| Some(inside(d, index[d])? * own[d])).sum::<Option<usize>>();
            slot.copy_from_slice(place.map_or(value, |at| &x.data[at * w..][..w]));
            for d in (0..shape.len()).rev() {
                index[d] += 1;
                if index[d] < shape[d] {
                    break;
                }
                index[d] = 0;
            }
        }
        Ok(())
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
