//! Elements picked and put back by index.

use kinglet_graph::ops::{Gather, GatherElements, GatherNd, ScatterElements, ScatterKind, ScatterNd};

use super::Entry;
use crate::onnx::proto::Attribute;
use crate::onnx::write::attribute::{int, size, text};

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("Gather", |ex| {
        let axis = ex.op::<Gather>()?.axis;
        ex.emit("Gather", vec![int("axis", axis)])
    }),
    ("GatherElements", |ex| {
        let axis = ex.op::<GatherElements>()?.axis;
        ex.emit("GatherElements", vec![int("axis", axis)])
    }),
    ("GatherNd", |ex| {
        let batch = ex.op::<GatherNd>()?.batch_dims;
        ex.emit("GatherND", vec![size("batch_dims", batch)])
    }),
    ("ScatterElements", |ex| {
        let ScatterElements { axis, kind } = *ex.op()?;
        ex.emit("ScatterElements", vec![int("axis", axis), reduction(kind)])
    }),
    ("ScatterNd", |ex| {
        let kind = ex.op::<ScatterNd>()?.kind;
        ex.emit("ScatterND", vec![reduction(kind)])
    }),
];

fn reduction(kind: ScatterKind) -> Attribute {
    let name = match kind {
        ScatterKind::Replace => "none",
        ScatterKind::Add => "add",
        ScatterKind::Mul => "mul",
        ScatterKind::Min => "min",
        ScatterKind::Max => "max",
    };
    text("reduction", name)
}
