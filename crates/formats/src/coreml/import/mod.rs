//! Core ML models to graphs: the operations of programs and the layers of networks, in the ops of the IR.
//!
//! Numbers of half precision are computed in f32. A picture input is `[1, C, H, W]`, values from 0 to 255 in the channel order
//! that the model's interface tells; what a network does to pictures first is part of the graph. Each operation and each
//! layer is one line of a registry; everything without such a line is told at once.

mod body;
mod branching;
mod layers;
mod making;
mod network;
mod ops;
mod pipeline;
mod program;
mod steps;
mod trees;

use std::collections::BTreeMap;

use kinglet_graph::ops::Identity;
use kinglet_graph::{Graph, ValueId};

use self::making::Making;
use super::{CoreMl, CoreMlError};
use crate::custom::CustomOps;

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

/// What a model adds to a graph under construction.
#[derive(Default)]
struct Stage {
    /// Its outputs by name.
    outputs: Vec<(String, ValueId)>,
    /// What its states are after a run, by name; their inputs stand behind all others.
    states: Vec<(String, ValueId)>,
}

impl CoreMl {
    /// The computation of the model.
    pub fn graph(&self) -> Result<Imported, CoreMlError> {
        self.graph_with(&CustomOps::new())
    }

    /// The same for a model whose custom layers are these operators, by the names of their classes in the domain
    /// [`CustomOps::CORE_ML`].
    pub fn graph_with(&self, custom: &CustomOps) -> Result<Imported, CoreMlError> {
        let mut making = Making::default();
        let stage = pipeline::stage(self, custom, &mut making)?;
        making.kept.clear();
        let mut results = Vec::new();
        for (name, id) in stage.outputs {
            let named = making.builder.graph().value(id).name == name;
            results.push(if named { id } else { making.op(&name, Identity, &[id])? });
        }
        for (name, id) in &stage.states {
            results.push(making.op(&format!("{name}.next"), Identity, &[*id])?);
        }
        let classes = making.classes.take();
        let (graph, notes) = making.finish(&results);
        Ok(Imported { graph, states: stage.states.len(), classes, notes })
    }
}

/// An error with every kind that has no importer, and the names of what needs it, when there are any.
fn refuse<'a, K: Into<String>>(missing: impl Iterator<Item = (K, &'a str)>) -> Result<(), CoreMlError> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (kind, name) in missing {
        kinds.entry(kind.into()).or_default().push(crate::error::printable(name));
    }
    if kinds.is_empty() { Ok(()) } else { Err(CoreMlError::Unsupported(kinds.into_iter().collect())) }
}
