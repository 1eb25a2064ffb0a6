//! Graphs within the one being written: those in its place, and those that become blocks of an operation.

use std::collections::{HashMap, HashSet};

use kinglet_graph::{Graph, ValueId};

use super::Writer;
use crate::coreml::proto;

/// What is around the block being written.
pub(super) struct Around {
    names: HashMap<ValueId, String>,
    codes: HashMap<ValueId, String>,
    read: HashSet<ValueId>,
    operations: Vec<proto::Operation>,
}

impl Writer<'_> {
    /// Adds what a graph computes whose inputs are called like this; the names of its outputs.
    pub(super) fn inline(&mut self, graph: &Graph, inputs: &[String]) -> Vec<String> {
        let names = graph.inputs().iter().copied().zip(inputs.iter().cloned()).collect();
        let (names, read) = (std::mem::replace(&mut self.names, names), std::mem::take(&mut self.read));
        self.nodes(graph);
        let made = graph.outputs().iter().map(|id| self.name_of(graph, *id)).collect();
        (self.names, self.read) = (names, read);
        made
    }

    /// Begins the block of a body whose inputs are called like this; what is around it, for its end.
    pub(super) fn enter(&mut self, body: &Graph, inputs: &[String]) -> Around {
        let names = body.inputs().iter().copied().zip(inputs.iter().cloned()).collect();
        Around {
            names: std::mem::replace(&mut self.names, names),
            codes: std::mem::take(&mut self.codes),
            read: std::mem::take(&mut self.read),
            operations: std::mem::take(&mut self.operations),
        }
    }

    /// Ends a block: its operations.
    pub(super) fn leave_block(&mut self, around: Around) -> Vec<proto::Operation> {
        (self.names, self.codes, self.read) = (around.names, around.codes, around.read);
        std::mem::replace(&mut self.operations, around.operations)
    }
}
