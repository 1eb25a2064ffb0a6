//! The registry of layers: one file a family, each with a table of its layers.

mod custom;
mod elementwise;
mod layout;
mod linear;
mod operations;
mod recurrent;
mod tables;
mod volumes;
mod windows;

use super::network::Import;

/// Layer and importer.
type Entry = (&'static str, Import);

const FAMILIES: &[&[Entry]] = &[
    custom::LAYERS,
    elementwise::LAYERS,
    layout::LAYERS,
    linear::LAYERS,
    recurrent::LAYERS,
    tables::LAYERS,
    volumes::LAYERS,
    windows::LAYERS,
];

/// The importer of a layer, when there is one.
pub(super) fn importer(kind: &str) -> Option<Import> {
    let rows = FAMILIES.iter().flat_map(|family| family.iter());
    let own = rows.into_iter().find(|(name, _)| *name == kind).map(|(_, import)| *import);
    own.or(operations::knows(kind).then_some(operations::import as Import))
}
