//! What can be wrong with a tensor.

use crate::DType;

/// A tensor that cannot be what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum TensorError {
    /// The element count overflows, or the last dimension does not fill whole blocks.
    #[error("tensor `{name}`: shape {shape:?} is impossible for {dtype}")]
    Shape { name: String, shape: Vec<usize>, dtype: DType },
    /// The bytes are not as many as shape and type ask for.
    #[error("tensor `{name}`: {dtype}{shape:?} takes {expected} bytes, found {found}")]
    Length { name: String, shape: Vec<usize>, dtype: DType, expected: usize, found: usize },
    /// No such tensor in the source.
    #[error("tensor `{name}` is missing")]
    Missing { name: String },
    /// The bytes could not be had.
    #[error("tensor `{name}`: {reason}")]
    Unreadable { name: String, reason: String },
}
