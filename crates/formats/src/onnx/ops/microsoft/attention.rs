//! Attention over heads as encoders write it: `MultiHeadAttention`, `Attention` with its own projection, `RotaryEmbedding`.

use kinglet_graph::ops::{
    Attend, Binary, Cast, Concat, Expand, Fun2, MatMul, Range, Reshape, Rotate, Shape, Split, Squeeze,
    Unsqueeze,
};
use kinglet_graph::{TensorType, ValueId};
use kinglet_tensor::DType;

use super::{Entry, MS, columns, count, refuse, tensor, width};
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::ops::quantize::numbers;

pub(in crate::onnx) const OPS: &[Entry] = &[
    (MS, "MultiHeadAttention", multi_head),
    (MS, "Attention", projected),
    (MS, "QAttention", quantised),
    (MS, "RotaryEmbedding", rotary),
];

/// What both kinds of attention have in common.
pub(super) struct Heads {
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) causal: bool,
    pub(super) softcap: f32,
}

/// What attention reads.
pub(super) struct Inputs {
    pub(super) q: ValueId,
    pub(super) k: ValueId,
    pub(super) v: ValueId,
    /// Summands of the scores.
    pub(super) bias: Option<ValueId>,
    /// Keys and values of earlier positions.
    pub(super) past: Option<[ValueId; 2]>,
    /// Number of valid positions of each batch entry.
    pub(super) valid: Option<ValueId>,
}

/// The result, all keys and all values.
pub(super) fn attend(cx: &mut Cx<'_, '_>, of: &Heads, inputs: &Inputs) -> Result<[ValueId; 3], OnnxError> {
    let scale = cx.attrs.float("scale").filter(|scale| *scale != 0.0);
    let (heads, kv_heads) = (of.queries, of.keys);
    let op = Attend { heads, kv_heads, scale, causal: of.causal, softcap: of.softcap, ..Attend::default() };
    let absent = cx.builder().absent();
    let [keys, values] = inputs.past.unwrap_or([absent; 2]);
    let (bias, valid) = (inputs.bias.unwrap_or(absent), inputs.valid.unwrap_or(absent));
    let made = cx.temps(op, &[inputs.q, inputs.k, inputs.v, bias, keys, values, valid], 3)?;
    Ok([made[0], made[1], made[2]])
}

/// Inputs: query, key, value, biases of the three, key padding mask, attention bias, past key, past value.
fn multi_head(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    refuse(cx, &[], &[(8, "past_sequence_length"), (9, "cache_indirection")])?;
    if cx.wants(3) {
        return Err(cx.fail("output `qk` is not supported"));
    }
    let heads = count(cx, "num_heads")?;
    let [mut q, mut k, mut v] = parted(cx)?;
    if cx.has(3) {
        [q, k, v] = with_biases(cx, [q, k, v])?;
    }
    let dtype = tensor(cx, 0)?.dtype;
    let past = if cx.has(6) { Some([cx.input(6), cx.input(7)]) } else { None };
    let causal = cx.flag("unidirectional", false);
    let (padding, valid) = padding(cx, 4, dtype, (causal && past.is_none()).then_some(k))?;
    let bias = if cx.has(5) { Some(cx.input(5)) } else { None };
    let bias = joined(cx, padding, bias)?;
    let of = Heads { queries: heads, keys: heads, causal, softcap: 0.0 };
    let made = attend(cx, &of, &Inputs { q, k, v, bias, past, valid })?;
    made.into_iter().enumerate().try_for_each(|(i, id)| cx.pass(i, id))
}

/// Query, key and value, which may come in one tensor `[B, S, heads, 3, D]`, or the latter two in `[B, T, heads, 2, D]`.
fn parted(cx: &mut Cx<'_, '_>) -> Result<[ValueId; 3], OnnxError> {
    let (q, k, v) = (cx.input(0), cx.input(1), cx.input(2));
    if cx.has(2) {
        return Ok([q, k, v]);
    }
    let (packed, from, parts) = if cx.has(1) { (k, 1, 2) } else { (q, 0, 3) };
    if tensor(cx, from)?.rank() != 5 {
        return Err(cx.fail("without values, queries or keys have the shape [B, S, heads, parts, D]"));
    }
    let absent = cx.builder().absent();
    let split = cx.temps(Split { axis: 3, parts }, &[packed, absent], parts)?;
    let flat = cx.ints(&[0, 0, -1])?;
    let flatten = |id: ValueId| cx.temp(Reshape { allow_zero: false }, &[id, flat]);
    let made = split.into_iter().map(flatten).collect::<Result<Vec<_>, _>>()?;
    Ok(if parts == 3 { [made[0], made[1], made[2]] } else { [q, made[0], made[1]] })
}

