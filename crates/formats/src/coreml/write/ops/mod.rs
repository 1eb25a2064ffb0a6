//! The registry of exporters: one file a family of ops, each with a table of its ops.

mod attention;
mod cells;
mod control;
mod elementwise;
mod layout;
mod linear;
mod norm;
mod quantize;
mod recurrent;
mod windows;

use super::node::Export;

/// Name of an op in the IR, and its exporter.
type Entry = (&'static str, Export);

const FAMILIES: &[&[Entry]] = &[
    attention::OPS,
    control::OPS,
    elementwise::OPS,
    layout::OPS,
    linear::OPS,
    norm::OPS,
    quantize::OPS,
    recurrent::OPS,
    windows::OPS,
];

/// The exporter of an op, when there is one.
pub(super) fn exporter(op: &str) -> Option<Export> {
    FAMILIES.iter().flat_map(|family| family.iter()).find(|(name, _)| *name == op).map(|(_, export)| *export)
}
