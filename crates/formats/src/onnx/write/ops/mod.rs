//! The registry of exporters: one file a family of ops, each with a table of its ops.

mod attention;
mod constant;
mod control;
mod elementwise;
mod fused;
mod index;
mod layout;
mod linear;
mod norm;
mod order;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod sample;
mod sequence;
mod signal;
mod text;

use std::collections::HashMap;
use std::sync::OnceLock;

use super::node::Export;

/// Name of an op in the IR, and its exporter.
type Entry = (&'static str, Export);

const FAMILIES: &[&[Entry]] = &[
    attention::OPS,
    constant::OPS,
    control::OPS,
    elementwise::OPS,
    fused::OPS,
    index::OPS,
    layout::OPS,
    linear::OPS,
    norm::OPS,
    order::OPS,
    pool::OPS,
    quantize::OPS,
    recurrent::OPS,
    reduce::OPS,
    resize::OPS,
    sample::OPS,
    sequence::OPS,
    signal::OPS,
    text::OPS,
];

/// The exporter of an op, when there is one.
pub(super) fn exporter(op: &str) -> Option<Export> {
    static TABLE: OnceLock<HashMap<&'static str, Export>> = OnceLock::new();
    let table = TABLE.get_or_init(|| FAMILIES.iter().flat_map(|family| family.iter()).copied().collect());
    table.get(op).copied()
}
