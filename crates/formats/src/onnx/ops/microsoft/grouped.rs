//! `GroupQueryAttention`: attention of decoders over their past, as ONNX Runtime's language models have it.
//!
//! The past may grow by what is new, or lie at the front of a buffer of the greatest length: keys and values go behind the valid
//! positions of each batch entry either way, and a mask hides what is not valid. A window, a sink and a smooth softmax are
//! parts of the mask and of the keys, so that [`Attend`] stays what it is.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Attend, Binary, Cast, Concat, Expand, Fun2, Pad, PadMode, Reshape, Rotate, Shape, Slice, Split,
    TensorScatter, Transpose, Unsqueeze, Where,
};
use kinglet_tensor::DType;

use super::attention::{counted, positions};
use super::{Entry, MS, count, tensor, width};
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[(MS, "GroupQueryAttention", grouped)];

type Made = Result<ValueId, OnnxError>;

/// Heads of queries, and of keys and values.
#[derive(Clone, Copy)]
struct Heads {
    queries: usize,
    keys: usize,
}

/// Inputs: query (or all three in one), key, value, past key, past value, index of each entry's last position, greatest total
/// length, cosines, sines, position ids, attention bias, sink of each head.
fn grouped(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    if cx.wants(3) {
        return Err(cx.fail("output `qk` is not supported"));
    }
    let heads = Heads { queries: count(cx, "num_heads")?, keys: count(cx, "kv_num_heads")? };
    let [mut q, mut k, v] = parted(cx, heads.queries, heads.keys)?;
    let lengths = Lengths::of(cx, q)?;
    if cx.flag("do_rotary", false) {
        let ids = if cx.has(9) { cx.input(9) } else { positions(cx, q, 1, lengths.past)? };
        let (cos, sin) = (cx.input(7), cx.input(8));
        let interleaved = cx.flag("rotary_interleaved", false);
        let mut rotate = |x, heads| cx.temp(Rotate { heads, dims: 0, interleaved }, &[x, cos, sin, ids]);
        (q, k) = (rotate(q, heads.queries)?, rotate(k, heads.keys)?);
    }
    let (keys, values) = (joined(cx, k, 3, heads, &lengths)?, joined(cx, v, 4, heads, &lengths)?);
    let mut mask = visible(cx, q, keys, &lengths)?;
    if cx.has(10) {
        mask = biased(cx, mask, keys)?;
    }
    let (mut seen, mut read) = (keys, values);
    if cx.has(11) || cx.flag("smooth_softmax", false) {
        (seen, read) = (with_nothing(cx, keys)?, with_nothing(cx, values)?);
        mask = with_sink(cx, q, mask, heads)?;
    }
    let op = Attend {
        heads: heads.queries,
        kv_heads: heads.keys,
        scale: cx.attrs.float("scale").filter(|scale| *scale != 0.0),
        softcap: cx.float("softcap", 0.0),
        ..Attend::default()
    };
    let y = cx.temp(op, &[q, seen, read, mask])?;
    cx.pass(0, y)?;
    for (i, all) in [(1, keys), (2, values)] {
        if cx.wants(i) {
            let present = present(cx, all)?;
            cx.pass(i, present)?;
        }
    }
    Ok(())
}

/// How many positions there are, of each batch entry, `[B, 1]`.
struct Lengths {
    /// Valid ones before the new ones.
    past: ValueId,
    /// Valid ones with the new ones.
    valid: ValueId,
}

impl Lengths {
    fn of(cx: &mut Cx<'_, '_>, q: ValueId) -> Result<Self, OnnxError> {
        let (last, column, one) = (cx.input(5), cx.ints(&[-1, 1])?, cx.ints(&[1])?);
        let last = cx.temp(Cast::to(DType::I64), &[last])?;
        let last = cx.temp(Reshape { allow_zero: false }, &[last, column])?;
        let valid = cx.temp(Binary(Fun2::Add), &[last, one])?;
        let (new, zero) = (size(cx, q, 1)?, cx.ints(&[0])?);
        let past = cx.temp(Binary(Fun2::Sub), &[valid, new])?;
        // A padded prompt has fewer valid positions than new ones, and no past.
        Ok(Self { past: cx.temp(Binary(Fun2::Max), &[past, zero])?, valid })
    }
}

