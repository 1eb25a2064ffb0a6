//! ONNX models (IR version up to 14, opsets 7 to 28), read from bytes into graphs, and written from graphs.
//!
//! Symbolic dims stay symbolic, functions are inlined, versions of an operator are told apart by the importer of its family
//! under `ops/`. Everything that cannot be imported is told at once. Deliberately absent: paths (external data comes
//! through [`External`]), training graphs, and evaluating anything.

mod attributes;
mod error;
mod families;
mod node;
mod ops;
pub mod proto;
mod read;
mod scope;
mod tensor;
mod write;

/// Encoding and decoding of the messages in [`proto`].
pub use prost;

pub use crate::custom::{CustomNode, CustomOps};
pub use error::{ExternalError, OnnxError};
pub use read::{OnnxModel, read, read_with};
pub use tensor::{External, NoExternal, dtype_of, tensor};
pub use write::{NEWEST_OPSET, OLDEST_OPSET, OPSET, WriteOptions, Written, write};
