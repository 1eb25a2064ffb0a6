//! Operators that a user of the library registers, by domain and name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use kinglet_graph::ops::{Custom, CustomOp};

type Make = dyn Fn(&CustomNode<'_>) -> Result<Arc<dyn CustomOp>, String> + Send + Sync;

/// Operators beyond those that Kinglet knows. One of its own name and domain replaces Kinglet's. Classes of Core ML's custom
/// layers are operators of the domain [`CustomOps::CORE_ML`].
#[derive(Clone, Default)]
pub struct CustomOps(HashMap<(String, String), Arc<Make>>);

impl CustomOps {
    /// The domain of the classes of Core ML's custom layers.
    pub const CORE_ML: &str = "coreml";

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

    /// The op of a node whose operator is registered here, or what is wrong with it.
    pub(crate) fn make(&self, domain: &str, operator: &str, node: &CustomNode<'_>) -> Result<Custom, String> {
        let make = self.get(domain, operator).ok_or("is not registered")?;
        make(node).map(Custom)
    }
}

impl fmt::Debug for CustomOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a file says about a node besides its inputs, by name.
pub(crate) trait Parameters {
    fn int(&self, name: &str) -> Option<i64>;
    fn float(&self, name: &str) -> Option<f32>;
    fn text(&self, name: &str) -> Option<&str>;
    fn ints(&self, name: &str) -> Option<&[i64]>;
    fn floats(&self, name: &str) -> Option<&[f32]>;
}

/// A node of a registered operator, or a custom layer.
pub struct CustomNode<'a> {
    pub(crate) parameters: &'a dyn Parameters,
    /// Version of the operator set that the model imports the domain with; 0 for a layer.
    pub opset: i64,
    /// Number of inputs, absent ones in between included; the weights of a layer are its last ones.
    pub inputs: usize,
    /// Number of outputs.
    pub outputs: usize,
}

impl CustomNode<'_> {
    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.parameters.int(name)
    }

    /// A floating-point attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.parameters.float(name)
    }

    /// A text attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.parameters.text(name)
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.parameters.ints(name)
    }

    /// A list of floating-point numbers.
    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        self.parameters.floats(name)
    }
}
