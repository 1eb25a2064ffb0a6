//! `Embed`: rows of a table by index.

use kinglet_tensor::DType;

use super::{Op, cols};
use crate::{Args, Dim, TensorType, Type};

/// `y[t, :] = scale * table[ids[t], :]`. Inputs: `ids` i32 `[T]`, `table` `[vocab, dim]`; output f32 `[T, dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Embed {
    /// Factor on every row; Gemma uses `sqrt(dim)`, most models 1.
    pub scale: f32,
}

impl Op for Embed {
    fn name(&self) -> &'static str {
        "Embed"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let inputs = args.tensors::<2>()?;
        let (ids, table) = (inputs[0], inputs[1]);
        match (ids.dtype, ids.shape.as_slice(), table.shape.as_slice()) {
            (DType::I32, &[rows], &[Dim::Fixed(_), _]) => {
                Ok(vec![TensorType::rows_of(rows, cols("table", table)?).into()])
            }
            _ => Err("takes i32[T] ids and a [vocab, dim] table".into()),
        }
    }

    fn describe(&self) -> String {
        if self.scale == 1.0 { String::new() } else { format!("scale {}", self.scale) }
    }
}
