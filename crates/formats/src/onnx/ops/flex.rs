//! `FlexAttention` (`ai.onnx.preview`): attention whose scores and weights graphs of the model's own change on the way.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Binary, Cast, Expand, Fun2, MatMul, Reshape, Softmax, SoftmaxKind, Transpose, Unsqueeze,
};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::tensor::dtype_of;

pub(in crate::onnx) const OPS: &[Entry] = &[("ai.onnx.preview", "FlexAttention", flex)];

/// Inputs: queries `[B, H, L, D]`, keys `[B, kv heads, S, D]`, values `[B, kv heads, S, E]`.
fn flex(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (heads, _) = heads_and_width(cx, 0)?;
    let (kv_heads, width) = heads_and_width(cx, 1)?;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(cx.fail(format!("{heads} query heads over {kv_heads} of keys")));
    }
    let own = cx.ty(0).tensor().map_or(DType::F32, |ty| ty.dtype);
    let usual = if own == DType::F64 { DType::F64 } else { DType::F32 };
    let precision =
        cx.attrs.int("softmax_precision").map_or(Some(usual), |n| dtype_of(i32::try_from(n).ok()?));
    let precision = precision.ok_or_else(|| cx.fail("`softmax_precision` is no element type"))?;
    let mut values = Vec::new();
    for i in 0..3 {
        let x = cx.input(i);
        let x = cx.temp(Cast::to(precision), &[x])?;
        values.push(if i == 0 || heads == kv_heads { x } else { shared(cx, x, heads, kv_heads)? });
    }
    let keys = cx.temp(Transpose { perm: vec![0, 1, 3, 2] }, &[values[1]])?;
    let product = cx.temp(MatMul, &[values[0], keys])?;
    let scale = cx.attrs.float("scale").map_or_else(|| 1.0 / (width as f64).sqrt(), f64::from);
    let scale = cx.scalar(precision, scale)?;
    let scores = cx.temp(Binary(Fun2::Mul), &[product, scale])?;
    let scores = modified(cx, "score_mod", scores)?;
    let soft = Softmax { kind: SoftmaxKind::Soft, axis: -1, flat: false };
    let weights = cx.temp(soft, &[scores])?;
    let weights = modified(cx, "prob_mod", weights)?;
    let y = cx.temp(MatMul, &[weights, values[2]])?;
    cx.emit_with(Cast::to(own), &[y])
}

/// Heads and elements of a head of input `i`.
fn heads_and_width(cx: &mut Cx<'_, '_>, i: usize) -> Result<(usize, usize), OnnxError> {
    let ty = cx.ty(i).tensor().cloned();
    let sizes = ty.filter(|ty| ty.rank() == 4).and_then(|ty| ty.shape[1].fixed().zip(ty.shape[3].fixed()));
    sizes.ok_or_else(|| cx.fail(format!("input {i} is not [B, heads, S, D] of known heads and elements")))
}

/// Each head as often as query heads share it.
fn shared(cx: &mut Cx<'_, '_>, x: ValueId, heads: usize, kv_heads: usize) -> Result<ValueId, OnnxError> {
    let (axis, times) = (cx.ints(&[2])?, cx.ints(&[1, 1, (heads / kv_heads) as i64, 1, 1])?);
    let wide = cx.temp(Unsqueeze, &[x, axis])?;
    let wide = cx.temp(Expand, &[wide, times])?;
    // [B, kv heads, times, S, D]: the first two of the heads join.
    let tail = cx.temp(kinglet_graph::ops::Shape { start: 2, end: None }, &[x])?;
    let front = cx.temp(kinglet_graph::ops::Shape { start: 0, end: Some(1) }, &[x])?;
    let count = cx.ints(&[heads as i64])?;
    let shape = cx.temp(kinglet_graph::ops::Concat { axis: 0 }, &[front, count, tail])?;
    cx.temp(Reshape { allow_zero: false }, &[wide, shape])
}

/// What the graph in an attribute makes of a value, where there is one.
fn modified(cx: &mut Cx<'_, '_>, attribute: &str, x: ValueId) -> Result<ValueId, OnnxError> {
    let Some(graph) = cx.attrs.graph(attribute) else { return Ok(x) };
    match cx.reader.inline(graph, &[x])?[..] {
        [made] => Ok(made),
        _ => Err(cx.fail(format!("`{attribute}` does not make one value"))),
    }
}
