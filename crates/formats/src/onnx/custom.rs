//! Operators that a user of the library registers, by domain and name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use kinglet_graph::ops::{Custom, CustomOp};

use super::attributes::Attributes;
use super::error::OnnxError;
use super::node::Cx;

type Make = dyn Fn(&CustomNode<'_>) -> Result<Arc<dyn CustomOp>, String> + Send + Sync;

/// Operators beyond those that Kinglet knows. One of its own name and domain replaces Kinglet's.
#[derive(Clone, Default)]
pub struct CustomOps(HashMap<(String, String), Arc<Make>>);

impl CustomOps {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operator; `make` turns a node into the op that computes it, or says what is wrong with the node.
    pub fn with(
        mut self,
        domain: &str,
        operator: &str,
        make: impl Fn(&CustomNode<'_>) -> Result<Arc<dyn CustomOp>, String> + Send + Sync + 'static,
    ) -> Self {
        self.0.insert((domain.into(), operator.into()), Arc::new(make));
        self
    }

    pub(crate) fn has(&self, domain: &str, operator: &str) -> bool {
        self.get(domain, operator).is_some()
    }

    fn get(&self, domain: &str, operator: &str) -> Option<&Arc<Make>> {
        if self.0.is_empty() { None } else { self.0.get(&(domain.to_owned(), operator.to_owned())) }
    }

    /// Adds the op of a node that is registered here.
    pub(crate) fn import(&self, domain: &str, cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
        let make = self.get(domain, &cx.node.op_type).ok_or_else(|| cx.fail("is not registered"))?;
        let outputs = cx.node.output.len();
        let node = CustomNode { attributes: &cx.attrs, opset: cx.opset, inputs: cx.inputs().len(), outputs };
        let op = make(&node).map_err(|reason| cx.fail(reason))?;
        cx.emit(Custom(op))
    }
}

impl fmt::Debug for CustomOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A node of a registered operator.
pub struct CustomNode<'a> {
    attributes: &'a Attributes<'a>,
    /// Version of the operator set that the model imports the domain with.
    pub opset: i64,
    /// Number of inputs, absent ones in between included.
    pub inputs: usize,
    /// Number of outputs.
    pub outputs: usize,
}

impl CustomNode<'_> {
    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attributes.int(name)
    }

    /// A floating-point attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.attributes.float(name)
    }

    /// A text attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.attributes.text(name)
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attributes.ints(name)
    }

    /// A list of floating-point numbers.
    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        self.attributes.floats(name)
    }
}
