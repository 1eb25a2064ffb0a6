//! The exporters: one file a family of ops, each with a table of its ops; `FAMILIES` gathers them.

pub(in crate::onnx) mod attention;
pub(in crate::onnx) mod constant;
pub(in crate::onnx) mod control;
pub(in crate::onnx) mod elementwise;
pub(in crate::onnx) mod fused;
pub(in crate::onnx) mod index;
pub(in crate::onnx) mod layout;
pub(in crate::onnx) mod linear;
pub(in crate::onnx) mod norm;
pub(in crate::onnx) mod order;
pub(in crate::onnx) mod pool;
pub(in crate::onnx) mod quantize;
pub(in crate::onnx) mod recurrent;
pub(in crate::onnx) mod reduce;
pub(in crate::onnx) mod resize;
pub(in crate::onnx) mod sample;
pub(in crate::onnx) mod sequence;
pub(in crate::onnx) mod signal;
pub(in crate::onnx) mod text;

use std::collections::HashMap;
use std::sync::OnceLock;

use super::node::Export;
use crate::onnx::families::FAMILIES;

/// Name of an op in the IR, and its exporter.
pub(in crate::onnx) type Entry = (&'static str, Export);

/// The exporter of an op, when there is one.
pub(super) fn exporter(op: &str) -> Option<Export> {
    static TABLE: OnceLock<HashMap<&'static str, Export>> = OnceLock::new();
    let table = TABLE.get_or_init(|| FAMILIES.iter().flat_map(|family| family.exporters).copied().collect());
    table.get(op).copied()
}
