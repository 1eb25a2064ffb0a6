//! `TreeEnsemble`: what trees of decisions say about features, added up.

use std::sync::Arc;

use super::Op;
use crate::{Args, Dim, Type};

/// A question about a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Test {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
}

/// A place in a tree.
#[derive(Clone, Debug, PartialEq)]
pub enum TreeNode {
    /// A question, and where each answer leads.
    Branch {
        /// Which feature is asked about.
        feature: usize,
        /// What is asked.
        test: Test,
        /// What it is compared with.
        value: f64,
        /// Node for yes.
        yes: usize,
        /// Node for no.
        no: usize,
        /// A feature that is not a number leads to yes.
        missing_yes: bool,
    },
    /// Outputs, and what is added to them.
    Leaf(Vec<(usize, f64)>),
}

/// Trees over the last dimension of `[.., features]`, which becomes that of the outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct TreeEnsemble {
    /// The nodes of all trees.
    pub nodes: Arc<[TreeNode]>,
    /// Where each tree begins.
    pub roots: Vec<usize>,
    /// What each output is before the trees are asked.
    pub base: Vec<f64>,
}

impl Op for TreeEnsemble {
    fn name(&self) -> &'static str {
        "TreeEnsemble"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let features = x.shape.last().ok_or("takes features in the last dimension")?.fixed();
        let (count, outputs) = (self.nodes.len(), self.base.len());
        let wrong = |node: &TreeNode| match node {
            TreeNode::Branch { feature, yes, no, .. } => {
                *yes >= count || *no >= count || features.is_some_and(|n| *feature >= n)
            }
            TreeNode::Leaf(adds) => adds.iter().any(|(output, _)| *output >= outputs),
        };
        if let Some(at) = self.nodes.iter().position(wrong) {
            return Err(format!(
                "node {at} of its trees names a feature, node or output that does not exist ({x:?})"
            ));
        }
        let mut ty = x.clone();
        if let Some(last) = ty.shape.last_mut() {
            *last = Dim::Fixed(outputs);
        }
        Ok(vec![ty.into()])
    }

    fn describe(&self) -> String {
        format!("{} trees", self.roots.len())
    }
}
