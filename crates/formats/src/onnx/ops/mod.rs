//! The importers: one file a family of operators, each with a table of its operators; `FAMILIES` gathers them.

pub(in crate::onnx) mod attention;
pub(in crate::onnx) mod constant;
pub(in crate::onnx) mod control;
pub(in crate::onnx) mod elementwise;
pub(in crate::onnx) mod flex;
pub(in crate::onnx) mod index;
pub(in crate::onnx) mod layout;
pub(in crate::onnx) mod linear;
pub(in crate::onnx) mod map;
pub(in crate::onnx) mod microsoft;
pub(in crate::onnx) mod norm;
pub(in crate::onnx) mod order;
pub(in crate::onnx) mod pool;
pub(in crate::onnx) mod quantize;
pub(in crate::onnx) mod random;
pub(in crate::onnx) mod recurrent;
pub(in crate::onnx) mod reduce;
pub(in crate::onnx) mod resize;
pub(in crate::onnx) mod sample;
pub(in crate::onnx) mod sequence;
pub(in crate::onnx) mod signal;
pub(in crate::onnx) mod text;

use std::collections::HashMap;
use std::sync::OnceLock;

use super::families::FAMILIES;
use super::node::Import;

pub(crate) use constant::{dense, text_constant};

/// Domain, operator, importer.
pub(crate) type Entry = (&'static str, &'static str, Import);

/// The importer of an operator, when there is one.
pub(crate) fn importer(domain: &str, op: &str) -> Option<Import> {
    static TABLE: OnceLock<HashMap<(&'static str, &'static str), Import>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let rows = FAMILIES.iter().flat_map(|family| family.importers);
        rows.map(|(domain, op, import)| ((*domain, *op), *import)).collect()
    });
    table.get(&(domain, op)).copied()
}
