//! `SelectRows`: a compact copy of some rows.

use kinglet_tensor::DType;

use super::{Op, cols};
use crate::{Args, TensorType, Type};

/// `y[r, :] = x[rows[r], :]`. Inputs: `x` f32 `[T, dim]`, `rows` i32 `[R]`; output f32 `[R, dim]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectRows;

impl Op for SelectRows {
    fn name(&self) -> &'static str {
        "SelectRows"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let inputs = args.tensors::<2>()?;
        match (inputs[1].dtype, inputs[1].shape.as_slice()) {
            (DType::I32, &[rows]) => Ok(vec![TensorType::rows_of(rows, cols("x", inputs[0])?).into()]),
            _ => Err("takes i32[R] row indices".into()),
        }
    }
}
