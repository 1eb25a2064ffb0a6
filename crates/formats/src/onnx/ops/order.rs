//! Order and choice of elements, running sums, einsum, losses.

use kinglet_graph::ops::{
    Compress, Cumulative, Einsum, Identity, LossKind, NllLoss, NonZero, ReverseSequence, Softmax,
    SoftmaxKind, TopK, Unique,
};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "TopK", top_k),
    ("", "Unique", |cx| cx.emit(Unique { axis: cx.attrs.int("axis"), sorted: cx.flag("sorted", true) })),
    ("", "NonZero", |cx| cx.emit(NonZero)),
    ("", "Compress", |cx| cx.emit(Compress { axis: cx.attrs.int("axis") })),
    ("", "CumSum", |cx| cumulative(cx, false)),
    ("", "CumProd", |cx| cumulative(cx, true)),
    ("", "ReverseSequence", |cx| {
        let axis = |name: &str, default| usize::try_from(cx.int(name, default)).unwrap_or(2);
        let (batch_axis, time_axis) = (axis("batch_axis", 1), axis("time_axis", 0));
        cx.emit(ReverseSequence { batch_axis, time_axis })
    }),
    ("", "Einsum", |cx| {
        let equation =
            cx.attrs.text("equation").ok_or_else(|| cx.fail("attribute `equation` is missing"))?.to_owned();
        cx.emit(Einsum { equation })
    }),
    ("", "NegativeLogLikelihoodLoss", |cx| {
        let op = loss(cx)?;
        cx.emit(op)
    }),
    ("", "SoftmaxCrossEntropyLoss", cross_entropy),
];

/// `k` is an attribute before version 10.
fn top_k(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let x = cx.input(0);
    let k = match cx.attrs.int("k") {
        Some(k) if cx.opset < 10 => cx.ints(&[k])?,
        _ => cx.input(1),
    };
    cx.emit_with(TopK { axis: cx.int("axis", -1), largest: cx.flag("largest", true) }, &[x, k])
}

fn cumulative(cx: &mut Cx<'_, '_>, product: bool) -> Result<(), OnnxError> {
    cx.emit(Cumulative {
        product,
        exclusive: cx.flag("exclusive", false),
        reverse: cx.flag("reverse", false),
    })
}

fn loss(cx: &Cx<'_, '_>) -> Result<NllLoss, OnnxError> {
    let kind = match cx.attrs.text("reduction").unwrap_or("mean") {
        "none" => LossKind::Each,
        "sum" => LossKind::Sum,
        "mean" => LossKind::Mean,
        other => return Err(cx.fail(format!("reduction `{other}` is not known"))),
    };
    Ok(NllLoss { kind, ignore: cx.attrs.int("ignore_index") })
}

fn cross_entropy(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (op, x, target, weights) = (loss(cx)?, cx.input(0), cx.input(1), cx.input(2));
    let log = cx.temp(Softmax { kind: SoftmaxKind::Log, axis: 1, flat: false }, &[x])?;
    let loss = cx.temp(op, &[log, target, weights])?;
    for (i, id) in [loss, log].into_iter().enumerate() {
        if cx.wants(i) {
            let named = cx.temp(Identity, &[id])?;
            cx.bind(i, named)?;
        }
    }
    Ok(())
}
