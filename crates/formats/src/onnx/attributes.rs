//! The attributes of a node, by name and type.

use std::collections::HashMap;

use super::proto::{Attribute, Graph, Node, SparseTensor, Tensor};
use crate::custom::Parameters;

/// Attributes by name. References to a function's attributes are already replaced.
pub(crate) struct Attributes<'a>(HashMap<&'a str, &'a Attribute>);

impl<'a> Attributes<'a> {
    pub(crate) fn of(node: &'a Node) -> Self {
        Self(node.attribute.iter().map(|a| (a.name.as_str(), a)).collect())
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.i
    }

    pub(crate) fn float(&self, name: &str) -> Option<f32> {
        self.0.get(name)?.f
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.0.get(name)?.s.as_ref()?).ok()
    }

    pub(crate) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.0.get(name).map(|a| a.ints.as_slice())
    }

    pub(crate) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.0.get(name).map(|a| a.floats.as_slice())
    }

    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let list = &self.0.get(name)?.strings;
        Some(list.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect())
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&'a Tensor> {
        self.0.get(name)?.t.as_ref()
    }

    pub(crate) fn sparse(&self, name: &str) -> Option<&'a SparseTensor> {
        self.0.get(name)?.sparse_tensor.as_ref()
    }

    pub(crate) fn graph(&self, name: &str) -> Option<&'a Graph> {
        self.0.get(name)?.g.as_ref()
    }
}

impl Parameters for Attributes<'_> {
    fn int(&self, name: &str) -> Option<i64> {
        self.int(name)
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.float(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.text(name)
    }

    fn ints(&self, name: &str) -> Option<&[i64]> {
        self.ints(name)
    }

    fn floats(&self, name: &str) -> Option<&[f32]> {
        self.floats(name)
    }
}
