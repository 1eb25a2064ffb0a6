//! Lists and optionals.

use kinglet_graph::axis;
use kinglet_graph::ops::Sequence;
use kinglet_tensor::{Bytes, DType};

use super::layout::{concat, pick};
use super::{Arg, Call, HostOp, Outcome, Outs, View, around};
use crate::value::{Array, Value};

impl HostOp for Sequence {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let list = |i: usize| match call.args.get(i) {
            Some(Arg::Other(Value::Sequence(list))) => Ok(list.as_slice()),
            _ => Err(format!("input {i} is no list")),
        };
        match self {
            Self::Empty => outs.put(0, Value::Sequence(Vec::new())),
            Self::Construct => {
                outs.put(0, Value::Sequence(call.args.iter().map(value).collect::<Result<_, _>>()?))
            }
            Self::At => outs.put(0, list(0)?[place(call.int(1)?, list(0)?.len())?].clone()),
            Self::Insert => {
                let mut new = list(0)?.to_vec();
                let at = call.get(2).map(|_| call.int(2)).transpose()?;
                let at = at.map_or(Ok(new.len()), |i| {
                    if i == new.len() as i64 { Ok(new.len()) } else { place(i, new.len()) }
                })?;
                new.insert(at, value(&call.args[1])?);
                outs.put(0, Value::Sequence(new))
            }
            Self::Erase => {
                let mut new = list(0)?.to_vec();
                let at = call.get(1).map(|_| call.int(1)).transpose()?.unwrap_or(-1);
                new.remove(place(at, new.len())?);
                outs.put(0, Value::Sequence(new))
            }
            Self::Length => outs.put(0, scalar(DType::I64, &(list(0)?.len() as i64).to_le_bytes())?),
            Self::Split { axis, keep } => split(call, *axis, *keep, outs),
            Self::Concat { axis, new } => join(list(0)?, *axis, *new, outs),
            Self::Optional => outs.put(0, call.args.first().map_or(Ok(Value::Nothing), value)?),
            Self::HasElement => {
                let there =
                    !matches!(call.args.first(), None | Some(Arg::Absent | Arg::Other(Value::Nothing)));
                outs.put(0, scalar(DType::Bool, &[u8::from(there)])?)
            }
            Self::GetElement => match call.args.first() {
                None | Some(Arg::Absent | Arg::Other(Value::Nothing)) => Err("the optional is empty".into()),
                Some(arg) => outs.put(0, value(arg)?),
            },
        }
    }
}

fn scalar(dtype: DType, bytes: &[u8]) -> Result<Value, String> {
    Array::new(dtype, Vec::new(), Bytes::copy_from_slice(bytes))
        .map(Value::from)
        .ok_or_else(|| "no scalar".into())
}

/// An argument as a value of its own.
fn value(arg: &Arg<'_>) -> Result<Value, String> {
    let array = match arg {
        Arg::Absent => return Ok(Value::Nothing),
        Arg::Other(value) => return Ok((*value).clone()),
        Arg::Tensor(v) if v.dtype == DType::Str => Array::texts(v.shape.to_vec(), v.texts.to_vec()),
        Arg::Tensor(v) => Array::new(v.dtype, v.shape.to_vec(), Bytes::copy_from_slice(v.data)),
    };
    array.map(Value::from).ok_or_else(|| "the elements do not fill the shape".into())
}

fn place(i: i64, n: usize) -> Result<usize, String> {
    let at = if i < 0 { i.saturating_add(n as i64) } else { i };
    usize::try_from(at).ok().filter(|at| *at < n).ok_or_else(|| format!("place {i} in a list of {n}"))
}

/// Collects what a kernel makes as one value.
struct One(Option<(DType, Vec<usize>, Vec<u8>)>, Option<Value>);

impl Outs for One {
    fn wants(&self, i: usize) -> bool {
        i == 0
    }

