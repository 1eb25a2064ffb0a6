//! Ops that are computed by their plain parts, one after the other.

use std::collections::HashMap;

use kinglet_graph::TensorType;
use kinglet_graph::ops::{Coded, DynamicProduct, IntegerProduct, Slot};
use kinglet_tensor::{Bytes, DType, Tensor};

use super::{Arg, Call, HostOp, Op, Outcome, Outs, View, host};
use crate::value::{Array, Value};

impl HostOp for Coded {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        by_parts(self, call, outs)
    }
}

impl HostOp for DynamicProduct {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        by_parts(self, call, outs)
    }
}

impl HostOp for IntegerProduct {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        by_parts(self, call, outs)
    }
}

/// Computes an op of one result by its parts.
fn by_parts(op: &dyn Op, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
    let parts = call.with_args(|args| op.decompose(args)).ok_or("cannot be taken apart")?;
    let mut made: HashMap<Slot, Array> = HashMap::new();
    for (i, tensor) in parts.constants.iter().enumerate() {
        let shape = tensor.shape().to_vec();
        let array =
            Array::new(tensor.dtype(), shape, tensor.data().clone()).ok_or("a constant is not whole")?;
        made.insert(Slot::Constant(i), array);
    }
    for part in &parts.nodes {
        let arg = |slot: &Slot| match slot {
            Slot::In(i) => call.args.get(*i).copied().unwrap_or(Arg::Absent),
            other => made.get(other).map_or(Arg::Absent, |array| Arg::Tensor(View::of(array))),
        };
        let args: Vec<Arg<'_>> = part.inputs.iter().map(arg).collect();
        let arrays = compute_all(&*part.op, &Call { args: &args }, part.outputs.len())?;
        made.extend(part.outputs.iter().copied().zip(arrays));
    }
    let out = made.remove(&Slot::Out(0)).ok_or("the last part is missing")?;
    outs.put(0, out.into())
}

/// The only output of an op, by its host kernel.
pub(crate) fn compute(op: &dyn Op, call: &Call<'_>) -> Result<Array, String> {
    compute_all(op, call, 1)?.pop().ok_or_else(|| format!("{} made nothing", op.name()))
}

/// The first outputs of an op, by its host kernel.
fn compute_all(op: &dyn Op, call: &Call<'_>, count: usize) -> Result<Vec<Array>, String> {
    let types = call.with_args(|args| op.infer(args))?;
    let planned = (0..count).map(|i| types.get(i).and_then(|ty| ty.known()).cloned()).collect();
    let mut outs = Several { planned, made: (0..count).map(|_| None).collect() };
    host(op).ok_or_else(|| format!("{} has no kernel", op.name()))?(op, call, &mut outs)?;
    let whole = |made: Option<Made>| made.ok_or_else(|| format!("{} made nothing", op.name()))?.finish();
    outs.made.into_iter().map(whole).collect()
}

/// The outputs of a part.
struct Several {
    planned: Vec<Option<TensorType>>,
    made: Vec<Option<Made>>,
}

enum Made {
    Bytes(DType, Vec<usize>, Vec<u8>),
    Value(Value),
}

impl Made {
    fn finish(self) -> Result<Array, String> {
        match self {
            Self::Bytes(dtype, shape, bytes) => Array::new(dtype, shape, Bytes::from(bytes))
                .ok_or_else(|| "the bytes do not fill the shape".into()),
            Self::Value(value) => value.tensor().cloned().ok_or_else(|| "made no tensor".into()),
        }
    }
}

impl Outs for Several {
    fn wants(&self, i: usize) -> bool {
        i < self.made.len()
    }

    fn planned(&self, i: usize) -> Option<(DType, Vec<usize>)> {
        let ty = self.planned.get(i)?.as_ref()?;
        Some((ty.dtype, ty.dims()?))
    }

    fn make(&mut self, i: usize, dtype: DType, shape: &[usize]) -> Result<&mut [u8], String> {
        let bytes = Tensor::bytes_of(dtype, shape).ok_or("the size overflows")?;
        let made = self.made.get_mut(i).ok_or("nobody asked for the output")?;
        match made.insert(Made::Bytes(dtype, shape.to_vec(), vec![0; bytes])) {
            Made::Bytes(.., bytes) => Ok(bytes),
            Made::Value(_) => Err("the output is no buffer".into()),
        }
    }

    fn put(&mut self, i: usize, value: Value) -> Outcome {
        if let Some(made) = self.made.get_mut(i) {
            *made = Some(Made::Value(value));
        }
        Ok(())
    }
}
