//! The steps: one operation a file, each a function that checks its arguments and returns the bound step.
//!
//! Activations are f32, row-major, `rows x cols`. Results do not depend on the number of workers: work is split only
//! along independent outputs, or at places that the shapes alone decide.

mod attention;
mod elementwise;
mod embed;
mod glu;
mod host;
mod layer_norm;
mod linear;
mod quantize;
mod rms_norm;
mod rope;
mod rows_out;
mod select_rows;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod vec;

pub use attention::{AttentionShape, attention};
pub use elementwise::{add, scale, softcap};
pub use embed::{RowTable, embed};
pub use glu::{Activation, glu};
pub use host::{HostFn, HostIo, host};
pub use layer_norm::layer_norm;
pub use linear::{Product, Weight, linear};
pub use quantize::quantize;
pub use rms_norm::{add_rms_norm, rms_norm};
pub use rope::{QkvSpans, RopeStyle, rope_store, rope_table};
pub use rows_out::RowsOut;
pub use select_rows::select_rows;

use crate::arena::Rows;

/// Below so many elements, sharing work costs more than doing it.
const SERIAL: usize = 4096;

/// Whether a row operation over `cols` columns is too small to share, or cannot be.
fn few(rows: Rows, cols: usize, dims: &[usize]) -> bool {
    rows.count(dims).is_none_or(|rows| rows < 2 || rows.saturating_mul(cols) <= SERIAL)
}