/// One size of a value, `[1]`.
fn size(cx: &mut Cx<'_, '_>, x: ValueId, axis: i64) -> Made {
    cx.temp(Shape { start: axis, end: Some(axis + 1) }, &[x])
}

/// `0, 1, ..` as many as dimension `axis` of a value, in these dimensions.
fn places(cx: &mut Cx<'_, '_>, x: ValueId, axis: i64, shape: &[i64]) -> Made {
    let ((_, list), shape) = (counted(cx, x, axis)?, cx.ints(shape)?);
    cx.temp(Reshape { allow_zero: false }, &[list, shape])
}

/// Zeros like a value whose dimension 2 is `count` long.
fn zeros(cx: &mut Cx<'_, '_>, like: ValueId, count: ValueId) -> Made {
    let front = cx.temp(Shape { start: 0, end: Some(2) }, &[like])?;
    let back = cx.temp(Shape { start: 3, end: None }, &[like])?;
    let shape = cx.temp(Concat { axis: 0 }, &[front, count, back])?;
    let dtype = cx.builder().dtype(like).unwrap_or(DType::F32);
    let zero = cx.scalar(dtype, 0.0)?;
    cx.temp(Expand, &[zero, shape])
}

/// All keys (or values), `[B, heads, P + S, D]`: the new ones stand behind the valid ones of the past, input `i`.
fn joined(cx: &mut Cx<'_, '_>, new: ValueId, i: usize, heads: Heads, lengths: &Lengths) -> Made {
    let shape = cx.ints(&[0, 0, heads.keys as i64, -1])?;
    let split = cx.temp(Reshape { allow_zero: false }, &[new, shape])?;
    let new = cx.temp(Transpose { perm: vec![0, 2, 1, 3] }, &[split])?;
    if !cx.has(i) {
        return Ok(new);
    }
    let (past, count) = (cx.input(i), size(cx, new, 2)?);
    let room = zeros(cx, past, count)?;
    let buffer = cx.temp(Concat { axis: 2 }, &[past, room])?;
    let flat = cx.ints(&[-1])?;
    let starts = cx.temp(Reshape { allow_zero: false }, &[lengths.past, flat])?;
    cx.temp(TensorScatter { axis: 2, circular: false }, &[buffer, new, starts])
}

/// What the next run brings as its past: as long as the past was, or as all that is valid.
fn present(cx: &mut Cx<'_, '_>, all: ValueId) -> Made {
    if !cx.has(3) {
        return Ok(all);
    }
    let (past, total, one, axis) = (cx.input(3), cx.input(6), cx.ints(&[1])?, cx.ints(&[2])?);
    let total = cx.temp(Cast::to(DType::I64), &[total])?;
    let total = cx.temp(Reshape { allow_zero: false }, &[total, one])?;
    let own = size(cx, past, 2)?;
    let (start, end) = (cx.ints(&[0])?, cx.temp(Binary(Fun2::Max), &[own, total])?);
    cx.temp(Slice, &[all, start, end, axis])
}

/// Which keys a query sees, `[B, 1, S, T]`: valid ones up to its own, and of these the last ones where there is a window.
fn visible(cx: &mut Cx<'_, '_>, q: ValueId, keys: ValueId, lengths: &Lengths) -> Made {
    let axes = cx.ints(&[2, 3])?;
    let past = cx.temp(Unsqueeze, &[lengths.past, axes])?;
    let valid = cx.temp(Unsqueeze, &[lengths.valid, axes])?;
    let (rows, columns) = (places(cx, q, 1, &[1, 1, -1, 1])?, places(cx, keys, 2, &[1, 1, 1, -1])?);
    let own = cx.temp(Binary(Fun2::Add), &[rows, past])?;
    let before = cx.temp(Binary(Fun2::LessOrEqual), &[columns, own])?;
    let there = cx.temp(Binary(Fun2::Less), &[columns, valid])?;
    let seen = cx.temp(Binary(Fun2::And), &[before, there])?;
    let window = cx.int("local_window_size", -1);
    if window < 0 {
        return Ok(seen);
    }
    let window = cx.ints(&[window])?;
    let first = cx.temp(Binary(Fun2::Sub), &[own, window])?;
    let near = cx.temp(Binary(Fun2::Greater), &[columns, first])?;
    cx.temp(Binary(Fun2::And), &[seen, near])
}

