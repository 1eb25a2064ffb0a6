//! `GroupQueryAttention`: attention of decoders over their past, as ONNX Runtime's language models have it.
//!
//! The past grows by what is new (`past_sequence_length` to `total_sequence_length`). A past and a present that share one
//! buffer of the greatest length, which is filled in place, are not supported.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Binary, Cast, Fun2, Rotate, Shape, Split};
use kinglet_tensor::DType;

use super::attention::{Heads, Inputs, attend, positions};
use super::{Entry, MS, count, refuse, width};
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(super) const OPS: &[Entry] = &[(MS, "GroupQueryAttention", grouped)];

/// Inputs: query (or all three in one), key, value, past key, past value, index of each entry's last position, greatest total
/// length, cosines, sines, position ids, attention bias.
fn grouped(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    refuse(cx, &[("local_window_size", -1), ("smooth_softmax", 0)], &[(11, "head_sink")])?;
    if cx.wants(3) {
        return Err(cx.fail("output `qk` is not supported"));
    }
    let (heads, kv_heads) = (count(cx, "num_heads")?, count(cx, "kv_num_heads")?);
    let [mut q, mut k, v] = parted(cx, heads, kv_heads)?;
    let past = if cx.has(3) { Some([cx.input(3), cx.input(4)]) } else { None };
    if cx.flag("do_rotary", false) {
        let ids = ids(cx, q, past)?;
        let (cos, sin) = (cx.input(7), cx.input(8));
        let interleaved = cx.flag("rotary_interleaved", false);
        let mut rotate = |x, heads| cx.temp(Rotate { heads, dims: 0, interleaved }, &[x, cos, sin, ids]);
        (q, k) = (rotate(q, heads)?, rotate(k, kv_heads)?);
    }
    let last = cx.input(5);
    let last = cx.temp(Cast::to(DType::I64), &[last])?;
    let one = cx.ints(&[1])?;
    let valid = cx.temp(Binary(Fun2::Add), &[last, one])?;
    let bias = if cx.has(10) { Some(cx.input(10)) } else { None };
    let of = Heads { queries: heads, keys: kv_heads, causal: true, softcap: cx.float("softcap", 0.0) };
    let made = attend(cx, &of, &Inputs { q, k, v, bias, past, valid: Some(valid) })?;
    made.into_iter().enumerate().try_for_each(|(i, id)| cx.pass(i, id))
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

/// The positions of the queries: given, or those behind the past.
fn ids(cx: &mut Cx<'_, '_>, q: ValueId, past: Option<[ValueId; 2]>) -> Result<ValueId, OnnxError> {
    if cx.has(9) {
        return Ok(cx.input(9));
    }
    let first = match past {
        Some([keys, _]) => cx.temp(Shape { start: 2, end: Some(3) }, &[keys])?,
        None => cx.ints(&[0])?,
    };
    positions(cx, q, 1, first)
}
