//! Layer normalisations, with and without the sum before them, and the embedding before them.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Binary, Cast, Fun2, Gather, LayerNorm, Reduce, ReduceKind};
use kinglet_tensor::DType;

use super::attention::positions;
use super::{Entry, MS, summed};
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    // ONNX Runtime registers these two in the standard domain.
    ("", "SimplifiedLayerNormalization", |cx| plain(cx, false)),
    (MS, "SimplifiedLayerNormalization", |cx| plain(cx, false)),
    (MS, "LayerNormalization", |cx| plain(cx, true)),
    (MS, "SkipLayerNormalization", |cx| skip(cx, true)),
    (MS, "SkipSimplifiedLayerNormalization", |cx| skip(cx, false)),
    (MS, "EmbedLayerNormalization", embed),
];

fn plain(cx: &mut Cx<'_, '_>, centre: bool) -> Result<(), OnnxError> {
    cx.emit(LayerNorm { axis: cx.int("axis", -1), eps: cx.float("epsilon", 1e-5), centre })
}

/// Inputs: `x`, `skip`, `gamma`, then `beta` when centred, then a bias. Output 3 is the sum that is normalised.
fn skip(cx: &mut Cx<'_, '_>, centre: bool) -> Result<(), OnnxError> {
    let sum = summed(cx, if centre { &[0, 1, 4] } else { &[0, 1, 3] })?;
    let gamma = cx.input(2);
    let beta = if centre { cx.input(3) } else { cx.builder().absent() };
    let op = LayerNorm { axis: -1, eps: cx.float("epsilon", 1e-12), centre };
    normalised(cx, op, [sum, gamma, beta], &[0, 1, 2])?;
    cx.pass(3, sum)
}

/// Outputs of a normalisation as those outputs of the node that are listed.
fn normalised(
    cx: &mut Cx<'_, '_>,
    op: LayerNorm,
    inputs: [ValueId; 3],
    outputs: &[usize],
) -> Result<(), OnnxError> {
    let made = cx.temps(op, &inputs, outputs.len())?;
    outputs.iter().zip(made).try_for_each(|(i, id)| cx.pass(*i, id))
}

/// Inputs: ids of words and segments, tables of words, positions and segments, `gamma`, `beta`, mask, position ids. Outputs:
/// the normalised sum, the number of valid words of each text, and the sum.
fn embed(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (ids, words) = (cx.input(0), cx.input(2));
    let mut sum = cx.temp(Gather { axis: 0 }, &[words, ids])?;
    let positions = if cx.has(8) {
        cx.input(8)
    } else {
        let first = cx.scalar(DType::I64, 0.0)?;
        positions(cx, ids, 1, first)?
    };
    let table = cx.input(3);
    let place = cx.temp(Gather { axis: 0 }, &[table, positions])?;
    sum = cx.temp(Binary(Fun2::Add), &[sum, place])?;
    if cx.has(1) && cx.has(4) {
        let (segments, table) = (cx.input(1), cx.input(4));
        let kind = cx.temp(Gather { axis: 0 }, &[table, segments])?;
        sum = cx.temp(Binary(Fun2::Add), &[sum, kind])?;
    }
    let (gamma, beta) = (cx.input(5), cx.input(6));
    let op = LayerNorm { axis: -1, eps: cx.float("epsilon", 1e-12), centre: true };
    normalised(cx, op, [sum, gamma, beta], &[0])?;
    cx.pass(2, sum)?;
    if cx.wants(1) {
        let lengths = valid(cx, ids)?;
        cx.pass(1, lengths)?;
    }
    Ok(())
}

/// The number of valid words of each text, I32; zero without a mask, as ONNX Runtime has it.
fn valid(cx: &mut Cx<'_, '_>, ids: ValueId) -> Result<ValueId, OnnxError> {
    let sum = Reduce { kind: ReduceKind::Sum, keep_dims: false, keep_all: false };
    let axis = cx.ints(&[1])?;
    let mask = if cx.has(7) {
        cx.input(7)
    } else {
        let dtype = cx.builder().dtype(ids).unwrap_or(DType::I64);
        let zero = cx.scalar(dtype, 0.0)?;
        cx.temp(Binary(Fun2::Mul), &[ids, zero])?
    };
    let count = cx.temp(sum, &[mask, axis])?;
    cx.temp(Cast::to(DType::I32), &[count])
}
