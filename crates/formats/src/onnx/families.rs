//! The registry of operators: every family, with what reads it from files and what writes it to them.

use super::ops::{self as reads, microsoft};
use super::write::ops as writes;

/// A family of operators.
pub(super) struct Family {
    /// Domain, operator and importer of each operator of a file.
    pub importers: &'static [reads::Entry],
    /// Name and exporter of each op of a graph.
    pub exporters: &'static [writes::Entry],
}

impl Family {
    const fn of(importers: &'static [reads::Entry], exporters: &'static [writes::Entry]) -> Self {
        Self { importers, exporters }
    }
}

/// All families; those that no op is written as have no exporters, fused ops no importers.
pub(super) const FAMILIES: &[Family] = &[
    Family::of(reads::attention::OPS, writes::attention::OPS),
    Family::of(reads::constant::OPS, writes::constant::OPS),
    Family::of(reads::control::OPS, writes::control::OPS),
    Family::of(reads::elementwise::OPS, writes::elementwise::OPS),
    Family::of(reads::flex::OPS, &[]),
    Family::of(&[], writes::fused::OPS),
    Family::of(reads::index::OPS, writes::index::OPS),
    Family::of(reads::layout::OPS, writes::layout::OPS),
    Family::of(reads::linear::OPS, writes::linear::OPS),
    Family::of(reads::map::OPS, &[]),
    Family::of(reads::norm::OPS, writes::norm::OPS),
    Family::of(reads::order::OPS, writes::order::OPS),
    Family::of(reads::pool::OPS, writes::pool::OPS),
    Family::of(reads::quantize::OPS, writes::quantize::OPS),
    Family::of(reads::random::OPS, &[]),
    Family::of(reads::recurrent::OPS, writes::recurrent::OPS),
    Family::of(reads::reduce::OPS, writes::reduce::OPS),
    Family::of(reads::resize::OPS, writes::resize::OPS),
    Family::of(reads::sample::OPS, writes::sample::OPS),
    Family::of(reads::sequence::OPS, writes::sequence::OPS),
    Family::of(reads::signal::OPS, writes::signal::OPS),
    Family::of(reads::text::OPS, writes::text::OPS),
    Family::of(microsoft::OPS, &[]),
    Family::of(microsoft::attention::OPS, &[]),
    Family::of(microsoft::grouped::OPS, &[]),
    Family::of(microsoft::linear::OPS, &[]),
    Family::of(microsoft::norm::OPS, &[]),
    Family::of(microsoft::pictures::OPS, &[]),
    Family::of(microsoft::quantized::OPS, &[]),
];
