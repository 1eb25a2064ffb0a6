//! The registry of importers: one file a family of operators, each with a table of its operators.

mod attention;
mod constant;
mod control;
mod elementwise;
mod flex;
mod index;
mod layout;
mod linear;
mod map;
mod microsoft;
mod norm;
mod order;
mod pool;
mod quantize;
mod random;
mod recurrent;
mod reduce;
mod resize;
mod sample;
mod sequence;
mod signal;
mod text;

use std::collections::HashMap;
use std::sync::OnceLock;

use super::node::Import;

pub(crate) use constant::{dense, text_constant};

/// Domain, operator, importer.
pub(crate) type Entry = (&'static str, &'static str, Import);

const FAMILIES: &[&[Entry]] = &[
    attention::OPS,
    constant::OPS,
    control::OPS,
    elementwise::OPS,
    flex::OPS,
    index::OPS,
    layout::OPS,
    linear::OPS,
    map::OPS,
    norm::OPS,
    order::OPS,
    pool::OPS,
    quantize::OPS,
    random::OPS,
    recurrent::OPS,
    reduce::OPS,
    resize::OPS,
    sample::OPS,
    sequence::OPS,
    signal::OPS,
    text::OPS,
];

/// The importer of an operator, when there is one.
pub(crate) fn importer(domain: &str, op: &str) -> Option<Import> {
    static TABLE: OnceLock<HashMap<(&'static str, &'static str), Import>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        FAMILIES
            .iter()
            .chain(microsoft::FAMILIES)
            .flat_map(|family| family.iter())
            .map(|(domain, op, import)| ((*domain, *op), *import))
            .collect()
    });
    table.get(&(domain, op)).copied()
}
