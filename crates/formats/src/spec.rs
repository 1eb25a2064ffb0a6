//! What a writer must know of a tensor before its data: name, type and shape.
//!
//! Writers take the data itself from a [`WeightSource`] one tensor at a time, so that a source may make each when asked
//! (a quantised model never lies in memory as a whole).

use std::io::Write;

use kinglet_tensor::{DType, Tensor, TensorError, WeightSource};

use crate::{FormatError, Place, Problem};

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the file.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Bytes of its data; an error when the shape is impossible for the type.
    pub fn bytes(&self) -> Result<usize, TensorError> {
        let Self { name, dtype, shape } = self.clone();
        Tensor::bytes_of(dtype, &shape).ok_or(TensorError::Shape { name, shape, dtype })
    }

    /// Writes the data of this tensor, after checking that `source` gives what was declared.
    pub(crate) fn copy(&self, source: &dyn WeightSource, sink: &mut dyn Write) -> Result<(), WriteError> {
        let tensor = source.tensor(&self.name)?;
        if tensor.dtype() != self.dtype || tensor.shape() != self.shape {
            let found = format!("{}{:?}", tensor.dtype(), tensor.shape());
            let declared = format!("{}{:?}", self.dtype, self.shape);
            return Err(Place::tensor(&self.name).has(Problem::Undeclared { declared, found }).into());
        }
        Ok(sink.write_all(tensor.data())?)
    }
}

impl From<&Tensor> for TensorSpec {
    fn from(tensor: &Tensor) -> Self {
        Self { name: tensor.name().to_owned(), dtype: tensor.dtype(), shape: tensor.shape().to_vec() }
    }
}

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// What was to be written cannot be stored so.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A tensor cannot be had, or cannot be what was declared.
    #[error(transparent)]
    Source(#[from] TensorError),
    /// The sink failed.
    #[error("cannot write the file: {0}; check the free space and the permissions")]
    Sink(#[from] std::io::Error),
}
