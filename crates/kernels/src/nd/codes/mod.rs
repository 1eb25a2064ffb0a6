//! Kernels over images and matrices of codes: unsigned bytes that stand for numbers, `(code - zero) * scale`.
//!
//! Images of codes lie in channel blocks of sixteen, as those of floats do, or in rows. Products are sums of integers, exact
//! on every instruction set; what becomes of them ([`Ending`]) is computed in f32 and rounded to the nearest code, halves to
//! even, so that a result is at most one code away from the one that real numbers give. A result does not depend on the
//! number of workers.

mod conv;
mod copy;
pub mod dynamic;
mod ending;
mod finish;
mod job;
mod join;
mod lanes;
mod map;
mod pack;
mod pool;
mod stem;
#[cfg(test)]
mod tests;
mod tile;

pub use conv::{CodeConv, CodeShape, CodeSpans, Scales, code_conv};
pub use ending::{Ending, Join, Line, Recode, Result8};
pub use join::{Fun, Pairing, Scale, pair_codes};
pub use map::{dequantize, quantize, translate};
pub use pack::CodePacking;
pub use pool::{mean_codes, pool_codes};
pub use stem::{FEW, quantize_image};