/// Adds the parts of input 3 to queries, keys and values of three dimensions.
fn with_biases(cx: &mut Cx<'_, '_>, values: [ValueId; 3]) -> Result<[ValueId; 3], OnnxError> {
    let (bias, all, wide) = (cx.input(3), width(cx, 3)?, last_of(cx, values[0])?);
    if 2 * wide > all {
        return Err(cx.fail(format!("{all} biases for queries of {wide}")));
    }
    let cuts = [(0, wide), (wide, 2 * wide), (2 * wide, all)];
    let mut made = values;
    for (x, (from, to)) in made.iter_mut().zip(cuts) {
        let part = columns(cx, bias, from, to)?;
        *x = cx.temp(Binary(Fun2::Add), &[*x, part])?;
    }
    Ok(made)
}

/// The last dimension of a value, which must be known.
fn last_of(cx: &mut Cx<'_, '_>, id: ValueId) -> Result<usize, OnnxError> {
    let last = cx.builder().ty(id).tensor().and_then(|ty| ty.shape.last()?.fixed());
    last.ok_or_else(|| cx.fail("the width of the queries is not known"))
}

/// The sum of what is given.
fn joined(cx: &mut Cx<'_, '_>, a: Option<ValueId>, b: Option<ValueId>) -> Result<Option<ValueId>, OnnxError> {
    match (a, b) {
        (Some(a), Some(b)) => cx.temp(Binary(Fun2::Add), &[a, b]).map(Some),
        (one, other) => Ok(one.or(other)),
    }
}

/// Mask `i` as summands of the scores, of this type, or as numbers of valid positions: `[B]` holds lengths, `[B, T]` and `[B, S, T]` hold 1
/// where a position counts. Lengths of keys that queries see in order, `ordered`, become summands: valid positions would say that the
/// queries are the last of them.
fn padding(
    cx: &mut Cx<'_, '_>,
    i: usize,
    dtype: DType,
    ordered: Option<ValueId>,
) -> Result<(Option<ValueId>, Option<ValueId>), OnnxError> {
    if !cx.has(i) {
        return Ok((None, None));
    }
    let (mask, rank) = (cx.input(i), tensor(cx, i)?.rank());
    let (mask, axes): (_, &[i64]) = match (rank, ordered) {
        (1, ordered) => {
            let lengths = cx.temp(Cast::to(DType::I64), &[mask])?;
            let Some(keys) = ordered else { return Ok((None, Some(lengths))) };
            (within(cx, lengths, keys)?, &[1, 2])
        }
        (2, _) => (mask, &[1, 2]),
        (3, _) => (mask, &[1]),
        _ => return Err(cx.fail(format!("a mask of {rank} dimensions is not supported"))),
    };
    let axes = cx.ints(axes)?;
    let wide = cx.temp(Unsqueeze, &[mask, axes])?;
    let wide = cx.temp(Cast::to(dtype), &[wide])?;
    let (one, filter) = (cx.scalar(dtype, 1.0)?, cx.float("mask_filter_value", -10000.0));
    let filter = cx.scalar(dtype, filter.into())?;
    let less = cx.temp(Binary(Fun2::Sub), &[one, wide])?;
    Ok((Some(cx.temp(Binary(Fun2::Mul), &[less, filter])?), None))
}

/// Which positions of `keys`, `[B, T, C]` or `[B, heads, T, D]`, lie within lengths `[B]`: `[B, T]`.
fn within(cx: &mut Cx<'_, '_>, lengths: ValueId, keys: ValueId) -> Result<ValueId, OnnxError> {
    let rank = cx.builder().ty(keys).tensor().map_or(3, TensorType::rank) as i64;
    let (absent, behind) = (cx.builder().absent(), cx.ints(&[1])?);
    let count = cx.temp(Shape { start: rank - 2, end: Some(rank - 1) }, &[keys])?;
    let count = cx.temp(Squeeze, &[count, absent])?;
    let (zero, one) = (cx.scalar(DType::I64, 0.0)?, cx.scalar(DType::I64, 1.0)?);
    let positions = cx.temp(Range, &[zero, count, one])?;
    let lengths = cx.temp(Unsqueeze, &[lengths, behind])?;
    cx.temp(Binary(Fun2::Less), &[positions, lengths])
}

/// Inputs: `x` `[B, S, C]`, weights `[C, q + k + v]`, bias, mask, past `[2, B, heads, P, D]`, attention bias.
fn projected(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    refuse(cx, &[("do_rotary", 0)], &[(6, "past_sequence_length")])?;
    let (x, weights, dtype) = (cx.input(0), cx.input(1), tensor(cx, 0)?.dtype);
    let bias = if cx.has(5) { Some(cx.input(5)) } else { None };
    heads_of(cx, [x, weights], dtype, [3, 4], bias)
}

/// The same of codes. Inputs: codes of `x` and of the weights, bias, scales of both, mask, zero points of both, past.
fn quantised(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    refuse(cx, &[("do_rotary", 0)], &[])?;
    let x = numbers(cx, [0, 3, 6], -1)?;
    let weights = numbers(cx, [1, 4, 7], 1)?;
    heads_of(cx, [x, weights], DType::F32, [5, 8], None)
}

