//! `Custom`: hands tensors to an op from outside, and takes its tensors.

use kinglet_graph::ops::Custom;
use kinglet_tensor::{Bytes, Tensor};

use super::{Arg, Call, HostOp, Outcome, Outs};
use crate::value::Array;

impl HostOp for Custom {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let tensor = |arg: &Arg<'_>| match arg {
            Arg::Absent => Ok(None),
            Arg::Tensor(v) => Tensor::new("", v.dtype, v.shape.to_vec(), Bytes::copy_from_slice(v.data))
                .map(Some)
                .map_err(|e| e.to_string()),
            Arg::Other(_) => Err("takes tensors only".to_owned()),
        };
        let inputs = call.args.iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
        for (i, made) in self.0.compute(&inputs)?.iter().enumerate() {
            if outs.wants(i) {
                outs.put(i, Array::from(made).into())?;
            }
        }
        Ok(())
    }
}
