//! Operators over pictures whose channels stand last: group norms and the largest element of windows.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Binary, Fun, Fun2, GroupNorm, Pool, PoolKind, Unary, Unsqueeze};

use super::{Entry, MS, count, tensor};
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::ops::linear::window;
use crate::onnx::ops::quantize::{channels_first, channels_last};

pub(in crate::onnx) const OPS: &[Entry] = &[
    (MS, "GroupNorm", |cx| {
        let x = cx.input(0);
        group_norm(cx, x)
    }),
    (MS, "SkipGroupNorm", skip_group_norm),
    (MS, "NhwcMaxPool", max_pool),
];

/// The first output as the norm of `x`; inputs 1 and 2 scale and shift channels.
fn group_norm(cx: &mut Cx<'_, '_>, x: ValueId) -> Result<(), OnnxError> {
    let op = GroupNorm { groups: Some(count(cx, "groups")?), eps: cx.float("epsilon", 1e-5) };
    let (scale, shift) = (cx.input(1), cx.input(2));
    let x = channels_first(cx, x, true)?;
    let made = cx.temp(op, &[x, scale, shift])?;
    let made = match cx.int("activation", 0) {
        0 => made,
        1 => cx.temp(Unary(Fun::Swish(1.0)), &[made])?,
        other => return Err(cx.fail(format!("activation {other} is not known"))),
    };
    let made = channels_last(cx, made, true)?;
    cx.pass(0, made)
}

/// The norm of the sum of a picture with another one, or with a number for each channel, and a bias; then the sum.
fn skip_group_norm(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (x, mut skip) = (cx.input(0), cx.input(3));
    if tensor(cx, 3)?.rank() == 2 {
        let axes = cx.ints(&[1, 2])?;
        skip = cx.temp(Unsqueeze, &[skip, axes])?;
    }
    let mut sum = cx.temp(Binary(Fun2::Add), &[x, skip])?;
    if cx.has(4) {
        let bias = cx.input(4);
        sum = cx.temp(Binary(Fun2::Add), &[sum, bias])?;
    }
    group_norm(cx, sum)?;
    if cx.wants(1) { cx.pass(1, sum) } else { Ok(()) }
}

fn max_pool(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let rank = tensor(cx, 0)?.rank();
    let op = Pool {
        kind: PoolKind::Max { column_major: false },
        kernel: cx.sizes("kernel_shape")?,
        window: window(cx)?,
        ceil: cx.flag("ceil_mode", false),
    };
    if op.kernel.len() + 2 != rank || op.kernel.contains(&0) {
        return Err(cx.fail(format!("a kernel of {:?}", op.kernel)));
    }
    let x = cx.input(0);
    let first = channels_first(cx, x, true)?;
    let made = cx.temp(op, &[first])?;
    let made = channels_last(cx, made, true)?;
    cx.pass(0, made)
}
