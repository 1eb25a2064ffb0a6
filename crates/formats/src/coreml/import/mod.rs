//! Core ML models to graphs: the operations of programs and the layers of networks, in the ops of the IR.
//!
//! Numbers of half precision are computed in f32. A picture input is `[1, C, H, W]`, values from 0 to 255 in the channel order
//! that the model's interface tells; what a network does to pictures first is part of the graph. Each operation and each
//! layer is one line of a registry; everything without such a line is told at once.

mod layers;
mod making;
mod network;
mod ops;
mod program;

use std::collections::BTreeMap;

use kinglet_graph::Graph;

use super::{Body, CoreMl, CoreMlError};

/// A model as a graph.
#[derive(Debug)]
pub struct Imported {
    /// Its computation; inputs and outputs are named as in the model's interface.
    pub graph: Graph,
    /// How many of the last inputs and of the last outputs are states: what a run leaves in such an output is what the next
    /// one brings in the input of the same place; the first one brings zeros.
    pub states: usize,
    /// Names of classes, in the order of the probabilities, where an operation tells them.
    pub classes: Option<Vec<String>>,
    /// What was read otherwise than it stands in the file, and why.
    pub notes: Vec<String>,
}

impl CoreMl {
    /// The computation of the model.
    pub fn graph(&self) -> Result<Imported, CoreMlError> {
        match &self.body {
            Body::Program(program) => program::import(program),
            Body::Network(network) => network::import(network, &self.interface),
            Body::Pipeline(parts) => match &parts[..] {
                [(_, only)] => only.graph(),
                _ => Err(CoreMlError::Pipeline(parts.len())),
            },
        }
    }
}

/// Every kind without an importer, with the names of those that need it.
fn check_supported<'a>(
    used: impl Iterator<Item = (&'a str, &'a str)>,
    supported: impl Fn(&str) -> bool,
) -> Result<(), CoreMlError> {
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (kind, name) in used.filter(|(kind, _)| !supported(kind)) {
        missing.entry(kind.into()).or_default().push(crate::error::printable(name));
    }
    if missing.is_empty() { Ok(()) } else { Err(CoreMlError::Unsupported(missing.into_iter().collect())) }
}