/// Attention over heads of `x` times weights, plus input 2. Mask and past are the given inputs; `bias` is added to the scores.
fn heads_of(
    cx: &mut Cx<'_, '_>,
    [x, weights]: [ValueId; 2],
    dtype: DType,
    [mask, past]: [usize; 2],
    bias: Option<ValueId>,
) -> Result<(), OnnxError> {
    let heads = count(cx, "num_heads")?;
    let mut all = cx.temp(MatMul, &[x, weights])?;
    if cx.has(2) {
        let bias = cx.input(2);
        all = cx.temp(Binary(Fun2::Add), &[all, bias])?;
    }
    let wide = width(cx, 1)?;
    let sizes = match cx.sizes("qkv_hidden_sizes")?[..] {
        [] => [wide / 3; 3],
        [q, k, v] if q.saturating_add(k).saturating_add(v) == wide => [q, k, v],
        ref other => return Err(cx.fail(format!("parts of {other:?} of {wide}"))),
    };
    let sizes = cx.ints(&sizes.map(|n| n as i64))?;
    let parts = cx.temps(Split { axis: -1, parts: 3 }, &[all, sizes], 3)?;
    let past = past_pair(cx, past)?;
    let causal = cx.flag("unidirectional", false);
    let (padding, valid) = padding(cx, mask, dtype, (causal && past.is_none()).then_some(parts[1]))?;
    let bias = joined(cx, padding, bias)?;
    let of = Heads { queries: heads, keys: heads, causal, softcap: 0.0 };
    let inputs = Inputs { q: parts[0], k: parts[1], v: parts[2], bias, past, valid };
    let [y, keys, values] = attend(cx, &of, &inputs)?;
    cx.pass(0, y)?;
    if !cx.wants(1) {
        return Ok(());
    }
    let first = cx.ints(&[0])?;
    let (keys, values) = (cx.temp(Unsqueeze, &[keys, first])?, cx.temp(Unsqueeze, &[values, first])?);
    let both = cx.temp(Concat { axis: 0 }, &[keys, values])?;
    cx.pass(1, both)
}

/// Keys and values out of one tensor `[2, B, heads, P, D]`.
fn past_pair(cx: &mut Cx<'_, '_>, i: usize) -> Result<Option<[ValueId; 2]>, OnnxError> {
    if !cx.has(i) {
        return Ok(None);
    }
    let (past, absent, first) = (cx.input(i), cx.builder().absent(), cx.ints(&[0])?);
    let halves = cx.temps(Split { axis: 0, parts: 2 }, &[past, absent], 2)?;
    let keys = cx.temp(Squeeze, &[halves[0], first])?;
    let values = cx.temp(Squeeze, &[halves[1], first])?;
    Ok(Some([keys, values]))
}

/// Inputs: `x` `[B, S, heads * D]` or `[B, heads, S, D]`, position ids `[B, S]` or the first position `[1]`, cosines, sines.
fn rotary(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    refuse(cx, &[("is_packed_batching", 0)], &[])?;
    let factor = cx.float("scale", 1.0);
    if factor != 1.0 {
        return Err(cx.fail(format!("attribute `scale` of {factor} is not supported")));
    }
    let (x, cos, sin) = (cx.input(0), cx.input(2), cx.input(3));
    let dims = usize::try_from(cx.int("rotary_embedding_dim", 0)).unwrap_or(0);
    let rank = tensor(cx, 0)?.rank();
    let heads = match usize::try_from(cx.int("num_heads", 0)).unwrap_or(0) {
        0 if rank == 3 => width(cx, 0)? / (2 * width(cx, 2)?).max(1),
        heads => heads,
    };
    let given = cx.input(1);
    let ids = if tensor(cx, 1)?.rank() == 2 {
        given
    } else {
        let length = if rank == 4 { 2 } else { 1 };
        positions(cx, x, length, given)?
    };
    cx.emit_with(Rotate { heads, dims, interleaved: cx.flag("interleaved", false) }, &[x, cos, sin, ids])
}

/// How long dimension `axis` of a value is, `[1]`, and `0, 1, ..` as many.
pub(super) fn counted(cx: &mut Cx<'_, '_>, x: ValueId, axis: i64) -> Result<(ValueId, ValueId), OnnxError> {
    let count = cx.temp(Shape { start: axis, end: Some(axis + 1) }, &[x])?;
    let scalar = cx.ints(&[])?;
    let limit = cx.temp(Reshape { allow_zero: false }, &[count, scalar])?;
    let (zero, one) = (cx.scalar(DType::I64, 0.0)?, cx.scalar(DType::I64, 1.0)?);
    Ok((count, cx.temp(Range, &[zero, limit, one])?))
}

/// `first, first + 1, ..` for each batch entry of `x`, whose dimension `length` counts positions: `[B, S]`.
pub(super) fn positions(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    length: i64,
    first: ValueId,
) -> Result<ValueId, OnnxError> {
    let (count, steps) = counted(cx, x, length)?;
    let first = cx.temp(Cast::to(DType::I64), &[first])?;
    let row = cx.temp(Binary(Fun2::Add), &[steps, first])?;
    let batch = cx.temp(Shape { start: 0, end: Some(1) }, &[x])?;
    let shape = cx.temp(Concat { axis: 0 }, &[batch, count])?;
    cx.temp(Expand, &[row, shape])
}
