//! The registry of operations: one file a family, each with a table of its operations.

mod elementwise;
mod layout;
mod linear;
mod windows;

use super::program::Import;

/// Operation and importer.
type Entry = (&'static str, Import);

const FAMILIES: &[&[Entry]] = &[elementwise::OPS, layout::OPS, linear::OPS, windows::OPS];

/// The importer of an operation, when there is one.
pub(super) fn importer(kind: &str) -> Option<Import> {
    FAMILIES
        .iter()
        .flat_map(|family| family.iter())
        .find(|(name, _)| *name == kind)
        .map(|(_, import)| *import)
}
