//! `y[m, n] = sum_k x[m, k] * w[n, k]`: weights of any type times activations in 8 bits or in f32.
//!
//! - [`PackedMatrix`] with [`matmul_q8`]: quantised weights, packed once, times activations quantised by
//!   [`quantize_rows`]. The fast way; exact but for the activations' eight bits (16 for large values).
//! - [`Matrix`] with [`matmul_f32`]: weights of any type as they lie in the file, times f32 activations. The exact way,
//!   and the only one for types that [`PackPlan::supports`] refuses.
//!
//! Workers share a product by ranges of tiles (or rows) of the weights; each writes its columns of one [`Output`]. The
//! value of an output does not depend on the number of rows beside it, on workers, or on how tiles are split.
//!
//! Absent: threads, and any knowledge of what is multiplied.

mod block;
mod codes;
mod decode;
mod error;
mod float;
mod formats;
mod over_panel;
mod packed;
mod panel;
mod q8;
mod quantize;
mod rows;
mod scales;
mod stream;
mod wide;

pub use error::MatmulError;
pub use float::{Matrix, matmul_f32};
pub use packed::{PackPlan, PackedMatrix, pack_fingerprint};
pub use q8::{Output, Part, matmul_q8, rows_at_a_time};
pub use quantize::{quantize_row, quantize_rows};
pub use rows::{QuantRows, quant_row_bytes};

#[cfg(test)]
mod tests;
