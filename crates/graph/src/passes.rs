//! Graph rewrites. Each pass is one file and says in [`crate::Node::note`] what it did.

mod add_norm;
mod rewrite;
mod siblings;

pub use add_norm::fuse_add_norm;
pub use siblings::share_input;

use crate::{BuildError, Graph};

/// Every pass that keeps values exactly as they were, in the order that suits them.
pub fn optimise(graph: Graph) -> Result<Graph, BuildError> {
    fuse_add_norm(&share_input(&graph)?)
}
