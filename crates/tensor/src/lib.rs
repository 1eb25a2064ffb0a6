//! Data types, quantised block formats, tensors over shared bytes, buffer pool.
//!
//! The vocabulary that every higher floor shares. Nothing here knows a kernel, a file format or a model.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod aligned;
mod dtype;
mod error;
#[cfg(not(target_family = "wasm"))]
mod filebuf;
#[cfg(not(target_family = "wasm"))]
mod mapped;
mod metadata;
mod pool;
pub mod quant;
mod ragged;
mod source;
mod strlist;
mod tensor;

pub use aligned::{AlignedBuf, AllocError, COPY_PIECE};
pub use bytes::Bytes;
pub use dtype::DType;
pub use error::TensorError;
#[cfg(not(target_family = "wasm"))]
pub use filebuf::{FileBuf, FileRange, file_of};
#[cfg(not(target_family = "wasm"))]
pub use mapped::{map_file, release_pages};
pub use metadata::{MetaValue, Metadata};
pub use pool::{BufferPool, Contents, PoolLimits, PoolStats, PooledBuffer, WeakPool};
pub use ragged::{KvLayer, KvSpec, KvType, PageId, SeqRows};
pub use source::{MemoryWeights, WeightSource};
pub use strlist::StrList;
pub use tensor::Tensor;
