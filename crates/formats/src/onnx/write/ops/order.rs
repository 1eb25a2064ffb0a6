//! Order and choice of elements, running sums, einsum, losses.

use kinglet_graph::ops::{Compress, Cumulative, Einsum, LossKind, NllLoss, ReverseSequence, TopK, Unique};

use super::Entry;
use crate::onnx::write::attribute::{flag, int, size, text};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("TopK", top_k),
    ("Unique", |ex| {
        let Unique { axis, sorted } = *ex.op()?;
        ex.emit(
            "Unique",
            axis.map(|axis| int("axis", axis)).into_iter().chain([flag("sorted", sorted)]).collect(),
        )
    }),
    ("NonZero", |ex| ex.emit("NonZero", vec![])),
    ("Compress", |ex| {
        let axis = ex.op::<Compress>()?.axis;
        ex.emit("Compress", axis.map(|axis| int("axis", axis)).into_iter().collect())
    }),
    ("Cumulative", |ex| {
        let Cumulative { product, exclusive, reverse } = *ex.op()?;
        if product {
            ex.needs(26)?;
        }
        let attributes = vec![flag("exclusive", exclusive), flag("reverse", reverse)];
        ex.emit(if product { "CumProd" } else { "CumSum" }, attributes)
    }),
    ("ReverseSequence", |ex| {
        let ReverseSequence { batch_axis, time_axis } = *ex.op()?;
        ex.emit("ReverseSequence", vec![size("batch_axis", batch_axis), size("time_axis", time_axis)])
    }),
    ("Einsum", |ex| {
        let equation = &ex.op::<Einsum>()?.equation;
        ex.emit("Einsum", vec![text("equation", equation)])
    }),
    ("NllLoss", |ex| {
        let NllLoss { kind, ignore } = *ex.op()?;
        let reduction = match kind {
            LossKind::Each => "none",
            LossKind::Sum => "sum",
            LossKind::Mean => "mean",
        };
        let ignore = ignore.map(|class| int("ignore_index", class));
        ex.emit(
            "NegativeLogLikelihoodLoss",
            ignore.into_iter().chain([text("reduction", reduction)]).collect(),
        )
    }),
];

/// Always in order; a count that is a scalar becomes a vector.
fn top_k(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let TopK { axis, largest } = *ex.op()?;
    let (x, mut k) = (ex.input(0), ex.input(1));
    if ex.ty(1).is_some_and(|ty| ty.rank() == 0) {
        let shape = ex.ints(&[1]);
        k = ex.temp("Reshape", &[&k, &shape], vec![]);
    }
    ex.emit_with("TopK", &[x, k], vec![int("axis", axis), flag("largest", largest)])?;
    ex.fill_outputs(2);
    Ok(())
}
