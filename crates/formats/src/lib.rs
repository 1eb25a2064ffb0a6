//! GGUF, safetensors, Core ML and Hugging Face folders, read over byte sources; the first two are written, too.
//!
//! Contract: every input is untrusted. A parser never panics, allocates nothing from a length it has not checked against
//! the bytes at hand and the caller's [`Limits`], and answers with a [`FormatError`] that names the place, what is wrong
//! and the way out. Tensors share the caller's bytes (usually a mapped file). Deliberately absent: paths, I/O, and what
//! the metadata means to a model.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

pub mod coreml;
mod cursor;
mod custom;
mod error;
mod export;
pub mod gguf;
pub mod hf;
mod kind;
mod limits;
pub mod npy;
pub mod onnx;
pub mod safetensors;
mod spec;

pub use coreml::CoreMl;
pub use error::{FormatError, Place, Problem};
pub use export::{ExportError, Missing};
pub use gguf::Gguf;
pub use kind::FileKind;
pub use limits::Limits;
pub use safetensors::Safetensors;
pub use spec::{TensorSpec, WriteError};
