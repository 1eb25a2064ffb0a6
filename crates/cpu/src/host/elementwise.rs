//! `Unary`, `Binary`, `Where`, `Clip`, `Dropout`.

use kinglet_graph::ops::{Binary, Clip, Dropout, Fun2, Unary, Where};
use kinglet_tensor::DType;

use super::functions::{exact, of_float, of_floats, of_int, of_ints};
use super::{Call, HostOp, Outcome, Outs, View, broadcast_strides, room, shape_of, store, store_ints, walk};
use crate::value::Array;

impl HostOp for Unary {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        if x.dtype.is_integer() && exact(self.0) {
            let values: Vec<i64> = x.i64s()?.iter().map(|n| of_int(self.0, *n, x.dtype)).collect();
            return store_ints(outs, 0, &values);
        }
        let values: Vec<f64> = x.f64s()?.into_iter().map(|x| of_float(self.0, x)).collect();
        store(outs, 0, &values)
    }
}

impl HostOp for Binary {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (a, b) = (call.view(0)?, call.view(1)?);
        let shape = shape_of(outs, 0)?;
        let steps = [broadcast_strides(a.shape, &shape)?, broadcast_strides(b.shape, &shape)?];
        let mut places = Vec::with_capacity(shape.iter().product());
        walk(&shape, [&steps[0], &steps[1]], |at| places.push(at));
        if a.dtype == DType::Str {
            return texts(self.0, a, b, &places, outs);
        }
        if a.dtype.is_integer() && b.dtype.is_integer() {
            return ints(self.0, a, b, &places, outs);
        }
        let (x, y) = (a.f64s()?, b.f64s()?);
        let values: Vec<f64> = places.iter().map(|&[i, j]| of_floats(self.0, x[i], y[j])).collect();
        store(outs, 0, &values)
    }
}

fn texts(fun: Fun2, a: View<'_>, b: View<'_>, places: &[[usize; 2]], outs: &mut dyn Outs) -> Outcome {
    if fun != Fun2::Equal {
        return Err(format!("{fun:?} of texts"));
    }
    let values: Vec<i64> = places.iter().map(|&[i, j]| i64::from(a.texts[i] == b.texts[j])).collect();
    store_ints(outs, 0, &values)
}

fn ints(fun: Fun2, a: View<'_>, b: View<'_>, places: &[[usize; 2]], outs: &mut dyn Outs) -> Outcome {
    let (x, y) = (a.i64s()?, b.i64s()?);
    let wide = a.dtype == DType::U64;
    let width = 8 * a.width() as i64;
    let mut values = Vec::with_capacity(places.len());
    for &[i, j] in places {
        values.push(of_ints(fun, x[i], y[j], wide, width).ok_or("division by zero")?);
    }
    store_ints(outs, 0, &values)
}

impl HostOp for Where {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (condition, a, b) = (call.view(0)?, call.view(1)?, call.view(2)?);
        let shape = shape_of(outs, 0)?;
        let steps_of = |v: View<'_>| broadcast_strides(v.shape, &shape);
        let steps = [steps_of(condition)?, steps_of(a)?, steps_of(b)?];
        let mut places = Vec::with_capacity(shape.iter().product());
        walk(&shape, [&steps[0], &steps[1], &steps[2]], |at| places.push(at));
        if a.dtype == DType::Str {
            let pick =
                |&[c, i, j]: &[usize; 3]| if condition.data[c] != 0 { &a.texts[i] } else { &b.texts[j] };
            let texts = places.iter().map(|p| pick(p).clone()).collect();
            return outs.put(0, Array::texts(shape, texts).ok_or("texts do not fill the shape")?.into());
        }
        let w = a.width();
        let out = room(outs, 0)?;
        for (slot, [c, i, j]) in out.chunks_exact_mut(w).zip(places) {
            let from = if condition.data[c] != 0 { &a.data[i * w..] } else { &b.data[j * w..] };
            slot.copy_from_slice(&from[..w]);
        }
        Ok(())
    }
}

impl HostOp for Clip {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        if x.dtype.is_integer() {
            let bound = |i: usize| call.get(i).map(|_| call.int(i)).transpose();
            let (low, high) = (bound(1)?, bound(2)?);
            let wide = x.dtype == DType::U64;
            let less = |a: i64, b: i64| if wide { (a as u64) < b as u64 } else { a < b };
            let one = |n: i64| {
                let n = low.filter(|low| less(n, *low)).unwrap_or(n);
                high.filter(|high| less(*high, n)).unwrap_or(n)
            };
            let values: Vec<i64> = x.i64s()?.iter().map(|n| one(*n)).collect();
            return store_ints(outs, 0, &values);
        }
        let bound = |i: usize, default: f64| match call.get(i) {
            None => Ok(default),
            Some(view) => view.f64s()?.first().copied().ok_or_else(|| "an empty bound".to_owned()),
        };
        let (low, high) = (bound(1, f64::NEG_INFINITY)?, bound(2, f64::INFINITY)?);
        let one = |x: f64| if x.is_nan() { x } else { x.max(low).min(high) };
        let values: Vec<f64> = x.f64s()?.into_iter().map(one).collect();
        store(outs, 0, &values)
    }
}

impl HostOp for Dropout {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let training = call.get(2).and_then(|v| v.data.first().copied()).unwrap_or(0) != 0;
        let ratio = match call.get(1) {
            Some(view) => view.f64s()?.first().copied().unwrap_or(0.5),
            None => 0.5,
        };
        if training && ratio > 0.0 {
            return Err("dropping elements at random (training) is not supported".into());
        }
        room(outs, 0)?.copy_from_slice(x.data);
        if outs.wants(1) {
            room(outs, 1)?.fill(1);
        }
        Ok(())
    }
}
