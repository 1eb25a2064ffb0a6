//! A named, immutable, contiguous tensor over shared bytes (usually a mapped file).

use crate::{Bytes, DType, TensorError};

/// Row-major tensor, outermost dimension first; the innermost dimension holds whole blocks.
#[derive(Clone, Debug)]
pub struct Tensor {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// Checks that `data` is exactly what `shape` and `dtype` ask for.
    pub fn new(
        name: impl Into<String>,
        dtype: DType,
        shape: Vec<usize>,
        data: Bytes,
    ) -> Result<Self, TensorError> {
        let name = name.into();
        let expected = Self::bytes_of(dtype, &shape).ok_or_else(|| TensorError::Shape {
            name: name.clone(),
            shape: shape.clone(),
            dtype,
        })?;
        if data.len() != expected {
            return Err(TensorError::Length { name, shape, dtype, expected, found: data.len() });
        }
        Ok(Self { name, dtype, shape, data })
    }

    /// Bytes of a tensor, or none when the shape overflows or splits a block.
    pub fn bytes_of(dtype: DType, shape: &[usize]) -> Option<usize> {
        let (inner, outer) = shape.split_last().map_or((1, &[][..]), |(last, rest)| (*last, rest));
        let row = dtype.bytes_for(inner)?;
        outer.iter().try_fold(row, |bytes, &dim| bytes.checked_mul(dim))
    }

    /// The name it has in its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The stored bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}
