//! Graphs.

/// A graph.
#[derive(Clone, Debug, Default)]
pub struct Graph {}
