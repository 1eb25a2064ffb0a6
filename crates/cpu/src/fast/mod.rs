//! Binders to fast kernels, for nodes of known shapes over floats; what they decline, host kernels compute.

mod attend;
mod chain;
mod codes;
mod conv;
mod elementwise;
mod images;
mod matmul;
mod parts;
mod recurrent;
mod rows;
mod transposed;

pub(crate) use attend::attend;
pub(crate) use codes::{coded, dequantize, quantize, rounded};
pub(crate) use conv::{conv, pool, reduce};
pub(crate) use elementwise::{batch_norm, binary, clip, transpose, unary};
pub(crate) use images::{concat, resize};
pub(crate) use matmul::{gemm, matmul};
pub(crate) use parts::{expand, gather, slice, split};
pub(crate) use recurrent::recurrent;
pub(crate) use rows::{layer_norm, softmax};
pub(crate) use transposed::conv_transpose;