    fn planned(&self, _: usize) -> Option<(DType, Vec<usize>)> {
        None
    }

    fn make(&mut self, _: usize, dtype: DType, shape: &[usize]) -> Result<&mut [u8], String> {
        let bytes = kinglet_tensor::Tensor::bytes_of(dtype, shape).ok_or("the size overflows")?;
        Ok(&mut self.0.insert((dtype, shape.to_vec(), vec![0; bytes])).2)
    }

    fn put(&mut self, _: usize, value: Value) -> Outcome {
        self.1 = Some(value);
        Ok(())
    }
}

impl One {
    fn value(self) -> Result<Value, String> {
        let array = self.0.and_then(|(dtype, shape, data)| Array::new(dtype, shape, data.into()));
        array.map(Value::from).or(self.1).ok_or_else(|| "nothing was made".into())
    }
}

fn split(call: &Call<'_>, along: i64, keep: bool, outs: &mut dyn Outs) -> Outcome {
    let x = call.view(0)?;
    let along = axis(along, x.rank())?;
    let (outer, n, inner) = around(x.shape, along);
    let sizes: Vec<usize> = match call.get(1) {
        None => vec![1; n],
        Some(v) if v.rank() == 0 => {
            let each = usize::try_from(call.int(1)?).ok().filter(|n| *n > 0).ok_or("parts of nothing")?;
            (0..n.div_ceil(each)).map(|i| each.min(n - i * each)).collect()
        }
        Some(v) => v
            .i64s()?
            .iter()
            .map(|n| usize::try_from(*n).map_err(|_| "a negative size"))
            .collect::<Result<_, _>>()?,
    };
    if sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)) != Some(n) {
        return Err(format!("parts {sizes:?} of {n} elements"));
    }
    let (mut start, mut list) = (0, Vec::with_capacity(sizes.len()));
    for size in sizes {
        let rows = |o: usize| (o * n + start) * inner..(o * n + start + size) * inner;
        let places: Vec<usize> = (0..outer).flat_map(rows).collect();
        let mut shape = x.shape.to_vec();
        shape[along] = size;
        if !keep && call.get(1).is_none() {
            shape.remove(along);
        }
        let mut one = One(None, None);
        pick(x, &mut one, 0, &shape, &places)?;
        list.push(one.value()?);
        start += size;
    }
    outs.put(0, Value::Sequence(list))
}

fn join(list: &[Value], along: i64, new: bool, outs: &mut dyn Outs) -> Outcome {
    let arrays: Option<Vec<&Array>> = list.iter().map(Value::tensor).collect();
    let arrays = arrays.ok_or("only tensors can be joined")?;
    let first = arrays.first().ok_or("nothing to join")?;
    if arrays.iter().any(|a| a.shape().len() != first.shape().len()) {
        return Err("the tensors of the list differ in their number of dimensions".into());
    }
    let along = axis(along, first.shape().len() + usize::from(new))?;
    let shapes: Vec<Vec<usize>> = arrays
        .iter()
        .map(|a| {
            let mut shape = a.shape().to_vec();
            if new {
                shape.insert(along, 1);
            }
            shape
        })
        .collect();
    let view = |(a, shape): (&&Array, &'_ Vec<usize>)| {
        (a.dtype(), shape.clone(), a.bytes().to_vec(), a.as_texts().to_vec())
    };
    let owned: Vec<_> = arrays.iter().zip(&shapes).map(view).collect();
    let views: Vec<View<'_>> =
        owned.iter().map(|(dtype, shape, data, texts)| View { dtype: *dtype, shape, data, texts }).collect();
    let same = |v: &View<'_>| {
        v.rank() == views[0].rank() && (0..v.rank()).all(|d| d == along || v.shape[d] == views[0].shape[d])
    };
    if !views.iter().all(same) {
        return Err("the elements differ in shape".into());
    }
    concat(&views, along as i64, outs)
}
