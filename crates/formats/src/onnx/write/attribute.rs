//! Attributes of nodes.

use prost::bytes::Bytes;

use crate::onnx::proto::{Attribute, AttributeKind, Graph, Tensor};

fn named(name: &str, kind: AttributeKind) -> Attribute {
    Attribute { name: name.into(), kind: kind as i32, ..Default::default() }
}

pub(super) fn int(name: &str, value: i64) -> Attribute {
    Attribute { i: Some(value), ..named(name, AttributeKind::Int) }
}

pub(super) fn flag(name: &str, value: bool) -> Attribute {
    int(name, value.into())
}

pub(super) fn size(name: &str, value: usize) -> Attribute {
    int(name, value as i64)
}

pub(super) fn ints(name: &str, values: impl IntoIterator<Item = i64>) -> Attribute {
    Attribute { ints: values.into_iter().collect(), ..named(name, AttributeKind::Ints) }
}

pub(super) fn sizes(name: &str, values: &[usize]) -> Attribute {
    ints(name, values.iter().map(|n| *n as i64))
}

pub(super) fn float(name: &str, value: f32) -> Attribute {
    Attribute { f: Some(value), ..named(name, AttributeKind::Float) }
}

pub(super) fn floats(name: &str, values: Vec<f32>) -> Attribute {
    Attribute { floats: values, ..named(name, AttributeKind::Floats) }
}

pub(super) fn text(name: &str, value: &str) -> Attribute {
    Attribute { s: Some(Bytes::copy_from_slice(value.as_bytes())), ..named(name, AttributeKind::String) }
}

pub(super) fn texts<S: AsRef<str>>(name: &str, values: &[S]) -> Attribute {
    let strings = values.iter().map(|s| Bytes::copy_from_slice(s.as_ref().as_bytes())).collect();
    Attribute { strings, ..named(name, AttributeKind::Strings) }
}

pub(super) fn tensor(name: &str, value: Tensor) -> Attribute {
    Attribute { t: Some(value), ..named(name, AttributeKind::Tensor) }
}

pub(super) fn graph(name: &str, value: Graph) -> Attribute {
    Attribute { g: Some(value), ..named(name, AttributeKind::Graph) }
}
