//! Why a graph cannot be written in a format, whichever it is: everything that it cannot express, told at once.

use kinglet_graph::BuildError;

/// A graph that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
#[non_exhaustive]
pub enum ExportError {
    #[error("{format} cannot express {}", list(.missing))]
    Unsupported { format: &'static str, missing: Vec<Missing> },
    #[error("{format}: {what} `{name}`: {reason}")]
    Value { format: &'static str, what: &'static str, name: String, reason: String },
    #[error(
        "{format}: {0} bytes are more than one message holds; write the weights to a file of their own",
        format = "ONNX"
    )]
    Size(u64),
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Nodes that cannot be written, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The op that they apply, with its attributes in words.
    pub op: String,
    /// Why it cannot be written.
    pub reason: String,
    /// The names of the nodes.
    pub nodes: Vec<String>,
}

/// Gathers what is missing, nodes of the same op and reason together.
#[derive(Default)]
pub(crate) struct Gathered(Vec<Missing>);

impl Gathered {
    pub(crate) fn add(&mut self, op: &str, reason: String, node: &str) {
        let node = crate::error::printable(node);
        match self.0.iter_mut().find(|m| m.op == op && m.reason == reason) {
            Some(known) => known.nodes.push(node),
            None => self.0.push(Missing { op: op.into(), reason, nodes: vec![node] }),
        }
    }

    /// `Ok` when nothing is missing.
    pub(crate) fn finish(self, format: &'static str) -> Result<(), ExportError> {
        if self.0.is_empty() { Ok(()) } else { Err(ExportError::Unsupported { format, missing: self.0 }) }
    }
}

/// How many nodes of which ops.
fn list(missing: &[Missing]) -> String {
    let nodes: usize = missing.iter().map(|m| m.nodes.len()).sum();
    let ops: Vec<&str> = missing.iter().map(|m| m.op.as_str()).collect();
    format!("{nodes} of the nodes: {}", ops.join("; "))
}

/// An op with its attributes.
pub(crate) fn words(op: &dyn kinglet_graph::Op) -> String {
    let (name, about) = (op.name(), op.describe());
    if about.is_empty() { name.into() } else { format!("{name} ({about})") }
}
