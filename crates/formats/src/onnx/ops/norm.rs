//! Normalisations and softmax.

use kinglet_graph::ops::{
    BatchNorm, Binary, Fun, Fun2, GroupNorm, Identity, LayerNorm, LpNorm, Lrn, Reduce, ReduceKind, Softmax,
    SoftmaxKind, Unary,
};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "BatchNormalization", batch_norm),
    ("", "InstanceNormalization", |cx| cx.emit(GroupNorm { groups: None, eps: cx.float("epsilon", 1e-5) })),
    ("", "GroupNormalization", |cx| {
        let groups = cx.int("num_groups", 0).max(0) as usize;
        cx.emit(GroupNorm { groups: Some(groups), eps: cx.float("epsilon", 1e-5) })
    }),
    ("", "LayerNormalization", |cx| {
        cx.emit(LayerNorm { axis: cx.int("axis", -1), eps: cx.float("epsilon", 1e-5), centre: true })
    }),
    ("", "RMSNormalization", |cx| {
        cx.emit(LayerNorm { axis: cx.int("axis", -1), eps: cx.float("epsilon", 1e-5), centre: false })
    }),
    ("", "LRN", |cx| {
        cx.emit(Lrn {
            alpha: cx.float("alpha", 1e-4),
            beta: cx.float("beta", 0.75),
            bias: cx.float("bias", 1.0),
            size: cx.int("size", 0).max(0) as usize,
        })
    }),
    ("", "LpNormalization", |cx| {
        cx.emit(LpNorm { axis: cx.int("axis", -1), p: cx.int("p", 2).max(0) as u32 })
    }),
    ("", "MeanVarianceNormalization", mean_variance),
    ("", "Softmax", |cx| softmax(cx, SoftmaxKind::Soft)),
    ("", "LogSoftmax", |cx| softmax(cx, SoftmaxKind::Log)),
    ("", "Hardmax", |cx| softmax(cx, SoftmaxKind::Hard)),
    ("", "Dropout", dropout),
];

fn batch_norm(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let training = cx.flag("training_mode", false);
    if cx.opset >= 7 && cx.opset < 9 && !cx.flag("spatial", true) {
        return Err(cx.fail("statistics for each element (`spatial` 0) are not supported"));
    }
    let op = BatchNorm { eps: cx.float("epsilon", 1e-5), momentum: cx.float("momentum", 0.9), training };
    cx.emit(op)
}

/// `(x - mean) / (sqrt(mean((x - mean)^2)) + 1e-9)`; the operator's own `mean(x^2) - mean^2` cancels.
fn mean_variance(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let x = cx.input(0);
    let axes = cx.ints(cx.attrs.ints("axes").unwrap_or(&[0, 2, 3]))?;
    let dtype = cx.builder().dtype(x).unwrap_or(kinglet_tensor::DType::F32);
    let mean = Reduce { kind: ReduceKind::Mean, keep_dims: true, keep_all: false };
    let middle = cx.temp(mean, &[x, axes])?;
    let centred = cx.temp(Binary(Fun2::Sub), &[x, middle])?;
    let squares = cx.temp(Binary(Fun2::Mul), &[centred, centred])?;
    let variance = cx.temp(mean, &[squares, axes])?;
    let deviation = cx.temp(Unary(Fun::Sqrt), &[variance])?;
    let least = cx.scalar(dtype, 1e-9)?;
    let deviation = cx.temp(Binary(Fun2::Add), &[deviation, least])?;
    cx.emit_with(Binary(Fun2::Div), &[centred, deviation])
}

/// Before version 13, the axis starts a group of dimensions.
fn softmax(cx: &mut Cx<'_, '_>, kind: SoftmaxKind) -> Result<(), OnnxError> {
    let flat = cx.opset < 13;
    cx.emit(Softmax { kind, axis: cx.int("axis", if flat { 1 } else { -1 }), flat })
}

/// Passes on its input outside of training; the mask, when wanted, is all true.
fn dropout(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let x = cx.input(0);
    if cx.wants(1) {
        return cx.emit(kinglet_graph::ops::Dropout { seed: cx.attrs.int("seed") });
    }
    if cx.opset >= 12 && cx.has(2) {
        return cx.emit(kinglet_graph::ops::Dropout { seed: cx.attrs.int("seed") });
    }
    cx.emit_with(Identity, &[x])
}
