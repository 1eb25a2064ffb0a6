//! Outputs of host kernels, in buffers of a pool.

use kinglet_graph::TensorType;
use kinglet_tensor::{DType, PooledBuffer};

use crate::env::Fold;
use crate::host::Outs;
use crate::value::{Array, Value};

/// What a kernel makes.
pub(crate) struct Outputs<'a> {
    room: &'a Fold,
    planned: Vec<Option<TensorType>>,
    made: Vec<Option<Made>>,
}

enum Made {
    Buffer(DType, Vec<usize>, PooledBuffer),
    Value(Value),
}

impl<'a> Outputs<'a> {
    pub(crate) fn new(room: &'a Fold, planned: Vec<Option<TensorType>>) -> Self {
        let made = planned.iter().map(|_| None).collect();
        Self { room, planned, made }
    }

    pub(crate) fn finish(self) -> Vec<Option<Value>> {
        let value = |made: Made| match made {
            Made::Buffer(dtype, shape, data) => Array::pooled(dtype, shape, data).into(),
            Made::Value(value) => value,
        };
        self.made.into_iter().map(|made| made.map(value)).collect()
    }
}

impl Outs for Outputs<'_> {
    fn wants(&self, i: usize) -> bool {
        i < self.planned.len()
    }

    fn planned(&self, i: usize) -> Option<(DType, Vec<usize>)> {
        let ty = self.planned.get(i)?.as_ref()?;
        Some((ty.dtype, ty.dims()?))
    }

    fn make(&mut self, i: usize, dtype: DType, shape: &[usize]) -> Result<&mut [u8], String> {
        let slot = self.made.get_mut(i).ok_or_else(|| format!("no output {i}"))?;
        let buffer = self.room.lend(dtype, shape)?;
        match slot.insert(Made::Buffer(dtype, shape.to_vec(), buffer)) {
            Made::Buffer(.., buffer) => Ok(&mut buffer[..]),
            Made::Value(_) => Err("the output is no buffer".into()),
        }
    }

    fn put(&mut self, i: usize, value: Value) -> Result<(), String> {
        *self.made.get_mut(i).ok_or_else(|| format!("no output {i}"))? = Some(Made::Value(value));
        Ok(())
    }
}
