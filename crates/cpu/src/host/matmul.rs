//! `MatMul` and `Gemm`, with f64 sums or exact integers.

use kinglet_graph::ops::{Gemm, MatMul};

use super::{
    Call, HostOp, Outcome, Outs, View, broadcast_strides, shape_of, store, store_ints, strides, walk,
};

/// `[rows, k] @ [k, cols]` with any distances of rows and columns.
fn product(
    m: usize,
    n: usize,
    k: usize,
    a: (&[f64], usize, usize),
    b: (&[f64], usize, usize),
    out: &mut [f64],
) {
    for i in 0..m {
        let row = &mut out[i * n..][..n];
        row.fill(0.0);
        let x = |p: usize| a.0[i * a.1 + p * a.2];
        // Four rows of `b` at a time, so that sums are loaded and stored for each fourth product only.
        let fours = if b.2 == 1 { k / 4 } else { 0 };
        for p in (0..fours).map(|four| 4 * four) {
            let [b0, b1, b2, b3] = [0, 1, 2, 3].map(|q| &b.0[(p + q) * b.1..][..n]);
            let [x0, x1, x2, x3] = [x(p), x(p + 1), x(p + 2), x(p + 3)];
            for (j, sum) in row.iter_mut().enumerate() {
                *sum = *sum + x0 * b0[j] + x1 * b1[j] + x2 * b2[j] + x3 * b3[j];
            }
        }
        for p in 4 * fours..k {
            row.iter_mut().enumerate().for_each(|(j, sum)| *sum += x(p) * b.0[p * b.1 + j * b.2]);
        }
    }
}

impl HostOp for MatMul {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (a, b) = (call.view(0)?, call.view(1)?);
        let values = matmul(a.shape, &a.f64s()?, b.shape, &b.f64s()?)?;
        put(outs, a, &values)
    }
}

/// The values of `a @ b`, row-major.
pub(super) fn matmul(a: &[usize], x: &[f64], b: &[usize], y: &[f64]) -> Result<Vec<f64>, String> {
    let one = |shape: &[usize], row: bool| match shape {
        [n] if row => vec![1, *n],
        [n] => vec![*n, 1],
        other => other.to_vec(),
    };
    let (a, b) = (one(a, true), one(b, false));
    let (&[ref outer_a @ .., m, k], &[ref outer_b @ .., _, n]) = (a.as_slice(), b.as_slice()) else {
        return Err("scalars cannot be multiplied as matrices".into());
    };
    let rank = outer_a.len().max(outer_b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    let outer: Vec<usize> =
        (0..rank).map(|i| if at(outer_a, i) == 1 { at(outer_b, i) } else { at(outer_a, i) }).collect();
    let mut values = vec![0.0; outer.iter().product::<usize>() * m * n];
    let (sa, sb) = (broadcast_strides(outer_a, &outer)?, broadcast_strides(outer_b, &outer)?);
    let mut done = 0;
    walk(&outer, [&sa, &sb], |[i, j]| {
        let (a, b) = ((&x[i * m * k..], k, 1), (&y[j * k * n..], n, 1));
        product(m, n, k, a, b, &mut values[done * m * n..][..m * n]);
        done += 1;
    });
    Ok(values)
}

fn put(outs: &mut dyn Outs, like: View<'_>, values: &[f64]) -> Outcome {
    if like.dtype.is_integer() {
        let ints: Vec<i64> = values.iter().map(|x| *x as i64).collect();
        return store_ints(outs, 0, &ints);
    }
    store(outs, 0, values)
}

impl HostOp for Gemm {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (a, b) = (call.view(0)?, call.view(1)?);
        let shape = shape_of(outs, 0)?;
        let &[m, n] = shape.as_slice() else { return Err("makes a matrix".into()) };
        let k = if self.trans_a { a.shape[0] } else { a.shape[1] };
        let by = |s: &[usize], t: bool| {
            let own = strides(s);
            if t { (own[1], own[0]) } else { (own[0], own[1]) }
        };
        let (sa, sb) = (by(a.shape, self.trans_a), by(b.shape, self.trans_b));
        let mut values = vec![0.0; m * n];
        product(m, n, k, (&a.f64s()?, sa.0, sa.1), (&b.f64s()?, sb.0, sb.1), &mut values);
        values.iter_mut().for_each(|x| *x *= f64::from(self.alpha));
        if let Some(c) = call.get(2) {
            let (c_values, steps) = (c.f64s()?, broadcast_strides(c.shape, &shape)?);
            let mut i = 0;
            walk(&shape, [&steps], |[at]| {
                values[i] += f64::from(self.beta) * c_values[at];
                i += 1;
            });
        }
        put(outs, a, &values)
    }
}
