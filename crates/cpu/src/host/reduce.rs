//! `Reduce`, `ArgReduce`, `Softmax`.

use kinglet_graph::axis;
use kinglet_graph::ops::{ArgReduce, Reduce, ReduceKind, Softmax, SoftmaxKind};
use kinglet_tensor::DType;

use super::{Call, HostOp, Outcome, Outs, around, store, store_ints, strides, walk};

impl HostOp for Reduce {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let folded = call.with_args(|args| self.axes(args))?.ok_or("axes must be integers")?;
        let kept: Vec<usize> = (0..x.rank()).filter(|d| !folded.contains(d)).collect();
        let (own, sizes) =
            (strides(x.shape), |dims: &[usize]| dims.iter().map(|d| x.shape[*d]).collect::<Vec<_>>());
        let steps = |dims: &[usize]| dims.iter().map(|d| own[*d]).collect::<Vec<_>>();
        let (mut starts, mut offsets) = (Vec::new(), Vec::new());
        walk(&sizes(&kept), [&steps(&kept)], |[at]| starts.push(at));
        walk(&sizes(&folded), [&steps(&folded)], |[at]| offsets.push(at));
        if x.dtype.is_integer() && int_kind(self.kind) {
            let values = x.i64s()?;
            let wide = x.dtype == DType::U64;
            let one =
                |start: &usize| of_ints(self.kind, offsets.iter().map(|o| values[start + o]), wide, x.dtype);
            return store_ints(outs, 0, &starts.iter().map(one).collect::<Vec<_>>());
        }
        let values = x.f64s()?;
        let one = |start: &usize| {
            let list: Vec<f64> = offsets.iter().map(|o| values[start + o]).collect();
            of_floats(self.kind, &list)
        };
        let made: Vec<f64> = starts.iter().map(one).collect();
        if x.dtype.is_integer() {
            return store_ints(outs, 0, &made.iter().map(|x| *x as i64).collect::<Vec<_>>());
        }
        store(outs, 0, &made)
    }
}

fn int_kind(kind: ReduceKind) -> bool {
    use ReduceKind::*;
    matches!(kind, Sum | Max | Min | Prod | L1 | SumSquare)
}

fn of_ints(kind: ReduceKind, values: impl Iterator<Item = i64>, wide: bool, dtype: DType) -> i64 {
    let bits = 8 * dtype.block_bytes() as u32;
    let order = |n: &i64| if wide { i128::from(*n as u64) } else { i128::from(*n) };
    match kind {
        ReduceKind::Max => values.max_by_key(order).unwrap_or(if dtype == DType::Bool || wide {
            0
        } else {
            -1 << (bits - 1)
        }),
        ReduceKind::Min => values.min_by_key(order).unwrap_or(match dtype {
            DType::Bool => 1,
            DType::U64 => -1,
            _ => i64::MAX >> (64 - bits),
        }),
        ReduceKind::Prod => values.fold(1, i64::wrapping_mul),
        ReduceKind::L1 => values.fold(0, |sum, n| sum.wrapping_add(n.wrapping_abs())),
        ReduceKind::SumSquare => values.fold(0, |sum, n| sum.wrapping_add(n.wrapping_mul(n))),
        _ => values.fold(0, i64::wrapping_add),
    }
}

fn of_floats(kind: ReduceKind, values: &[f64]) -> f64 {
    // The sum of nothing is no negative zero.
    let sum = |f: fn(f64) -> f64| values.iter().map(|x| f(*x)).fold(0.0, |sum, x| sum + x);
    let extreme = |start: f64, f: fn(f64, f64) -> f64| {
        values.iter().fold(start, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { f(a, *b) })
    };
    match kind {
        ReduceKind::Sum => sum(|x| x),
        ReduceKind::Mean => sum(|x| x) / values.len() as f64,
        ReduceKind::Max => extreme(f64::NEG_INFINITY, f64::max),
        ReduceKind::Min => extreme(f64::INFINITY, f64::min),
        ReduceKind::Prod => values.iter().product(),
        ReduceKind::L1 => sum(f64::abs),
        ReduceKind::L2 => sum(|x| x * x).sqrt(),
        ReduceKind::LogSum => sum(|x| x).ln(),
        ReduceKind::LogSumExp => {
            let most = extreme(f64::NEG_INFINITY, f64::max);
            let base = if most.is_finite() { most } else { 0.0 };
            values.iter().map(|x| (x - base).exp()).sum::<f64>().ln() + base
        }
        ReduceKind::SumSquare => sum(|x| x * x),
    }
}

impl HostOp for ArgReduce {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let along = axis(self.axis, x.rank())?;
        let (outer, n, inner) = around(x.shape, along);
        let values = x.f64s()?;
        let better = |a: f64, b: f64| match (self.max, self.last) {
            (true, false) => a > b,
            (true, true) => a >= b,
            (false, false) => a < b,
            (false, true) => a <= b,
        };
        let mut made = vec![0; outer * inner];
        let groups = if n == 0 { 0 } else { outer };
        for o in 0..groups {
            let row = |k: usize| &values[(o * n + k) * inner..][..inner];
            let mut best = row(0).to_vec();
            for k in 1..n {
                let slots = best.iter_mut().zip(&mut made[o * inner..][..inner]);
                for ((best, at), x) in slots.zip(row(k)) {
                    let wins = better(*x, *best);
                    (*best, *at) = if wins { (*x, k as i64) } else { (*best, *at) };
                }
            }
        }
        store_ints(outs, 0, &made)
    }
}

impl HostOp for Softmax {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let rank = x.rank();
        let along = if self.axis == rank as i64 { rank } else { axis(self.axis, rank.max(1))? };
        let (outer, n, inner) = if self.flat || along >= rank {
            (x.shape[..along.min(rank)].iter().product(), x.shape[along.min(rank)..].iter().product(), 1)
        } else {
            around(x.shape, along)
        };
        let mut values = x.f64s()?;
        for o in 0..outer {
            for i in 0..inner {
                let at = |k: usize| (o * n + k) * inner + i;
                let most = (0..n).fold(f64::NEG_INFINITY, |m, k| m.max(values[at(k)]));
                let first = (0..n).find(|k| values[at(*k)] == most);
                let total: f64 = (0..n).map(|k| (values[at(k)] - most).exp()).sum();
                for k in 0..n {
                    let x = values[at(k)];
                    values[at(k)] = match self.kind {
                        SoftmaxKind::Soft => (x - most).exp() / total,
                        SoftmaxKind::Log => x - most - total.ln(),
                        SoftmaxKind::Hard => f64::from(u8::from(Some(k) == first)),
                    };
                }
            }
        }
        store(outs, 0, &values)
    }
}
