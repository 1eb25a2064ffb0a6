//! The registry of operations: one file a family, each with a table of its operations.

mod boxes;
mod control;
mod elementwise;
mod layout;
mod linear;
mod lists;
mod order;
mod quantize;
mod random;
mod recurrent;
mod sampling;
mod scatter;
mod slices;
mod windows;

use super::program::Import;

/// Operation and importer.
type Entry = (&'static str, Import);

const FAMILIES: &[&[Entry]] = &[
    boxes::OPS,
    control::OPS,
    elementwise::OPS,
    layout::OPS,
    linear::OPS,
    lists::OPS,
    order::OPS,
    quantize::OPS,
    random::OPS,
    recurrent::OPS,
    sampling::OPS,
    scatter::OPS,
    slices::OPS,
    windows::OPS,
];

/// The importer of an operation, when there is one.
pub(super) fn importer(kind: &str) -> Option<Import> {
    FAMILIES
        .iter()
        .flat_map(|family| family.iter())
        .find(|(name, _)| *name == kind)
        .map(|(_, import)| *import)
}
