//! What can be wrong with a weight matrix.

use kinglet_tensor::{AllocError, DType};

/// A matrix that cannot be packed or multiplied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum MatmulError {
    /// The type has no packed format.
    #[error("{dtype} has no packed format: multiply it in f32")]
    NotPackable { dtype: DType },
    /// The type is not one of numbers that can be multiplied.
    #[error("{dtype} weights cannot be multiplied: convert them to a floating-point or quantised type")]
    NotNumbers { dtype: DType },
    /// The matrix is empty, splits a block, or its size overflows.
    #[error("a {rows} x {cols} matrix of {dtype} is impossible")]
    Shape { dtype: DType, rows: usize, cols: usize },
    /// The bytes are not as many as the matrix takes.
    #[error("a {rows} x {cols} matrix of {dtype} takes {expected} bytes, found {found}")]
    Length { dtype: DType, rows: usize, cols: usize, expected: usize, found: usize },
    /// No memory for the packed copy.
    #[error("no memory for packed weights: {0}")]
    Memory(#[from] AllocError),
}
