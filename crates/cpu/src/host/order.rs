//! `TopK`, `Unique`, `NonZero`, `Compress`, `Cumulative`, `ReverseSequence`.

use std::cmp::Ordering;

use kinglet_graph::axis;
use kinglet_graph::ops::{Compress, Cumulative, NonZero, ReverseSequence, TopK, Unique};
use kinglet_tensor::DType;

use super::layout::pick;
use super::numbers::from_i64;
use super::{Call, HostOp, Outcome, Outs, View, around, store, store_ints, strides};

/// The elements as keys that order as they do.
fn keys(x: View<'_>) -> Result<Vec<f64>, String> {
    if x.dtype == DType::Str { Err("texts have no order here".into()) } else { x.f64s() }
}

impl HostOp for TopK {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let along = axis(self.axis, x.rank())?;
        let (outer, n, inner) = around(x.shape, along);
        let k =
            usize::try_from(call.int(1)?).ok().filter(|k| *k <= n).ok_or("more elements than there are")?;
        let values = keys(x)?;
        let (mut places, mut indices) = (vec![0; outer * k * inner], vec![0; outer * k * inner]);
        for o in 0..outer {
            for i in 0..inner {
                let at = |j: usize| (o * n + j) * inner + i;
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|a, b| {
                    let ordering = values[at(*a)].partial_cmp(&values[at(*b)]).unwrap_or(Ordering::Equal);
                    (if self.largest { ordering.reverse() } else { ordering }).then(a.cmp(b))
                });
                for (rank, j) in order.into_iter().take(k).enumerate() {
                    let to = (o * k + rank) * inner + i;
                    (places[to], indices[to]) = (at(j), j as i64);
                }
            }
        }
        let mut shape = x.shape.to_vec();
        shape[along] = k;
        pick(x, outs, 0, &shape, &places)?;
        if outs.wants(1) {
            from_i64(DType::I64, &indices, outs.make(1, DType::I64, &shape)?)?;
        }
        Ok(())
    }
}

impl HostOp for Unique {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let shape = if self.axis.is_some() { x.shape.to_vec() } else { vec![x.len()] };
        let along = axis(self.axis.unwrap_or(0), shape.len())?;
        let (outer, n, inner) = around(&shape, along);
        let values = keys(x)?;
        let places =
            |k: usize| (0..outer).flat_map(move |o| (0..inner).map(move |i| (o * n + k) * inner + i));
        let compare = |a: usize, b: usize| {
            let pairs = places(a).zip(places(b));
            pairs.map(|(p, q)| values[p].total_cmp(&values[q])).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        };
        let mut sorted: Vec<usize> = (0..n).collect();
        sorted.sort_by(|a, b| compare(*a, *b).then(a.cmp(b)));
        // Groups of equal slices, each by its first occurrence.
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for k in sorted {
            match groups.last_mut().filter(|g| compare(g[0], k).is_eq()) {
                Some(group) => group.push(k),
                None => groups.push(vec![k]),
            }
        }
        if !self.sorted {
            groups.sort_by_key(|group| group[0]);
        }
        let mut inverse = vec![0; n];
        groups.iter().enumerate().for_each(|(g, list)| list.iter().for_each(|k| inverse[*k] = g as i64));
        let mut made = shape.clone();
        made[along] = groups.len();
        let row = |o: usize, group: &[usize]| {
            (0..inner).map(|i| (o * n + group[0]) * inner + i).collect::<Vec<_>>()
        };
        let at: Vec<usize> = (0..outer).flat_map(|o| groups.iter().flat_map(move |g| row(o, g))).collect();
        pick(x, outs, 0, &made, &at)?;
        let first: Vec<i64> = groups.iter().map(|g| g[0] as i64).collect();
        let counts: Vec<i64> = groups.iter().map(|g| g.len() as i64).collect();
        for (i, list) in [(1, first), (2, inverse), (3, counts)] {
            if outs.wants(i) {
                from_i64(DType::I64, &list, outs.make(i, DType::I64, &[list.len()])?)?;
            }
        }
        Ok(())
    }
}

impl HostOp for NonZero {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let values = x.f64s()?;
        let found: Vec<usize> = (0..values.len()).filter(|i| values[*i] != 0.0).collect();
        let own = strides(x.shape);
        let index = |d: usize, at: &usize| (at / own[d] % x.shape[d]) as i64;
        let list: Vec<i64> = (0..x.rank()).flat_map(|d| found.iter().map(move |at| index(d, at))).collect();
        from_i64(DType::I64, &list, outs.make(0, DType::I64, &[x.rank(), found.len()])?)
    }
}

impl HostOp for Compress {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, condition) = (call.view(0)?, call.view(1)?);
        let mut shape = if self.axis.is_some() { x.shape.to_vec() } else { vec![x.len()] };
        let along = axis(self.axis.unwrap_or(0), shape.len())?;
        let (outer, n, inner) = around(&shape, along);
        let kept: Vec<usize> = (0..n.min(condition.data.len())).filter(|k| condition.data[*k] != 0).collect();
        let row = |o: usize, k: usize| (0..inner).map(move |i| (o * n + k) * inner + i);
        let places: Vec<usize> = (0..outer).flat_map(|o| kept.iter().flat_map(move |k| row(o, *k))).collect();
        shape[along] = kept.len();
        pick(x, outs, 0, &shape, &places)
    }
}

impl HostOp for Cumulative {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let (outer, n, inner) = around(x.shape, axis(call.int(1)?, x.rank())?);
        let sizes = [outer, n, inner];
        if x.dtype.is_integer() {
            let mut values = x.i64s()?.into_owned();
            let join = |a: i64, b: i64| if self.product { a.wrapping_mul(b) } else { a.wrapping_add(b) };
            run(self, sizes, &mut values, i64::from(self.product), join);
            return store_ints(outs, 0, &values);
        }
        let mut values = x.f64s()?;
        let join = |a: f64, b: f64| if self.product { a * b } else { a + b };
        run(self, sizes, &mut values, f64::from(u8::from(self.product)), join);
        store(outs, 0, &values)
    }
}

/// Replaces each element of `[outer, n, inner]` by what is joined up to it, in the order of the op.
fn run<T: Copy>(
    op: &Cumulative,
    [outer, n, inner]: [usize; 3],
    values: &mut [T],
    start: T,
    join: impl Fn(T, T) -> T,
) {
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let mut sum = start;
        for k in 0..n {
            let at = (o * n + if op.reverse { n - 1 - k } else { k }) * inner + i;
            let next = join(sum, values[at]);
            values[at] = if op.exclusive { sum } else { next };
            sum = next;
        }
    }
}

impl HostOp for ReverseSequence {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, lengths) = (call.view(0)?, call.view(1)?.i64s()?);
        let inner: usize = x.shape[2..].iter().product();
        let (rows, cols) = (x.shape[0], x.shape[1]);
        let mut places = Vec::with_capacity(x.len());
        for r in 0..rows {
            for c in 0..cols {
                let (batch, time) = if self.batch_axis == 0 { (r, c) } else { (c, r) };
                let length = *lengths.get(batch).ok_or("too few lengths")? as usize;
                let from = if time < length { length - 1 - time } else { time };
                let (r, c) = if self.batch_axis == 0 { (r, from) } else { (from, c) };
                if r >= rows || c >= cols {
                    return Err("a length is larger than the time".into());
                }
                places.extend((0..inner).map(|i| (r * cols + c) * inner + i));
            }
        }
        pick(x, outs, 0, x.shape, &places)
    }
}
