//! `Coded`: by its plain parts, one after the other.

use std::collections::HashMap;

use kinglet_graph::TensorType;
use kinglet_graph::ops::{Coded, Slot};
use kinglet_tensor::{Bytes, DType, Tensor};

use super::{Arg, Call, HostOp, Op, Outcome, Outs, View, host};
use crate::value::{Array, Value};

impl HostOp for Coded {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let parts = call.with_args(|args| self.decompose(args)).ok_or("cannot be taken apart")?;
        let mut made: HashMap<Slot, Array> = HashMap::new();
        for part in &parts.nodes {
            let arg = |slot: &Slot| match slot {
                Slot::In(i) => call.args.get(*i).copied().unwrap_or(Arg::Absent),
                other => made.get(other).map_or(Arg::Absent, |array| Arg::Tensor(View::of(array))),
            };
            let args: Vec<Arg<'_>> = part.inputs.iter().map(arg).collect();
            let array = compute(&*part.op, &Call { args: &args })?;
            made.insert(*part.outputs.first().ok_or("a part without a result")?, array);
        }
        let out = made.remove(&Slot::Out(0)).ok_or("the last part is missing")?;
        outs.put(0, out.into())
    }
}

/// The only output of an op, by its host kernel.
pub(crate) fn compute(op: &dyn Op, call: &Call<'_>) -> Result<Array, String> {
    let types = call.with_args(|args| op.infer(args))?;
    let planned = types.first().and_then(|ty| ty.known()).cloned();
    let mut outs = One { planned, made: None };
    host(op).ok_or_else(|| format!("{} has no kernel", op.name()))?(op, call, &mut outs)?;
    outs.made.ok_or_else(|| format!("{} made nothing", op.name()))?.finish()
}

/// The only output of a part.
struct One {
    planned: Option<TensorType>,
    made: Option<Made>,
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

impl Outs for One {
    fn wants(&self, i: usize) -> bool {
        i == 0
    }

    fn planned(&self, i: usize) -> Option<(DType, Vec<usize>)> {
        let ty = self.planned.as_ref().filter(|_| i == 0)?;
        Some((ty.dtype, ty.dims()?))
    }

    fn make(&mut self, i: usize, dtype: DType, shape: &[usize]) -> Result<&mut [u8], String> {
        let bytes = Tensor::bytes_of(dtype, shape).filter(|_| i == 0).ok_or("the size overflows")?;
        match self.made.insert(Made::Bytes(dtype, shape.to_vec(), vec![0; bytes])) {
            Made::Bytes(.., bytes) => Ok(bytes),
            Made::Value(_) => Err("the output is no buffer".into()),
        }
    }

    fn put(&mut self, i: usize, value: Value) -> Outcome {
        self.made = (i == 0).then_some(Made::Value(value));
        Ok(())
    }
}
