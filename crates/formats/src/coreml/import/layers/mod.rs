//! The registry of layers: one file a family, each with a table of its layers.

mod elementwise;
mod layout;
mod linear;
mod windows;

use super::network::Import;

/// Layer and importer.
type Entry = (&'static str, Import);

const FAMILIES: &[&[Entry]] = &[elementwise::LAYERS, layout::LAYERS, linear::LAYERS, windows::LAYERS];

/// The importer of a layer, when there is one.
pub(super) fn importer(kind: &str) -> Option<Import> {
    FAMILIES
        .iter()
        .flat_map(|family| family.iter())
        .find(|(name, _)| *name == kind)
        .map(|(_, import)| *import)
}
