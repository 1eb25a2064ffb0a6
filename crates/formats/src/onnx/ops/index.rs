//! Elements picked and put back by index.

use kinglet_graph::ops::{Gather, GatherElements, GatherNd, ScatterElements, ScatterKind, ScatterNd};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "Gather", |cx| cx.emit(Gather { axis: cx.int("axis", 0) })),
    ("", "GatherElements", |cx| cx.emit(GatherElements { axis: cx.int("axis", 0) })),
    ("", "GatherND", |cx| cx.emit(GatherNd { batch_dims: cx.int("batch_dims", 0).max(0) as usize })),
    ("", "ScatterElements", scatter_elements),
    ("", "Scatter", scatter_elements),
    ("", "ScatterND", |cx| {
        let kind = kind(cx)?;
        cx.emit(ScatterNd { kind })
    }),
];

fn scatter_elements(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let kind = kind(cx)?;
    cx.emit(ScatterElements { axis: cx.int("axis", 0), kind })
}

fn kind(cx: &Cx<'_, '_>) -> Result<ScatterKind, OnnxError> {
    Ok(match cx.attrs.text("reduction") {
        None | Some("none") => ScatterKind::Replace,
        Some("add") => ScatterKind::Add,
        Some("mul") => ScatterKind::Mul,
        Some("min") => ScatterKind::Min,
        Some("max") => ScatterKind::Max,
        Some(other) => return Err(cx.fail(format!("reduction `{other}` is not known"))),
    })
}
