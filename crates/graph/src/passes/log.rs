//! What passes did and what they left, for reports.

use std::collections::{HashMap, HashSet};

use crate::{Def, Graph};

/// Something that a pass did, or left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The pass: `fold`, `fuse`, `share`.
    pub pass: &'static str,
    /// Name of the node.
    pub node: String,
    /// Its op.
    pub op: &'static str,
    /// What was done to it, or why nothing was.
    pub text: String,
}

/// The story of a graph through passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// What was done.
    pub done: Vec<Entry>,
    /// What was left, and why.
    pub left: Vec<Entry>,
}

impl Log {
    pub(super) fn did(&mut self, pass: &'static str, node: &crate::Node, text: impl Into<String>) {
        self.done.push(Entry { pass, node: node.name.clone(), op: node.op.name(), text: text.into() });
    }

    pub(super) fn leave(&mut self, pass: &'static str, node: &crate::Node, text: impl Into<String>) {
        self.left.push(Entry { pass, node: node.name.clone(), op: node.op.name(), text: text.into() });
    }

    /// Tells what became of nodes that `after` does not have any more: constants, or nothing.
    pub(super) fn gone(&mut self, pass: &'static str, before: &Graph, after: &Graph) {
        let nodes: HashSet<&str> = made(after).collect();
        let constants: HashSet<&str> = after
            .values()
            .iter()
            .filter(|v| matches!(v.def, Def::Weight(_)))
            .map(|v| v.name.as_str())
            .collect();
        for node in before.nodes() {
            let mut names = node.outputs.iter().map(|id| before.value(*id).name.as_str());
            if names.clone().any(|name| nodes.contains(name)) {
                continue;
            }
            let text = if names.any(|name| constants.contains(name)) {
                "is a constant now"
            } else {
                "only passed values on, or served constants"
            };
            self.did(pass, node, text);
        }
    }

    /// Tells what the notes of `after` say that those of `before` did not, and how many nodes each new one stands for.
    pub(super) fn notes(&mut self, pass: &'static str, before: &Graph, after: &Graph) {
        let old: HashMap<&str, &str> =
            before.nodes().iter().map(|n| (n.name.as_str(), n.note.as_str())).collect();
        for node in after.nodes() {
            if !node.note.is_empty() && old.get(node.name.as_str()) != Some(&node.note.as_str()) {
                let what = node.op.describe();
                let note = if what.is_empty() { node.note.clone() } else { format!("{what}: {}", node.note) };
                self.did(pass, node, note);
            }
        }
    }
}

/// Names of all values that nodes make.
fn made(graph: &Graph) -> impl Iterator<Item = &str> {
    graph.nodes().iter().flat_map(|n| &n.outputs).map(|id| graph.value(*id).name.as_str())
}
