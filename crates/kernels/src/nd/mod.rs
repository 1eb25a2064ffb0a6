//! Kernels over images and matrices in f32: what vision and embedding models are made of.
//!
//! Weights are packed once, for one instruction set ([`Packing`]), and shared by all objects ([`Conv`], …) that read them; those
//! are bound to spans as steps. Images
//! lie in channel blocks of sixteen between convolutions ([`Layout::Blocked`]), on every instruction set.
//! A result does not depend on the number of workers.

mod act;
mod attention;
pub mod codes;
mod conv;
mod elementwise;
mod gemm;
mod images;
mod layout;
mod lstm;
mod matmul;
mod packed;
mod pairs;
mod pool;
mod reduce;
mod shape;
mod softmax;
mod strided;
#[cfg(test)]
mod testing;
mod tile;

use kinglet_tensor::AllocError;

pub use act::Act;
pub use attention::{Blank, Heads, Mask, Operand, Output, short_attention};
pub use conv::{Conv, ConvChain, ConvPacking, ConvShape, Scatter, conv, conv_chain};
pub use elementwise::{Binary, Side, Unary, binary, unary};
pub use gemm::{Gemm, GemmPacking, GemmProduct, Order, gemm, gemms};
pub use images::{concat, enlarge, unfold};
pub use layout::{BLOCK, Layout, relayout};
pub use lstm::{Lstm, LstmSpans, lstm};
pub use matmul::{Products, matmul};
pub use packed::{Packed, Packing, fingerprint};
pub use pool::{Pool, global_mean, pool};
pub use reduce::row_sums;
pub use shape::Window;
pub use softmax::softmax;
pub use strided::{Axes, copy};

/// Weights or shapes that no kernel can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct NdError {
    /// Which kernel.
    pub what: &'static str,
    /// What does not fit.
    pub reason: String,
}

impl From<AllocError> for NdError {
    fn from(e: AllocError) -> Self {
        Self { what: "packing", reason: e.to_string() }
    }
}