/// The attention bias where a key is seen; it may be shorter than the keys.
fn biased(cx: &mut Cx<'_, '_>, seen: ValueId, keys: ValueId) -> Made {
    let bias = cx.input(10);
    let (width, own) = (size(cx, keys, 2)?, size(cx, bias, 3)?);
    let more = cx.temp(Binary(Fun2::Sub), &[width, own])?;
    let none = cx.ints(&[0; 7])?;
    let pads = cx.temp(Concat { axis: 0 }, &[none, more])?;
    let bias = cx.temp(Pad { mode: PadMode::Constant }, &[bias, pads])?;
    let dtype = tensor(cx, 10)?.dtype;
    let hidden = cx.scalar(dtype, f64::NEG_INFINITY)?;
    cx.temp(Where, &[seen, bias, hidden])
}

/// Another position of zeros.
fn with_nothing(cx: &mut Cx<'_, '_>, x: ValueId) -> Made {
    let one = cx.ints(&[1])?;
    let nothing = zeros(cx, x, one)?;
    cx.temp(Concat { axis: 2 }, &[x, nothing])
}

/// A mask with one more key, which scores what the sink of each head says, or 0.
fn with_sink(cx: &mut Cx<'_, '_>, q: ValueId, mask: ValueId, heads: Heads) -> Made {
    let dtype = tensor(cx, 0)?.dtype;
    let truth = cx.builder().dtype(mask) == Some(DType::Bool);
    let mut scores = mask;
    if truth {
        let (zero, hidden) = (cx.scalar(dtype, 0.0)?, cx.scalar(dtype, f64::NEG_INFINITY)?);
        scores = cx.temp(Where, &[mask, zero, hidden])?;
    }
    let (batch, count) = (size(cx, q, 0)?, cx.ints(&[heads.queries as i64])?);
    let (rows, width, one) = (size(cx, q, 1)?, size(cx, scores, 3)?, cx.ints(&[1])?);
    let whole = cx.temp(Concat { axis: 0 }, &[batch, count, rows, width])?;
    let scores = cx.temp(Expand, &[scores, whole])?;
    let sink = if cx.has(11) {
        let (sink, column) = (cx.input(11), cx.ints(&[1, -1, 1, 1])?);
        let sink = cx.temp(Cast::to(dtype), &[sink])?;
        cx.temp(Reshape { allow_zero: false }, &[sink, column])?
    } else {
        cx.scalar(dtype, 0.0)?
    };
    let shape = cx.temp(Concat { axis: 0 }, &[batch, count, rows, one])?;
    let sink = cx.temp(Expand, &[sink, shape])?;
    cx.temp(Concat { axis: 3 }, &[scores, sink])
}

/// Query, key and value; without keys, input 0 holds all three side by side.
fn parted(cx: &mut Cx<'_, '_>, heads: usize, kv_heads: usize) -> Result<[ValueId; 3], OnnxError> {
    let (q, k, v) = (cx.input(0), cx.input(1), cx.input(2));
    if cx.has(1) {
        return Ok([q, k, v]);
    }
    let (all, parts) = (width(cx, 0)?, heads + 2 * kv_heads);
    if !all.is_multiple_of(parts) {
        return Err(cx.fail(format!("{all} elements for {heads} heads and twice {kv_heads}")));
    }
    let own = |n: usize| (n * (all / parts)) as i64;
    let sizes = cx.ints(&[own(heads), own(kv_heads), own(kv_heads)])?;
    let made = cx.temps(Split { axis: -1, parts: 3 }, &[q, sizes], 3)?;
    Ok([made[0], made[1], made[2]])
}
