//! `Shape`, `Size`, `ConstantOfShape`, `Range`, `EyeLike`, `OneHot`, `TextConstant`.

use kinglet_graph::axis;
use kinglet_graph::ops::{ConstantOfShape, EyeLike, OneHot, Range, Shape, Size, TextConstant, range_len};

use super::{Arg, Call, HostOp, Outcome, Outs, around, room, shape_of, store, store_ints};
use crate::value::{Array, Value};

impl HostOp for Shape {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let dims: Vec<i64> = x.shape[self.range(x.rank())].iter().map(|n| *n as i64).collect();
        store_ints(outs, 0, &dims)
    }
}

impl HostOp for Size {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let n = match call.args.first() {
            Some(Arg::Other(Value::Sequence(list))) => list.len(),
            _ => call.view(0)?.len(),
        };
        store_ints(outs, 0, &[n as i64])
    }
}

impl HostOp for ConstantOfShape {
    fn host(&self, _: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let value = self.value.data().clone();
        room(outs, 0)?.chunks_exact_mut(value.len()).for_each(|slot| slot.copy_from_slice(&value));
        Ok(())
    }
}

impl HostOp for Range {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (start, limit, step) = (call.view(0)?, call.view(1)?, call.view(2)?);
        let one = |v: super::View<'_>| v.f64s()?.first().copied().ok_or_else(|| "takes scalars".to_owned());
        let (first, last, by) = (one(start)?, one(limit)?, one(step)?);
        let count = range_len(first, last, by)?;
        let out = outs.make(0, start.dtype, &[count])?;
        if start.dtype.is_integer() {
            let values: Vec<i64> = (0..count as i64).map(|i| first as i64 + i * by as i64).collect();
            return super::numbers::from_i64(start.dtype, &values, out);
        }
        let values: Vec<f64> = (0..count).map(|i| first + i as f64 * by).collect();
        super::numbers::from_f64(start.dtype, &values, out)
    }
}

impl HostOp for EyeLike {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let &[rows, cols] = x.shape else { return Err("takes a matrix".into()) };
        let one = |i: usize| f64::from(u8::from((i / cols) as i64 + self.k == (i % cols) as i64));
        store(outs, 0, &(0..rows * cols).map(one).collect::<Vec<_>>())
    }
}

impl HostOp for OneHot {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (indices, depth, values) = (call.view(0)?, call.view(1)?, call.view(2)?);
        let depth = depth.f64s()?.first().copied().ok_or("a depth without value")? as usize;
        let along = axis(self.axis, indices.rank() + 1)?;
        let mut shape = indices.shape.to_vec();
        shape.insert(along, depth);
        let (outer, n, inner) = around(&shape, along);
        let (wanted, w) = (indices.f64s()?, values.width());
        if values.len() != 2 {
            return Err("takes the off-value and the on-value".into());
        }
        let out = outs.make(0, values.dtype, &shape)?;
        for o in 0..outer {
            for k in 0..n {
                for i in 0..inner {
                    let index = wanted[o * inner + i];
                    let index = if index < 0.0 { index + n as f64 } else { index };
                    let value = usize::from(index == k as f64);
                    out[((o * n + k) * inner + i) * w..][..w].copy_from_slice(&values.data[value * w..][..w]);
                }
            }
        }
        Ok(())
    }
}

impl HostOp for TextConstant {
    fn host(&self, _: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let shape = shape_of(outs, 0)?;
        let array = Array::texts(shape, self.texts.clone()).ok_or("texts do not fill the shape")?;
        outs.put(0, array.into())
    }
}
